"""The gateway as one object: what is shared by all requests, and which request goes where."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import orjson

from atoll.core.errors import AtollError, Forbidden, Invalid, NotFound, RateLimited, TooLarge, Unauthorized, Unavailable
from atoll.serving.gateway.connection import Connection, Server
from atoll.serving.gateway.exchange import Exchange
from atoll.serving.gateway.http import JSON, Handler, Limits, Request
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.metrics import Metrics
from atoll.serving.gateway.openai import CHAT, COMPLETION, EMBEDDING, Endpoint, error_body, render, unknown_model
from atoll.serving.gateway.proxy import Passage
from atoll.serving.gateway.snapshot import Directory, Key, Model
from atoll.serving.gateway.upstream import Client, Origin, Patience

BODIES_BYTES_MAX = 256 * 1024 * 1024
ENGINE_PATIENCE = Patience(connect_s=2.0, first_byte_s=600.0, idle_s=120.0)
_ENDPOINTS = {endpoint.path.encode(): endpoint for endpoint in (CHAT, COMPLETION, EMBEDDING)}
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
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.server = server
        self.system_key = system_key
        self.client = Client()
        self.directory = Directory(home / "snapshot.json")
        self.directory.load()
        self.journal = Journal(home / "journal")
        self.metrics = Metrics()
        self.http = Server(self, limits)
        self.patience = patience
        self.turn = 0
        self.body_bytes = 0
        self.in_flight = 0
        self._load_of_key: dict[str, int] = {}
        self._add_gauges()

    def _add_gauges(self) -> None:
        journal = self.journal
        self.metrics.gauges |= {
            "in_flight": ("Requests an engine works on.", lambda: self.in_flight),
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

    @property
    def is_full_of_bodies(self) -> bool:
        return self.body_bytes > BODIES_BYTES_MAX

    # routes

    def open(self, request: Request, connection: Connection) -> Handler:
        """The handler of a request; see http.Service."""
        endpoint = _ENDPOINTS.get(request.path)
        try:
            if endpoint is not None:
                return self._open_exchange(endpoint, request, connection)
            if request.path == b"/v1" or request.path.startswith(b"/v1/"):
                self._list_models(request, connection)
            elif request.path == b"/healthz":
                self._tell_health(connection)
            elif request.path == b"/metrics":
                self._tell_metrics(request, connection)
            else:
                return Passage(self, connection, request)
        except AtollError as error:
            self.refuse_request(connection, endpoint.name if endpoint else "other", error)
        return _ANSWERED

    def _open_exchange(self, endpoint: Endpoint, request: Request, connection: Connection) -> Handler:
        if request.method != b"POST":
            raise _method_not_allowed(request, "POST")
        key = self._authenticate(request)
        limit, length = self.directory.snapshot.bounds.body_bytes_max, request.content_length
        if length is not None and length > limit:
            raise TooLarge(f"The body has {length} bytes; the limit is {limit}.")
        if b"content-encoding" in request.fields:
            raise Invalid("Compressed request bodies are not understood; send plain JSON.")
        if self.journal.error is not None:
            raise Unavailable("Usage cannot be recorded now, so no requests are served.", retry_after_s=2.0)
        return Exchange(self, connection, request, endpoint, key)

    def _list_models(self, request: Request, connection: Connection) -> None:
        name = request.path.removeprefix(b"/v1/models")
        if name == request.path or (name and not name.startswith(b"/")):
            target = f"{request.method.decode()} {request.path.decode(errors='replace')}"
            raise NotFound(f"Unknown request: {target}.", code="unknown_url")
        if request.method not in (b"GET", b"HEAD"):
            raise _method_not_allowed(request, "GET")
        key = self._authenticate(request)
        if name in (b"", b"/"):
            models = [_model_object(key, model) for model in self._usable(key).values()]
            self._reply_json(connection, "models", {"object": "list", "data": models})
        else:
            model = self._find_model(key, unquote(name[1:].decode(errors="replace")))
            self._reply_json(connection, "models", _model_object(key, model))

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
        is_local = connection.peer in (b"127.0.0.1", b"::1") and b"x-forwarded-for" not in request.fields
        if not is_local and request.fields.get(b"authorization") != b"Bearer " + self.system_key.encode():
            raise Unauthorized("Metrics are for this machine, or with the system key.", code="invalid_api_key")
        self.metrics.count("metrics", "", 200)
        connection.reply(200, self.metrics.render(), _TEXT)

    # decisions

    def _authenticate(self, request: Request) -> Key:
        value = request.fields.get(b"authorization", b"")
        if value[:7].lower() != b"bearer ":
            hint = "Send it as 'Authorization: Bearer KEY'."
            raise Unauthorized("You didn't provide an API key.", hint=hint, code="invalid_api_key")
        key = self.directory.find_key(value[7:].strip())
        if key is None:
            raise Unauthorized("The API key is wrong or has expired.", code="invalid_api_key")
        return key

    def _usable(self, key: Key) -> dict[str, Model]:
        models = self.directory.snapshot.models.get(key.project, {})
        return {name: model for name, model in models.items() if key.may_use(name)}

    def _find_model(self, key: Key, name: str) -> Model:
        model = self.directory.snapshot.models.get(key.project, {}).get(name)
        if model is None:
            raise unknown_model(name, self._usable(key))
        if not key.may_use(name):
            raise Forbidden(f"This key may not use the model {name!r}.", code="model_not_allowed", param="model")
        return model

    def admit(self, key: Key, endpoint: Endpoint, name: str) -> Model:
        """The model to use, with a place taken for the request (give it back with `release`)."""
        model = self._find_model(key, name)
        if model.kind not in endpoint.kinds:
            message = f"The model {name!r} is of kind {model.kind!r} and does not answer {endpoint.path}."
            raise Invalid(message, field="model", code="model_kind")
        bounds, load = self.directory.snapshot.bounds, self._load_of_key.get(key.id, 0)
        if bounds.requests_per_key_max is not None and load >= bounds.requests_per_key_max:
            message = f"This key has {load} requests in flight, as many as it may."
            raise RateLimited(message, code="rate_limit_exceeded")
        if bounds.requests_queued_max is not None and queued(model) >= bounds.requests_queued_max:
            message = f"{queued(model)} requests wait for the model {name!r}, as many as may."
            raise RateLimited(message, code="rate_limit_exceeded")
        self._load_of_key[key.id] = load + 1
        self.in_flight += 1
        return model

    def release(self, key: Key) -> None:
        """Give back the place that `admit` took."""
        self.in_flight -= 1
        load = self._load_of_key[key.id] - 1
        if load:
            self._load_of_key[key.id] = load
        else:
            del self._load_of_key[key.id]

    # answers

    def refuse(self, status: int, message: str) -> bytes:
        """See http.Service."""
        self.metrics.count("malformed", "", status)
        return error_body(status, message)

    def refuse_request(self, connection: Connection, route: str, error: AtollError) -> None:
        """Answer with an error that used no model."""
        self.metrics.count(route, "", error.http_status)
        self.answer_error(connection, error)

    def answer_error(self, connection: Connection, error: AtollError) -> None:
        status, body, headers = render(error)
        connection.reply(status, body, JSON + headers)

    def _reply_json(self, connection: Connection, route: str, value: object, status: int = 200) -> None:
        self.metrics.count(route, "", status)
        connection.reply(status, orjson.dumps(value))


def queued(model: Model) -> int:
    """Requests of this gateway beyond what the model's replicas serve at a time."""
    return max(0, sum(r.outstanding - r.slots for r in model.replicas))


def _model_object(key: Key, model: Model) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": key.project,
        "kind": model.kind,
        "version": model.version,
        "context": model.context,
        "ready": bool(model.replicas),
    }


def _method_not_allowed(request: Request, allowed: str) -> Invalid:
    message = f"{request.method.decode()} is not allowed here; use {allowed}."
    error = Invalid(message, code="method_not_allowed", allow=allowed)
    error.http_status = 405
    return error
