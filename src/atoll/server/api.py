"""Generic routes: every kind is listed, read, watched, applied and deleted by these."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from atoll import __version__
from atoll.core.errors import AtollError, Conflict, Forbidden, Invalid
from atoll.core.resources import KINDS, Key, Kind, Resource, check_name
from atoll.core.store import Change, Create, MarkDeleting, Scope, SetSpec, Write
from atoll.governance.access import is_at_least
from atoll.server.access import CentreOf, Identified, Reader, Tenant, Writer, kind_in, may_still_read, signed, writable
from atoll.server.wait import Waiter

router = APIRouter(prefix="/api/v1")

HEARTBEAT_S = 10.0
ATTEMPTS = 10

Plan = TypeVar("Plan")


class Body(BaseModel):
    """A request body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Wanted(Body):
    """What a resource shall be."""

    spec: dict[str, Any]
    labels: dict[str, str] = Field(default_factory=dict)
    version: int | None = None


class Manifest(Wanted):
    """A resource with its name."""

    kind: str
    name: str


class Batch(Body):
    """Resources to apply together, all or none."""

    resources: list[Manifest]
    dry_run: bool = False


@router.get("/kinds")
def kinds(_: Identified) -> dict[str, Any]:
    """Every kind with the schemas of its spec and status."""
    return {"kinds": [describe_kind(kind) for kind in KINDS]}


@router.get("/status")
def status(centre: CentreOf, identity: Identified) -> dict[str, Any]:
    """The platform at a glance; a tenant sees its own counts only."""
    everything = centre.store.everything()
    readable = [project for project in identity.projects() if is_at_least(identity, "viewer", project)]
    scopes = [everything] if identity.is_admin else [centre.store.scope(project) for project in readable]
    counts: dict[str, dict[str, int]] = {}
    for scope, kind in itertools.product(scopes, KINDS):
        for resource in scope.find_all(kind.name):
            phases = counts.setdefault(kind.name, {})
            phases[resource.phase] = phases.get(resource.phase, 0) + 1
    answer: dict[str, Any] = {
        "version": __version__,
        "counts": counts,
        "uptime_s": round(centre.clock.monotonic() - centre.started_at, 1),
    }
    if identity.is_admin:
        answer |= {"home": str(centre.settings.home), "database": centre.settings.database_url.rsplit("@", 1)[-1]}
        answer["nodes"] = [n.to_dict() for n in everything.find_all("Node")]
    return answer


@router.get("/me")
def me(identity: Identified) -> dict[str, Any]:
    """Whose key this is, and what it is in which project; administrators are so everywhere."""
    roles = {project: identity.role_in(project) for project in identity.projects()}
    return {"key": identity.key_id, "user": identity.user, "role": identity.role, "projects": roles}


@router.get("/projects/{project}/events")
def events(tenant: Reader, kind: str = "", name: str = "", limit: int = 200) -> dict[str, Any]:
    """What happened, oldest first: to one resource and all it owns, or in the whole project."""
    uids: list[str] = []
    if name:
        root = tenant.scope.get(kind_in(kind, tenant.project).name, name)
        uids = [r.uid for r in family(tenant.scope, root)]
    found = tenant.scope.events(uids=uids, limit=max(1, min(limit, 1000)))
    return {"events": [_event(change) for change in found if not kind or uids or change.kind == KINDS.named(kind).name]}


@router.post("/projects/{project}/apply")
def apply(tenant: Writer, batch: Batch) -> dict[str, Any]:
    """Create or change resources together, or only say what would change."""

    def plan() -> tuple[list[dict[str, Any]], list[Write]]:
        changes, writes = [], []
        for index, manifest in enumerate(batch.resources):
            try:
                change, write = _planned(tenant, manifest)
            except AtollError as error:
                error.details["index"] = index
                raise
            changes.append(change)
            writes += write
        return changes, [] if batch.dry_run else writes

    changes, head = _written(tenant, plan)
    return {"changes": changes, "head": head}


@router.get("/projects/{project}/{plural}", response_model=None)
async def list_or_watch(
    request: Request, tenant: Reader, plural: str, labels: str = "", watch: bool = False, seen: int = 0
) -> dict[str, Any] | StreamingResponse:
    """All of a kind, or (watch=1) a stream of what changes after change number `seen`."""
    kind = kind_in(plural, tenant.project)
    if watch:
        await run_in_threadpool(_check_history, tenant.scope, seen)
        stream = _watch(request, tenant, kind, seen)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    head = request.app.state.waiter.head
    found = await run_in_threadpool(tenant.scope.find_all, kind.name, labels=_labels(labels))
    return {"items": [r.to_dict() for r in found], "head": head}


@router.get("/projects/{project}/{plural}/{name}")
def read(tenant: Reader, plural: str, name: str) -> dict[str, Any]:
    """One resource."""
    return tenant.scope.get(kind_in(plural, tenant.project).name, name).to_dict()


@router.get("/projects/{project}/{plural}/{name}/tree")
def tree(tenant: Reader, plural: str, name: str) -> dict[str, Any]:
    """A resource with everything it owns, nested."""
    return _tree(tenant.scope, tenant.scope.get(kind_in(plural, tenant.project).name, name))


@router.put("/projects/{project}/{plural}/{name}")
def put(tenant: Writer, plural: str, name: str, wanted: Wanted) -> dict[str, Any]:
    """Create the resource, or replace its spec and labels."""
    kind = kind_in(plural, tenant.project)
    manifest = Manifest(kind=kind.name, name=name, spec=wanted.spec, labels=wanted.labels, version=wanted.version)
    _written(tenant, lambda: _planned(tenant, manifest))
    return tenant.scope.get(kind.name, name).to_dict()


@router.delete("/projects/{project}/{plural}/{name}")
def delete(tenant: Writer, plural: str, name: str) -> dict[str, Any]:
    """Ask for the resource's end; it goes when everything it owns has gone. 409 says what holds it."""
    kind = writable(kind_in(plural, tenant.project), tenant)

    def plan() -> tuple[None, list[Write]]:
        resource = tenant.scope.get(kind.name, name)
        kind.guard(tenant.identity, tenant.project, None, resource.spec)
        if resource.is_deleting:
            return None, []
        if why := kind.held(tenant.scope, resource):
            raise Conflict(f"{resource.key} is in use: {why}", hint="delete or untag what holds it first")
        return None, [MarkDeleting(resource)]

    _written(tenant, plan)
    found = tenant.scope.find(kind.name, name)
    return found.to_dict() if found else {"deleted": True}


def describe_kind(kind: Kind) -> dict[str, Any]:
    """A kind on the wire."""
    return {
        "name": kind.name,
        "plural": kind.plural,
        "description": kind.description,
        "scope": kind.scope,
        "columns": [list(column) for column in kind.columns],
        "internal": kind.is_internal,
        "spec_schema": kind.spec.model_json_schema(),
        "status_schema": kind.status.model_json_schema(),
    }


def family(scope: Scope, root: Resource) -> list[Resource]:
    """A resource and all its descendants, parents first."""
    found = [root]
    for resource in found:
        found += scope.children(resource.uid)
    return found


def _written(tenant: Tenant, plan: Callable[[], tuple[Plan, list[Write]]]) -> tuple[Plan, int]:
    """Write what `plan` says, and plan anew when a controller's word on it came between: only who names a version
    hears of that. What was planned, and the number of the last change.
    """
    for left in reversed(range(ATTEMPTS)):
        planned, writes = plan()
        try:
            return planned, tenant.scope.write(writes)
        except Conflict:
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _planned(tenant: Tenant, manifest: Manifest) -> tuple[dict[str, Any], list[Write]]:
    """What applying `manifest` changes, and the writes that do it."""
    kind = writable(kind_in(manifest.kind, tenant.project), tenant)
    name = check_name(manifest.name)
    existing = tenant.scope.find(kind.name, name)
    spec = signed(kind, kind.parse_spec(manifest.spec), existing, tenant)
    if existing is not None and existing.owner is not None and kind.name == "Workload":  # with its owner's keys
        raise Forbidden(f"{existing.key} is what the platform runs for another resource", hint="change its owner")
    kind.guard(tenant.identity, tenant.project, spec, existing.spec if existing else None)
    change: dict[str, Any] = {"kind": kind.name, "name": name, "action": "unchanged", "fields": []}
    if existing is None:
        status = kind.status().model_dump(mode="json")
        write = Create(kind.name, tenant.project, name, spec, status, manifest.labels)
        return change | {"action": "create", "fields": list(_differences({}, spec, "spec"))}, [write]
    if manifest.version not in (None, existing.version):
        raise Conflict(f"{existing.key} is at version {existing.version}, not {manifest.version}", hint="read it again")
    if existing.is_deleting:
        raise Conflict(f"{existing.key} is being deleted", hint="wait until it is gone")
    labels = {**existing.labels, **manifest.labels}
    if existing.spec == spec and labels == existing.labels:
        return change, []
    fields = [*_differences(existing.spec, spec, "spec"), *_differences(existing.labels, labels, "labels")]
    return change | {"action": "update", "fields": fields}, [SetSpec(existing, spec, labels)]


def _differences(before: Any, after: Any, path: str) -> list[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*after, *(k for k in before if k not in after)]
        return [d for k in keys for d in _differences(before.get(k), after.get(k), f"{path}.{k}")]
    return [] if before == after else [{"path": path, "before": before, "after": after}]


def _labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    bad = [name for name, equals, _ in pairs if not equals or not name]
    if bad:
        raise Invalid(f"labels={text!r}: {bad[0]!r} is not name=value", field="labels")
    return {name: value for name, _, value in pairs}


def _tree(scope: Scope, resource: Resource) -> dict[str, Any]:
    return {"resource": resource.to_dict(), "children": [_tree(scope, c) for c in scope.children(resource.uid)]}


def _event(change: Change) -> dict[str, Any]:
    return {
        name: getattr(change, name) for name in ("seq", "at", "kind", "name", "action", "reason", "message", "actor")
    }


def _check_history(scope: Scope, seen: int) -> None:
    oldest = scope.oldest_change()
    if oldest is not None and seen < oldest - 1:
        words = f"changes after {seen} are no longer kept, the oldest is {oldest}"
        raise Conflict(words, hint="list again, then watch")


async def _watch(request: Request, tenant: Tenant, kind: Kind, seen: int) -> AsyncIterator[bytes]:
    waiter: Waiter = request.app.state.waiter
    yield b": watching\n\n"
    while not waiter.is_stopping and await run_in_threadpool(may_still_read, request, tenant.project):
        ticket, head = waiter.ticket(), waiter.head
        changes = await run_in_threadpool(tenant.scope.changes, seen)
        if changes:
            seen = changes[-1].seq
            for message in await run_in_threadpool(_messages, tenant.scope, kind, changes):
                yield message
        elif head <= seen:
            await waiter.wait(ticket, HEARTBEAT_S)
            yield b": alive\n\n"
        else:
            seen = head  # all up to here are of other projects


def _messages(scope: Scope, kind: Kind, changes: list[Change]) -> list[bytes]:
    """One message per resource that changed, with its present state."""
    newest: dict[Key, Change] = {c.key: c for c in changes if c.kind == kind.name and c.action != "note"}
    messages = []
    for key, change in newest.items():
        resource = scope.read(key)
        data: dict[str, Any] = {"type": "put", "resource": resource.to_dict()} if resource else _gone(change)
        data["seq"] = change.seq
        messages.append(b"event: change\ndata: " + orjson.dumps(data) + b"\n\n")
    return messages


def _gone(change: Change) -> dict[str, Any]:
    return {"type": "gone", "resource": {n: getattr(change, n) for n in ("kind", "project", "name", "uid")}}
