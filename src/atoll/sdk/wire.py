"""What the API answers, as typed values. Fields a newer server adds are passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from atoll.core.resources import Resource

T = TypeVar("T")


def known(kind: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass from the fields of `data` it knows."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in data.items() if k in names})


@dataclass(frozen=True, slots=True)
class KindInfo:
    """A kind as the server describes it; schemas are JSON schemas of pydantic's making."""

    name: str
    plural: str
    description: str = ""
    scope: str = "project"
    columns: list[tuple[str, str]] = field(default_factory=list)
    internal: bool = False
    spec_schema: dict[str, Any] = field(default_factory=dict)
    status_schema: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """Resources of one kind, and the change number they were read at."""

    items: list[Resource]
    head: int


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Whether and where a deployment would fit. `fits` None: it cannot be said; sizes are in bytes."""

    summary: str
    fits: bool | None = None
    fits_now: bool = False
    version: str = ""
    engine: str = ""
    replicas: int = 1
    best: str | None = None
    needed: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    suggestions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of a watched kind; `resource` is None when it is gone."""

    type: Literal["put", "gone"]
    name: str
    uid: str
    seq: int
    resource: Resource | None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field an apply would change; values as JSON."""

    path: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an apply does, or would do, to one resource."""

    kind: str
    name: str
    action: Literal["create", "update", "unchanged"]
    fields: list[FieldChange] = field(default_factory=list)
    project: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a resource; `at` is Unix time."""

    seq: int
    at: float
    kind: str
    name: str
    action: str
    reason: str
    message: str
    actor: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A resource and everything it owns."""

    resource: Resource
    children: list[Tree]

    def walk(self) -> Iterator[Resource]:
        """This resource, then all below it, depth first."""
        yield self.resource
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Tokens and cost of one group; groups not asked for are empty."""

    key: str = ""
    model: str = ""
    day: str = ""
    user: str = ""
    deployment: str = ""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    currency: str = ""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """All rows of a statement together; `cost` by currency."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """A statement: one row a group, and their total."""

    rows: list[UsageRow]
    total: UsageTotal


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `key` is its secret, never shown again."""

    id: str
    key: str
    replaced_ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key without its secret; `last_used_at` is the Unix time of its last call of a model, if there was one."""

    resource: Resource
    last_used_at: float | None = None


def key_info(data: Mapping[str, Any]) -> KeyInfo:
    """A key of a listing from its wire form."""
    return KeyInfo(resource(data), data.get("last_used_at"))


def resource(data: Mapping[str, Any]) -> Resource:
    """A resource from its wire form."""
    return known(Resource, data)


def tree(data: Mapping[str, Any]) -> Tree:
    """A tree from its wire form."""
    return Tree(resource(data["resource"]), [tree(child) for child in data.get("children", [])])


def change(data: Mapping[str, Any], project: str) -> Change:
    """A planned or made change from its wire form."""
    changed = [known(FieldChange, f) for f in data.get("fields", [])]
    return known(Change, {**data, "fields": changed, "project": project})


def watch_event(data: Mapping[str, Any]) -> WatchEvent:
    """A watched change from its wire form."""
    body = data["resource"]
    is_put = data["type"] == "put"
    return WatchEvent(data["type"], body["name"], body["uid"], data["seq"], resource(body) if is_put else None)


def kind_info(data: Mapping[str, Any]) -> KindInfo:
    """A kind from its wire form."""
    columns = [(str(heading), str(path)) for heading, path in data.get("columns", [])]
    return known(KindInfo, {**data, "columns": columns})
