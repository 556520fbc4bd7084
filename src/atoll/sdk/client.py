"""A small synchronous client of the management API: nouns, watching, waiting, and the few verbs.

Kinds are named as people do (`Deployment`, `deployment`, `deployments`); the server's own list of kinds is
read once. Reads and writes are made once and raise the server's error; `watch` and `wait_for` outlast a
server that is away for a while.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from atoll.core.errors import AtollError, Invalid, NotFound, Unavailable
from atoll.core.resources import DEFAULT_PROJECT, SYSTEM_PROJECT, Resource
from atoll.sdk import wire
from atoll.sdk.chat import ChatPiece, stream_chat
from atoll.sdk.connection import Connection
from atoll.sdk.credentials import Credentials
from atoll.sdk.errors import TimedOut
from atoll.sdk.manifest import Manifest
from atoll.sdk.money import Money
from atoll.sdk.sse import read_events
from atoll.sdk.wire import (
    Change,
    Event,
    KeyInfo,
    KindInfo,
    Listing,
    NewKey,
    ServingPlan,
    Tree,
    Usage,
    UsageRow,
    UsageTotal,
    WatchEvent,
)

if TYPE_CHECKING:
    from atoll.sdk.datasets import Datasets

PATIENCE_S = 60.0
"""How long watching and waiting put up with a server that does not answer."""

POLL_MIN_S = 0.1
POLL_MAX_S = 1.0


class Client:
    """The API at one address, seen from one project."""

    def __init__(
        self,
        address: str,
        key: str = "",
        project: str = DEFAULT_PROJECT,
        *,
        transport: httpx.BaseTransport | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.project = project
        self.patience_s = patience_s
        self.connection = Connection(address, key, transport=transport)
        self._kinds: list[KindInfo] | None = None

    @classmethod
    def connect(cls, credentials: Credentials) -> Client:
        """A client for what a credentials file says."""
        return cls(credentials.address, credentials.key, credentials.project)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    # nouns

    def kinds(self) -> list[KindInfo]:
        """Every kind the server knows, by name."""
        if self._kinds is None:
            self._kinds = [wire.kind_info(k) for k in self._call("GET", "/api/v1/kinds")["kinds"]]
        return self._kinds

    def kind(self, name: str) -> KindInfo:
        """The kind called `name`, singular or plural, in any case; NotFound names the nearest."""
        wanted = name.lower()
        for kind in self.kinds():
            if wanted in (kind.name.lower(), kind.plural.lower()):
                return kind
        known = [k.plural for k in self.kinds()]
        nearest = difflib.get_close_matches(wanted, known, 3, 0.5) or known
        raise NotFound(f"there is no kind {name!r}", hint=f"nearest: {', '.join(nearest)}")

    def find_all(self, kind: str, *, labels: Mapping[str, str] | None = None, project: str | None = None) -> Listing:
        """All resources of a kind that carry all of `labels`."""
        wanted = ",".join(f"{k}={v}" for k, v in (labels or {}).items())
        data = self._call("GET", self._path(kind, project), params={"labels": wanted})
        return Listing([wire.resource(item) for item in data["items"]], data["head"])

    def get(self, kind: str, name: str, *, project: str | None = None) -> Resource:
        """The resource; NotFound when there is none."""
        return wire.resource(self._call("GET", self._path(kind, project, name)))

    def find(self, kind: str, name: str, *, project: str | None = None) -> Resource | None:
        """The resource or None."""
        try:
            return self.get(kind, name, project=project)
        except NotFound:
            return None

    def put(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        version: int | None = None,
        project: str | None = None,
    ) -> Resource:
        """Create it or replace its spec; Conflict when `version` is given and it has moved on."""
        body = {"spec": dict(spec), "labels": dict(labels or {}), "version": version}
        return wire.resource(self._call("PUT", self._path(kind, project, name), body=body))

    def delete(self, kind: str, name: str, *, project: str | None = None) -> Resource | None:
        """Ask for its end: the resource on its way out, or None when it is gone already."""
        data = self._call("DELETE", self._path(kind, project, name))
        return wire.resource(data) if "uid" in data else None

    def apply(self, manifests: Sequence[Manifest], *, dry_run: bool = False) -> list[Change]:
        """Create or change what the manifests say; all of a project or none. Errors name file and line."""
        changes: dict[int, Change] = {}
        for project, group in self._by_project(manifests).items():
            body = {"resources": [manifests[i].to_dict() for i in group], "dry_run": dry_run}
            try:
                data = self._call("POST", f"/api/v1/projects/{quote(project, safe='')}/apply", body=body)
            except AtollError as error:
                index, path = _place(error)
                if index is None or index >= len(group):
                    raise
                raise manifests[group[index]].located(error, path) from error
            changes |= {i: wire.change(c, project) for i, c in zip(group, data["changes"], strict=True)}
        return [changes[i] for i in sorted(changes)]

    def _by_project(self, manifests: Sequence[Manifest]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for i, manifest in enumerate(manifests):
            try:
                project = self._project_of(self.kind(manifest.kind), manifest.project)
            except NotFound as error:
                raise manifest.located(Invalid(error.message, field="kind", hint=error.hint)) from error
            groups.setdefault(project, []).append(i)
        return groups

    # what happened

    def watch(self, kind: str, *, seen: int, project: str | None = None) -> Iterator[WatchEvent]:
        """Every change of a kind after `seen` (a Listing's head), for ever; reconnects within its patience."""
        patience = _Patience(self.patience_s)
        path = self._path(kind, project)
        while True:
            try:
                with self.connection.stream("GET", path, params={"watch": 1, "seen": seen}) as response:
                    patience.reset()
                    for event in read_events(response.iter_bytes()):
                        if event.event == "change":
                            change = wire.watch_event(json.loads(event.data))
                            yield change
                            seen = max(seen, change.seq)
            except Unavailable as error:
                patience.use(error)
            else:
                patience.pause()

    def wait_for(
        self,
        kind: str,
        name: str,
        phases: Collection[str],
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Resource], None] | None = None,
        project: str | None = None,
    ) -> Resource:
        """The resource once its status speaks of its present spec and is in one of `phases`.

        Reads the level, never the edges, so nothing is missed when the server is away for a while.
        `on_change` sees every version read. TimedOut after `timeout_s`; NotFound when it is deleted meanwhile.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last: Resource | None = None
        for resource in self.follow(kind, name, project=project):
            if resource != last:
                last = resource
                if on_change is not None:
                    on_change(resource)
            if resource.phase in phases and is_current(resource):
                return resource
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(
                    f"{resource.kind} {name!r} is still {resource.phase} after {timeout_s:g} s",
                    hint=str(resource.status.get("reason", "")),
                )
        raise AssertionError("following never ends by itself")

    def follow(self, kind: str, name: str, *, project: str | None = None) -> Iterator[Resource]:
        """The resource as it is, again and again: quickly while it changes, at most `POLL_MAX_S` apart."""
        patience, pause_s, version = _Patience(self.patience_s), POLL_MIN_S, -1
        while True:
            try:
                resource = self.get(kind, name, project=project)
            except Unavailable as error:
                patience.use(error)
                continue
            patience.reset()
            pause_s = POLL_MIN_S if resource.version != version else min(pause_s * 1.5, POLL_MAX_S)
            version = resource.version
            yield resource
            time.sleep(pause_s)

    def events(
        self, kind: str = "", name: str = "", *, limit: int | None = None, project: str | None = None
    ) -> list[Event]:
        """What happened, oldest first; with `kind` and `name` to that resource and all it owns."""
        info = self.kind(kind) if kind else None
        path = f"/api/v1/projects/{quote(self._project_of(info, project), safe='')}/events"
        params = {"kind": info.name if info else "", "name": name, "limit": limit}
        return [wire.known(Event, e) for e in self._call("GET", path, params=params)["events"]]

    def logs(
        self, kind: str, name: str, *, follow: bool = False, tail_bytes: int | None = None, project: str | None = None
    ) -> Iterator[str]:
        """The log of the resource's newest task, piece by piece."""
        params = {"follow": int(follow), "tail_bytes": tail_bytes}
        path = f"{self._path(kind, project, name)}/logs"
        with self.connection.stream("GET", path, params=params, silence_max_s=None if follow else 60.0) as response:
            yield from response.iter_text()

    def tree(self, kind: str, name: str, *, project: str | None = None) -> Tree:
        """The resource and everything it owns."""
        return wire.tree(self._call("GET", f"{self._path(kind, project, name)}/tree"))

    def status(self) -> dict[str, Any]:
        """The state of the whole: version, home, database, nodes, counts, uptime_s."""
        data = self._call("GET", "/api/v1/status")
        assert isinstance(data, dict)
        return data

    # verbs

    def create_key(
        self,
        description: str = "",
        *,
        role: str = "member",
        expires_in_s: float | None = None,
        models: Sequence[str] | None = None,
        project: str | None = None,
        **fields: Any,
    ) -> NewKey:
        """Make a key; its secret is in this answer and nowhere else.

        `fields` are those of `change_key`: addresses, limits, priority, user.
        """
        body = {
            "description": description,
            "role": role,
            "expires_in_s": expires_in_s,
            "models": list(models) if models else None,
            **fields,
        }
        return wire.known(NewKey, self._call("POST", self._keys_path(project), body=body))

    def keys(self, *, project: str | None = None) -> list[KeyInfo]:
        """All keys of the project, without their secrets, and when each was last used for a model."""
        return [wire.key_info(item) for item in self._call("GET", self._keys_path(project))["items"]]

    def change_key(self, key_id: str, *, project: str | None = None, **fields: Any) -> Resource:
        """Change the given fields: description, expires_in_s, models, addresses, limits, priority, user.

        None takes a bound away.
        """
        return wire.resource(self._call("PATCH", self._keys_path(project, key_id), body=fields))

    def rotate_key(
        self,
        key_id: str,
        *,
        overlap_s: float | None = None,
        expires_in_s: float | None = None,
        project: str | None = None,
    ) -> NewKey:
        """Make the key's successor; the old one still works for `overlap_s` (the server's default: a day)."""
        given = {"overlap_s": overlap_s, "expires_in_s": expires_in_s}
        body = {name: value for name, value in given.items() if value is not None}
        return wire.known(NewKey, self._call("POST", f"{self._keys_path(project, key_id)}/rotate", body=body))

    def revoke_key(self, key_id: str, *, project: str | None = None) -> None:
        """Make a key worthless at once."""
        self._call("DELETE", self._keys_path(project, key_id))

    def rotate_uploads_key(self, *, project: str | None = None) -> Resource:
        """Seal the project's uploads under a new key; the DataKey is ready once the older ones are destroyed."""
        return wire.resource(self._call("POST", f"{self._project_path(project)}/datakeys/rotate"))

    def set_secret(
        self,
        name: str,
        values: Mapping[str, str | None],
        *,
        description: str | None = None,
        project: str | None = None,
    ) -> Resource:
        """Make a secret or set some of its values; None takes one away. No call ever returns a value."""
        body = {"name": name, "values": dict(values), "description": description}
        return wire.resource(self._call("POST", f"{self._project_path(project)}/secrets", body=body))

    def remove_secret(self, name: str, *, project: str | None = None) -> None:
        """Take out a secret with all its values."""
        self._call("DELETE", f"{self._project_path(project)}/secrets/{quote(name, safe='')}")

    def usage(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        by: Sequence[str] = ("key", "model"),
        project: str | None = None,
    ) -> Usage:
        """Tokens and cost between two Unix times, by any of "key", "model", "user", "deployment" and "day" (UTC)."""
        path = f"/api/v1/projects/{quote(project or self.project, safe='')}/usage"
        data = self._call("GET", path, params={"since": since, "until": until, "by": ",".join(by)})
        return Usage([wire.known(UsageRow, row) for row in data["rows"]], wire.known(UsageTotal, data["total"]))

    def plan_serving(
        self, spec: Mapping[str, Any], name: str = "planned", *, project: str | None = None
    ) -> ServingPlan:
        """Whether and where a deployment with this spec would fit; nothing is written."""
        path = f"/api/v1/projects/{quote(project or self.project, safe='')}/plan/serving"
        return wire.known(ServingPlan, self._call("POST", path, body={"spec": dict(spec), "name": name}))

    @property
    def money(self) -> Money:
        """Budgets' figures, top-ups, vouchers, statements and requests of the project."""
        return Money(self.connection, self.project)

    @property
    def datasets(self) -> Datasets:
        """Versions of datasets: reading, exporting, importing, tagging, lineage, erasing."""
        from atoll.sdk.datasets import Datasets

        return Datasets(self)

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[ChatPiece]:
        """The answer of a deployed model, as it arrives; `options` as in OpenAI's API."""
        return stream_chat(self.connection, model, messages, **options)

    # paths

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self.connection.call(method, path, **options)

    def _project_of(self, kind: KindInfo | None, project: str | None) -> str:
        if kind is not None and kind.scope == "system":
            return SYSTEM_PROJECT
        return project or self.project

    def _path(self, kind: str, project: str | None, name: str = "") -> str:
        info = self.kind(kind)
        path = f"/api/v1/projects/{quote(self._project_of(info, project), safe='')}/{info.plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def _project_path(self, project: str | None) -> str:
        return f"/api/v1/projects/{quote(project or self.project, safe='')}"

    def _keys_path(self, project: str | None, key_id: str = "") -> str:
        path = f"{self._project_path(project)}/keys"
        return f"{path}/{quote(key_id, safe='')}" if key_id else path


def is_current(resource: Resource) -> bool:
    """Whether the status speaks of the present spec, not of an older one."""
    return int(resource.status.get("observed_generation", 0)) >= resource.generation


def _place(error: AtollError) -> tuple[int | None, str]:
    """Which resource of a batch an error speaks of, and which field of it."""
    index, path = error.details.get("index"), str(error.details.get("field") or "")
    if in_body := re.fullmatch(r"resources\.(\d+)\.?(.*)", path):
        return int(in_body[1]), in_body[2]
    return (index, path) if isinstance(index, int) else (None, path)


class _Patience:
    """Growing pauses, until the server has not answered for `limit_s`."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.reset()

    def reset(self) -> None:
        self._since = time.monotonic()
        self._pause_s = POLL_MIN_S

    def use(self, error: Unavailable) -> None:
        if time.monotonic() + self._pause_s - self._since > self._limit_s:
            raise error
        self.pause()

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, 5.0)
