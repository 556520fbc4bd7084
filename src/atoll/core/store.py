"""Resources in a database: scoped reads, version-guarded batch writes, each with its change in the same transaction.

    store.scope("default").find_all("Deployment")            a tenant's view
    store.everything().write([SetStatus(resource, {...})]) a controller's

All statements are built in one place and carry the scope's project. A batch commits whole or not at all;
Conflict names the resources that had moved. Changes are numbered without gaps in commit order.
The store does not know what the kinds mean.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateError
from sqlalchemy.sql import ColumnElement, Select

from atoll.core.clock import Clock, SystemClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, Fenced, Forbidden, NotFound
from atoll.core.resources import Key, Resource, check_name, is_name
from atoll.core.tables import changes, counters, leases, resources

_JSON_EMPTY = "{}"
ACTOR_MAX = 128


@dataclass(frozen=True, slots=True)
class Create:
    """Add a resource; Conflict when the name is taken."""

    kind: str
    project: str
    name: str
    spec: dict[str, Any]
    status: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    reason: str = "Created"
    message: str = ""

    action = "created"


@dataclass(frozen=True, slots=True)
class SetSpec:
    """Replace spec (and labels, unless None), if `resource` is still as read."""

    resource: Resource
    spec: dict[str, Any]
    labels: dict[str, str] | None = None
    reason: str = "Changed"
    message: str = ""

    action = "spec"


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Replace status, if `resource` is still as read."""

    resource: Resource
    status: dict[str, Any]
    reason: str = ""
    message: str = ""

    action = "status"


@dataclass(frozen=True, slots=True)
class MarkDeleting:
    """Ask for a resource's end; it goes when nothing holds it."""

    resource: Resource
    reason: str = "Deleting"
    message: str = ""

    action = "deleting"


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a resource out of the store."""

    resource: Resource
    reason: str = "Deleted"
    message: str = ""

    action = "deleted"


@dataclass(frozen=True, slots=True)
class Note:
    """Record an event about a resource without changing it."""

    resource: Resource
    reason: str
    message: str = ""

    action = "note"


Write = Create | SetSpec | SetStatus | MarkDeleting | Remove | Note


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the change feed; `action` is created, spec, status, deleting, deleted or note."""

    seq: int
    at: float
    kind: str
    project: str
    name: str
    uid: str
    action: str
    reason: str
    message: str
    actor: str

    @property
    def key(self) -> Key:
        return Key(self.kind, self.project, self.name)


@dataclass(frozen=True, slots=True)
class Fence:
    """A batch carrying this commits only while lease `name` is at `epoch`."""

    name: str
    epoch: int


class _Query:
    """A prepared read in two forms, of one project and of all: every read of the store is one of these."""

    def __init__(self, query: Select[Any]) -> None:
        self._all = query
        self._scoped = query.where(query.get_final_froms()[0].c.project == bindparam("scope"))

    def within(self, project: str | None, values: dict[str, Any]) -> tuple[Select[Any], dict[str, Any]]:
        """The statement and its parameters."""
        return (self._all, values) if project is None else (self._scoped, values | {"scope": project})


def _read(*where: ColumnElement[bool]) -> _Query:
    return _Query(select(resources).where(*where).order_by(resources.c.project, resources.c.name))


_NAMED = _read(
    resources.c.kind == bindparam("kind"),
    resources.c.project == bindparam("named_project"),
    resources.c.name == bindparam("name"),
)
_BY_UID = _read(resources.c.uid == bindparam("uid"))
_OF_KIND = _read(resources.c.kind == bindparam("kind"))
_OWNED = _read(resources.c.owner == bindparam("owner"))
_WITHIN = _read(resources.c.project == bindparam("named_project"))
_DELETING = _read(resources.c.deleting_at.is_not(None))
_CHANGES = _Query(
    select(changes).where(changes.c.seq > bindparam("after")).order_by(changes.c.seq).limit(bindparam("most"))
)
_EVENTS = _Query(select(changes).where(changes.c.reason != "").order_by(changes.c.seq.desc()).limit(bindparam("most")))
_EVENTS_OF = _Query(
    select(changes)
    .where(changes.c.reason != "", changes.c.uid.in_(bindparam("uids", expanding=True)))
    .order_by(changes.c.seq.desc())
    .limit(bindparam("most"))
)
_HEAD = select(counters.c.value).where(counters.c.name == "changes")
_TAKE = (
    update(counters)
    .where(counters.c.name == "changes")
    .values(value=counters.c.value + bindparam("count"))
    .returning(counters.c.value)
)
_FENCE = select(leases.c.epoch).where(leases.c.name == bindparam("name")).with_for_update(read=True)


class Store:
    """The one way to the resources of a database."""

    def __init__(
        self, database: Database, clock: Clock | None = None, new_uid: Callable[[], str] | None = None
    ) -> None:
        self.database = database
        self.clock = clock or SystemClock()
        self._new_uid = new_uid or (lambda: uuid.uuid4().hex)
        self._listeners: list[Callable[[int], None]] = []

    def scope(self, project: str, actor: str = "") -> Scope:
        """What one project may see and write."""
        return Scope(self, project, actor)

    def everything(self, actor: str = "system") -> Scope:
        """All projects; for controllers and administrators."""
        return Scope(self, None, actor)

    def head(self) -> int:
        """Number of the newest change."""
        with self.database.reading() as connection:
            return int(connection.execute(_HEAD).scalar_one())

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Call `listener(head)` after each commit of this process."""
        self._listeners.append(listener)

    def forget_changes(self, before_seq: int) -> int:
        """Drop changes up to `before_seq`; returns how many."""
        with self.database.writing() as connection:
            return connection.execute(delete(changes).where(changes.c.seq <= before_seq)).rowcount

    def _announce(self, head: int) -> None:
        for listener in self._listeners:
            listener(head)


class Scope:
    """Reads and writes of one project, or of all (`project` None)."""

    def __init__(self, store: Store, project: str | None, actor: str) -> None:
        self._store = store
        self.project = project
        self.actor = actor

    def get(self, kind: str, name: str, project: str | None = None) -> Resource:
        """The resource; NotFound when it is not there or not in this scope."""
        found = self.find(kind, name, project)
        if found is None:
            raise NotFound(f"{kind} {name!r} is not in project {project or self.project!r}")
        return found

    def find(self, kind: str, name: str, project: str | None = None) -> Resource | None:
        """The resource or None."""
        project = project or self.project
        if project is None:
            raise NotFound(f"{kind} {name!r}: which project?", hint="a scope over everything needs the project named")
        if not is_name(name):  # nor would every database take such a text
            return None
        return next(iter(self._select(_NAMED, kind=kind, named_project=project, name=name)), None)

    def read(self, key: Key) -> Resource | None:
        """The resource called `key`, or None."""
        return self.find(key.kind, key.name, key.project)

    def by_uid(self, uid: str) -> Resource | None:
        """The resource with this uid, or None."""
        return next(iter(self._select(_BY_UID, uid=uid)), None)

    def find_all(self, kind: str, *, owner: str | None = None, labels: dict[str, str] | None = None) -> list[Resource]:
        """All of a kind, by project and name; `labels` must all match."""
        if owner is None:
            found = self._select(_OF_KIND, kind=kind)
        else:  # by the owner alone: SQLite would walk the whole kind
            found = [r for r in self.children(owner) if r.kind == kind]
        return [r for r in found if not labels or labels.items() <= r.labels.items()]

    def children(self, owner_uid: str) -> list[Resource]:
        """All resources owned by `owner_uid`, of any kind."""
        return self._select(_OWNED, owner=owner_uid)

    def within(self, project: str) -> list[Resource]:
        """Everything of a project."""
        return self._select(_WITHIN, named_project=project)

    def find_deleting(self) -> list[Resource]:
        """Everything on its way out."""
        return self._select(_DELETING)

    def changes(self, after_seq: int, limit: int = 1000) -> list[Change]:
        """Changes after `after_seq`, oldest first."""
        return self._changes(_CHANGES, after=after_seq, most=limit)

    def oldest_change(self) -> int | None:
        """Number of the oldest change still kept, of any project; None when there is none."""
        with self._store.database.reading() as connection:
            return connection.execute(select(func.min(changes.c.seq))).scalar()

    def events(self, *, uids: Sequence[str] = (), limit: int = 200) -> list[Change]:
        """The newest `limit` changes that carry a reason, oldest first; of `uids` only when given."""
        found = self._changes(_EVENTS_OF, uids=list(uids), most=limit) if uids else self._changes(_EVENTS, most=limit)
        return found[::-1]

    def write(self, batch: Iterable[Write], fence: Fence | None = None) -> int:
        """Commit the batch whole; returns the number of its last change.

        Conflict when a resource moved since it was read or a name is taken; Fenced when the lease moved on;
        Forbidden when a write lies outside this scope. In each case nothing is written.
        """
        ops = list(batch)
        if not ops:
            return 0
        self._check_scope(ops)
        with self._store.database.writing() as connection:
            head = _take_numbers(connection, len(ops))
            if fence is not None:
                _check_fence(connection, fence)
            _Batch(connection, self._store, self.actor, head - len(ops)).apply(ops)
        self._store._announce(head)
        return head

    def _select(self, query: _Query, **values: Any) -> list[Resource]:
        with self._store.database.reading() as connection:
            return [_resource(row) for row in connection.execute(*query.within(self.project, values))]

    def _changes(self, query: _Query, **values: Any) -> list[Change]:
        with self._store.database.reading() as connection:
            return [Change(*row) for row in connection.execute(*query.within(self.project, values))]

    def _check_scope(self, ops: list[Write]) -> None:
        for op in ops:
            project = op.project if isinstance(op, Create) else op.resource.project
            if self.project not in (None, project):
                raise Forbidden(f"project {self.project!r} may not write into project {project!r}")


class _Batch:
    """One batch on its way into one transaction."""

    def __init__(self, connection: Connection, store: Store, actor: str, last_seq: int) -> None:
        self._connection = connection
        self._now = store.clock.now()
        self._new_uid = store._new_uid
        self._actor = actor
        self._seq = last_seq
        self._changes: list[dict[str, Any]] = []

    def apply(self, ops: list[Write]) -> None:
        groups: dict[type, list[tuple[int, Any]]] = {}
        for op in ops:
            self._seq += 1
            uid = self._new_uid() if isinstance(op, Create) else op.resource.uid
            self._changes.append(self._change(op, uid))
            groups.setdefault(type(op), []).append((self._seq, op if not isinstance(op, Create) else (op, uid)))
        if Create in groups:
            self._create(groups[Create])
        for kind, statement, row in _GUARDED:
            if kind in groups:
                self._guarded(statement, [row(seq, op, self._now) for seq, op in groups[kind]])
        self._connection.execute(insert(changes), self._changes)

    def _create(self, rows: list[tuple[int, tuple[Create, str]]]) -> None:
        self._check_owners({(op.owner, op.project) for _, (op, _) in rows if op.owner})
        values = [_created_row(seq, op, uid, self._now) for seq, (op, uid) in rows]
        try:
            self._connection.execute(insert(resources), values)
        except DuplicateError as error:
            names = ", ".join(f"{op.kind} {op.name!r}" for _, (op, _) in rows[:5])
            raise Conflict(
                f"{names} exists already", hint="choose another name, or change the one that exists"
            ) from error

    def _check_owners(self, owners: set[tuple[str, str]]) -> None:
        """A child of something that is gone or going would never be collected; one of another project never may be."""
        if not owners:
            return
        living = select(resources.c.uid, resources.c.project).where(
            resources.c.uid.in_([uid for uid, _ in owners]), resources.c.deleting_at.is_(None)
        )
        gone = owners - {(uid, project) for uid, project in self._connection.execute(living)}
        if gone:
            raise Conflict(
                f"owner {', '.join(sorted(uid for uid, _ in gone))} is gone or being deleted",
                hint="nothing new can belong to it",
            )

    def _guarded(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        done = self._connection.execute(statement, rows).rowcount
        if done != len(rows):
            uids = [row["guard_uid"] for row in rows]
            raise Conflict(
                f"{len(rows) - done} of {len(rows)} resources changed since they were read",
                hint="read again and retry",
                uids=uids[:20],
            )

    def _change(self, op: Write, uid: str) -> dict[str, Any]:
        named = op if isinstance(op, Create) else op.resource
        return {
            "seq": self._seq,
            "at": self._now,
            "kind": named.kind,
            "project": named.project,
            "name": named.name,
            "uid": uid,
            "action": op.action,
            "reason": op.reason,
            "message": op.message.replace("\0", "\ufffd"),  # last lines of logs get here; PostgreSQL refuses NUL
            "actor": self._actor[:ACTOR_MAX],
        }


_GUARD = and_(
    resources.c.uid == bindparam("guard_uid"),
    resources.c.project == bindparam("guard_project"),
    resources.c.version == bindparam("guard_version"),
)
_SET_SPEC = (
    update(resources)
    .where(_GUARD)
    .values(
        spec=bindparam("new_spec"),
        labels=bindparam("new_labels"),
        generation=resources.c.generation + bindparam("generation_step"),
        version=bindparam("new_version"),
        updated_at=bindparam("now"),
    )
)
_SET_STATUS = (
    update(resources)
    .where(_GUARD)
    .values(status=bindparam("new_status"), version=bindparam("new_version"), updated_at=bindparam("now"))
)
_MARK = (
    update(resources)
    .where(_GUARD)
    .values(deleting_at=bindparam("now"), version=bindparam("new_version"), updated_at=bindparam("now"))
)
_REMOVE = delete(resources).where(_GUARD)


def _guard(seq: int, resource: Resource, now: float) -> dict[str, Any]:
    return _found(resource) | {"new_version": seq, "now": now}


def _found(resource: Resource) -> dict[str, Any]:
    return {"guard_uid": resource.uid, "guard_project": resource.project, "guard_version": resource.version}


def _spec_row(seq: int, op: SetSpec, now: float) -> dict[str, Any]:
    return _guard(seq, op.resource, now) | {
        "new_spec": _dump(op.spec),
        "new_labels": _dump(op.resource.labels if op.labels is None else op.labels),
        "generation_step": int(op.spec != op.resource.spec),
    }


def _status_row(seq: int, op: SetStatus, now: float) -> dict[str, Any]:
    return _guard(seq, op.resource, now) | {"new_status": _dump(op.status)}


def _mark_row(seq: int, op: MarkDeleting, now: float) -> dict[str, Any]:
    return _guard(seq, op.resource, now)


def _remove_row(_: int, op: Remove, __: float) -> dict[str, Any]:
    return _found(op.resource)


_GUARDED: tuple[tuple[type, Any, Callable[[int, Any, float], dict[str, Any]]], ...] = (
    (SetSpec, _SET_SPEC, _spec_row),
    (SetStatus, _SET_STATUS, _status_row),
    (MarkDeleting, _MARK, _mark_row),
    (Remove, _REMOVE, _remove_row),
)


def _created_row(seq: int, op: Create, uid: str, now: float) -> dict[str, Any]:
    return {
        "uid": uid,
        "kind": op.kind,
        "project": op.project,
        "name": check_name(op.name),
        "version": seq,
        "generation": 1,
        "labels": _dump(op.labels),
        "owner": op.owner,
        "spec": _dump(op.spec),
        "status": _dump(op.status),
        "created_at": now,
        "updated_at": now,
        "deleting_at": None,
    }


def _take_numbers(connection: Connection, count: int) -> int:
    return int(connection.execute(_TAKE, {"count": count}).scalar_one())


def _check_fence(connection: Connection, fence: Fence) -> None:
    """The row stays locked until the commit, so that no take-over comes between."""
    epoch = connection.execute(_FENCE, {"name": fence.name}).scalar()
    if epoch != fence.epoch:
        raise Fenced(
            f"lease {fence.name!r} is at epoch {epoch}, this writer holds {fence.epoch}", hint="a newer holder works"
        )


def _resource(row: Any) -> Resource:
    uid, kind, project, name, version, generation, labels, owner, spec, status, *times = row
    read_labels = orjson.loads(labels) if labels != _JSON_EMPTY else {}
    read_status = orjson.loads(status) if status != _JSON_EMPTY else {}
    read_spec = orjson.loads(spec)
    return Resource(kind, project, name, uid, version, generation, read_labels, owner, read_spec, read_status, *times)


def _dump(value: object) -> str:
    return orjson.dumps(value).decode()
