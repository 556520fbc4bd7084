"""The gateway as one object: what is shared by all requests, and which request goes where."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from atoll import __version__
from atoll.core.errors import AtollError, Forbidden, Invalid, NotFound, TooLarge, Unauthorized, Unavailable
from atoll.governance.prices import Tariff
from atoll.serving.fairness import PRIORITIES
from atoll.serving.gateway.connection import Connection, Server
from atoll.serving.gateway.dialects.centre import Centre
from atoll.serving.gateway.dialects.order import Endpoint
from atoll.serving.gateway.dialects.predict import server_metadata
from atoll.serving.gateway.dialects.refusal import error_body, render, unknown_model
from atoll.serving.gateway.dialects.routes import endpoint_of
from atoll.serving.gateway.directory import Directory
from atoll.serving.gateway.dispatch import Dispatch, Place
from atoll.serving.gateway.exchange import Exchange
from atoll.serving.gateway.http import JSON, Handler, Limits, Request
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.limits import Limiter
from atoll.serving.gateway.loads import Loads
from atoll.serving.gateway.metrics import Metrics
from atoll.serving.gateway.proxy import Passage
from atoll.serving.gateway.recorder import Recorder
from atoll.serving.gateway.slices import Purse
from atoll.serving.gateway.snapshot import Key, Model, Snapshot
from atoll.serving.gateway.upstream import Client, Origin, Patience
from atoll.serving.gateway.usage import Tokens
from atoll.serving.gateway.workers import enter_lost

log = logging.getLogger(__name__)

ENGINE_PATIENCE = Patience(connect_s=2.0, first_byte_s=600.0, idle_s=120.0)
_SERVERS_OWN = frozenset((b"batches", b"conversations", b"files", b"fine_tuning", b"responses", b"uploads"))
"""What under /v1 the server answers."""
_TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


class _Answered:
    """Handler of a request that was answered when its head had been read."""

    def on_body(self, data: bytes) -> None:
        pass

    def on_end(self) -> None:
        pass

    def on_disconnect(self) -> None:
        pass

    def on_pause(self) -> None:
        pass

    def on_resume(self) -> None:
        pass


_ANSWERED = _Answered()


class Gateway:
    """State shared by all exchanges, and the routes."""

    def __init__(
        self,
        home: Path,
        server: Origin,
        system_key: str,
        *,
        limits: Limits | None = None,
        patience: Patience = ENGINE_PATIENCE,
        shared: Path | None = None,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        """`home` is this process's own folder, `shared` one of all workers of this host."""
        home.mkdir(parents=True, exist_ok=True)
        self.server = server
        self.system_key = system_key
        self.client = Client()
        self.centre = Centre(self.client, server, system_key)
        self.metrics = Metrics()
        self.journal = Journal(home / "journal")
        self.recorder = Recorder(home / "recorder")
        enter_lost(self.journal, self.recorder)
        journal = self.journal
        self.purse = Purse(journal.source, journal.assigned, written=lambda: journal.assigned)
        self.limiter = Limiter(shared or home, worker, workers)
        self.loads = Loads(journal.source)
        self.dispatch = Dispatch(self.loads)
        self.directory = Directory(home / "snapshot.json")
        self.directory.on_change = self._adopt
        self.directory.load()
        self.http = Server(self, limits)
        self.patience = patience
        self.body_bytes = 0
        self.in_flight = 0
        self.load_of_key: dict[str, int] = {}
        self._add_gauges()

    def _adopt(self, snapshot: Snapshot) -> None:
        """A new snapshot is in force."""
        self.purse.adopt(snapshot.budgets)
        self.dispatch.adopt(snapshot)

    def _add_gauges(self) -> None:
        journal = self.journal
        self.metrics.gauges |= {
            "in_flight": ("Requests under way.", lambda: self.in_flight),
            "waiting": ("Requests that wait for a replica.", lambda: self.dispatch.waiting),
            "waiting_for_budget": ("Requests that wait for a slice of a budget.", lambda: self.purse.waiting),
            "connections": ("Client connections.", lambda: len(self.http.connections)),
            "upstream_connections": ("Connections to engines and the server.", lambda: len(self.client.links)),
            "journal_unshipped": ("Usage records the server has not confirmed.", lambda: journal.unacknowledged),
            "journal_undurable": ("Usage records not yet durable.", lambda: journal.written - journal.durable),
            "journal_failing": ("1 while usage cannot be written.", lambda: float(journal.error is not None)),
            "server_reachable": ("1 while the server answers.", lambda: float(self.directory.is_server_reachable)),
        }

    def tick(self) -> None:
        """Enforce all times; about twice a second."""
        self.client.tick()
        self.http.tick()
        self.dispatch.tick()

    # routes

    def open(self, request: Request, connection: Connection) -> Handler:
        """The handler of a request; see http.Service."""
        path = request.path
        endpoint = endpoint_of(path)
        try:
            if endpoint is not None and request.method == endpoint.method.encode():
                return self._open_exchange(endpoint, request, connection)
            if path.startswith(b"/v1/") and path.split(b"/", 3)[2] in _SERVERS_OWN:
                return Passage(self, connection, request)
            if endpoint is not None:
                raise _method_not_allowed(request, endpoint.method)
            if path == b"/v1" or path.startswith(b"/v1/"):
                self._list_models(request, connection)
            elif path in (b"/healthz", b"/v2/health/live", b"/v2/health/ready"):
                self._tell_health(connection)
            elif path in (b"/v2", b"/v2/"):
                self._reply_json(connection, "metadata", server_metadata(__version__))
            elif path == b"/metrics":
                self._tell_metrics(request, connection)
            else:
                return Passage(self, connection, request)
        except AtollError as error:
            self.refuse_request(connection, endpoint, error)
        return _ANSWERED

    def _open_exchange(self, endpoint: Endpoint, request: Request, connection: Connection) -> Handler:
        key = self._authenticate(request, connection)
        project = self._choose_project(key, request)
        priority = _priority(key, request)
        limit, length = self.directory.snapshot.bounds.body_bytes_max, request.content_length
        if length is not None and length > limit:
            raise TooLarge(f"The body has {length} bytes; the limit is {limit}.")
        if b"content-encoding" in request.fields:
            raise Invalid("Compressed request bodies are not understood; send plain JSON.")
        if self.journal.error is not None:
            raise Unavailable("Usage cannot be recorded now, so no requests are served.", retry_after_s=2.0)
        return Exchange(self, connection, request, endpoint, key, project, priority)

    def _list_models(self, request: Request, connection: Connection) -> None:
        name = request.path.removeprefix(b"/v1/models")
        if name == request.path or (name and not name.startswith(b"/")):
            target = f"{request.method.decode()} {request.path.decode(errors='replace')}"
            raise NotFound(f"Unknown request: {target}.", code="unknown_url")
        if request.method not in (b"GET", b"HEAD"):
            raise _method_not_allowed(request, "GET")
        key = self._authenticate(request, connection)
        project = self._choose_project(key, request)
        if name in (b"", b"/"):
            models = [_model_object(project, model) for model in self._usable(key, project).values()]
            self._reply_json(connection, "models", {"object": "list", "data": models})
        else:
            model = self._named(key, project, unquote(name[1:].decode(errors="replace")))
            self._reply_json(connection, "models", _model_object(project, model))

    def _tell_health(self, connection: Connection) -> None:
        """200 once the gateway has something to go by: a server it reached, or the snapshot of an earlier run."""
        directory = self.directory
        is_up = directory.was_server_reached or directory.origin_of_snapshot != "none"
        answer = {
            "status": "ok" if is_up else "starting",
            "snapshot": directory.origin_of_snapshot,
            "server": "reachable" if directory.is_server_reachable else "unreachable",
            "journal": "ok" if self.journal.error is None else "failing",
        }
        self._reply_json(connection, "healthz", answer, 200 if is_up else 503)

    def _tell_metrics(self, request: Request, connection: Connection) -> None:
        """To this machine, or to who has the system key: labels name every tenant's models."""
        is_local = connection.peer in ("127.0.0.1", "::1") and b"x-forwarded-for" not in request.fields
        if not is_local and request.fields.get(b"authorization") != b"Bearer " + self.system_key.encode():
            raise Unauthorized("Metrics are for this machine, or with the system key.", code="invalid_api_key")
        self.metrics.count("metrics", "", 200)
        connection.reply(200, self.metrics.render(), _TEXT)

    # decisions

    def _authenticate(self, request: Request, connection: Connection) -> Key:
        """The key of a request, in the header of either dialect, used from where it may be."""
        fields = request.fields
        value = fields.get(b"authorization", b"")
        secret = value[7:].strip() if value[:7].lower() == b"bearer " else fields.get(b"x-api-key", b"").strip()
        if not secret:
            hint = "Send it as 'Authorization: Bearer KEY'."
            raise Unauthorized("You didn't provide an API key.", hint=hint, code="invalid_api_key")
        key = self.directory.find_key(secret)
        if key is None and self.directory.origin_of_snapshot == "none":
            raise Unavailable("The gateway is starting and does not know any key yet.", retry_after_s=1.0)
        if key is None:
            raise Unauthorized("The API key is wrong or has expired.", code="invalid_api_key")
        if key.addresses is not None and not key.may_come_from(connection.peer):
            raise Forbidden(f"This key may not be used from {connection.peer}.", code="address_not_allowed")
        return key

    def _choose_project(self, key: Key, request: Request) -> str:
        """The project the request acts in: the key's own, or the one it names."""
        asked = request.fields.get(b"openai-project")
        if asked is None:
            return key.project
        project = asked.decode(errors="replace").strip()
        if project not in key.projects:
            offer = ", ".join(sorted(key.projects))
            message = f"This key may not act in the project {project[:64]!r}."
            raise Forbidden(message, hint=f"It may in: {offer}.", code="project_not_allowed")
        return project

    def _usable(self, key: Key, project: str) -> dict[str, Model]:
        models = self.directory.snapshot.models.get(project, {})
        return {name: model for name, model in models.items() if key.may_use(name)}

    def _named(self, key: Key, project: str, name: str) -> Model:
        model = self.directory.snapshot.models.get(project, {}).get(name)
        if model is None:
            raise unknown_model(name, self._usable(key, project))
        if not key.may_use(name):
            raise Forbidden(f"This key may not use the model {name!r}.", code="model_not_allowed", param="model")
        return model

    def find_model(self, key: Key, project: str, name: str, endpoint: Endpoint) -> Model:
        """The model a request names, if it may use it and the model answers this endpoint."""
        model = self._named(key, project, name)
        if model.kind not in endpoint.kinds:
            message = f"The model {name!r} is of kind {model.kind!r} and does not answer {endpoint.path}."
            raise Invalid(message, field="model", code="model_kind")
        return model

    def fallbacks_of(self, project: str, model: Model) -> list[Model]:
        """The models of the project that are asked when this one cannot answer, in order."""
        models = self.directory.snapshot.models.get(project, {})
        found = [models[name] for name in model.fallback if name in models]
        return [other for other in found if other.kind == model.kind and other is not model]

    def tariffs_of(self, project: str, model: Model) -> Sequence[Tariff]:
        """Every price a request for the model may end up with."""
        if not model.fallback:
            return model.tariffs
        return [tariff for option in (model, *self.fallbacks_of(project, model)) for tariff in option.tariffs]

    def cost_of(self, place: Place | None, used: Tokens) -> int:
        """What was used costs this many micro-units where it was used."""
        if place is None or place.target.tariff is None:
            return 0
        return place.target.tariff.cost_micros(used.prompt, used.cached, used.completion)

    # answers

    def refuse(self, status: int, message: str) -> bytes:
        """See http.Service."""
        self.metrics.count("malformed", "", status)
        return error_body(status, message)

    def refuse_request(self, connection: Connection, endpoint: Endpoint | None, error: AtollError) -> None:
        """Answer with an error that used no model."""
        self.metrics.count(endpoint.name if endpoint else "other", "", error.http_status)
        self.answer_error(connection, endpoint, error)

    def answer_error(self, connection: Connection, endpoint: Endpoint | None, error: AtollError) -> None:
        """Tell an error in the endpoint's own form."""
        status, body, headers = endpoint.render_error(error) if endpoint else render(error)
        connection.reply(status, body, JSON + headers)

    def _reply_json(self, connection: Connection, route: str, value: object, status: int = 200) -> None:
        self.metrics.count(route, "", status)
        connection.reply(status, orjson.dumps(value))


def _model_object(project: str, model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner or project,
        "kind": model.kind,
        "version": model.version,
        "context": model.context,
        "ready": model.is_ready,
    }


def _priority(key: Key, request: Request) -> int:
    """The class a request waits in: as asked, but not above the key's own."""
    asked = request.fields.get(b"x-atoll-priority")
    if asked is None:
        return key.priority
    name = asked.decode(errors="replace").strip().lower()
    if name not in PRIORITIES:
        message = f"The header x-atoll-priority must be one of {', '.join(PRIORITIES)}, not {name[:40]!r}."
        raise Invalid(message, field="x-atoll-priority")
    return max(PRIORITIES[name], key.priority)


def _method_not_allowed(request: Request, allowed: str) -> Invalid:
    message = f"{request.method.decode()} is not allowed here; use {allowed}."
    error = Invalid(message, code="method_not_allowed", allow=allowed)
    error.http_status = 405
    return error
