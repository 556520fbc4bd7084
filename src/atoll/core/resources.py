"""What a resource is: kind, project, name, what is wanted (`spec`) and what is (`status`).

Every domain registers its kinds in the one registry `KINDS`; API, CLI, explain and access control are
written against it. Specs and statuses are pydantic models at the edge and plain dicts in the store.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.core.errors import Invalid, NotFound

SYSTEM_PROJECT = "system"
"""The project of things that belong to no tenant: nodes, projects."""

DEFAULT_PROJECT = "default"

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?")

SHOWN_MAX = 200

TERMINAL_GOOD = frozenset({"succeeded", "ready"})
TERMINAL_BAD = frozenset({"failed"})


class Model(BaseModel):
    """Base of everything nested in a spec or status: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Spec(Model):
    """What is wanted; written through the API."""


class Status(Model):
    """What is; written by exactly one controller."""

    phase: str = Field("pending", description="Where it stands, one word.")
    reason: str = Field("", description="Why it stands there, for people.")
    observed_generation: int = Field(0, description="The spec generation this status speaks of.")


@dataclass(frozen=True, slots=True)
class Resource:
    """One stored resource. `version` is the change that last touched it; `generation` counts spec changes."""

    kind: str
    project: str
    name: str
    uid: str
    version: int
    generation: int
    labels: dict[str, str]
    owner: str | None
    spec: dict[str, Any]
    status: dict[str, Any]
    created_at: float
    updated_at: float
    deleting_at: float | None

    @property
    def key(self) -> Key:
        return Key(self.kind, self.project, self.name)

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "pending"))

    @property
    def is_deleting(self) -> bool:
        return self.deleting_at is not None

    def to_dict(self) -> dict[str, Any]:
        """The wire form; fields the kind keeps private are left out."""
        hidden = KINDS.named(self.kind).private if self.kind in KINDS else frozenset()
        return {
            "kind": self.kind,
            "project": self.project,
            "name": self.name,
            "uid": self.uid,
            "version": self.version,
            "generation": self.generation,
            "labels": self.labels,
            "owner": self.owner,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "deleting_at": self.deleting_at,
            "spec": {k: v for k, v in self.spec.items() if k not in hidden},
            "status": {k: v for k, v in self.status.items() if k not in hidden},
        }


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A resource's name in full; all a reconcile request carries."""

    kind: str
    project: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind}/{self.name}" if self.project == DEFAULT_PROJECT else f"{self.kind}/{self.project}/{self.name}"
        )


class Asker(Protocol):
    """Who wants to write something, as far as a kind's guard may ask."""

    @property
    def key_id(self) -> str: ...

    @property
    def is_admin(self) -> bool: ...

    def role_in(self, project: str) -> str:
        """admin, owner, member, viewer, caller, or "" for nothing."""
        ...


Fields = Mapping[str, Any]


class World(Protocol):
    """What there is, as far as dependents are looked for in it (see `store.Scope`)."""

    def find_all(self, kind: str) -> list[Resource]: ...

    def within(self, project: str) -> list[Resource]: ...


Dependents = Callable[[World, "Resource"], "list[Resource]"]
Held = Callable[[World, "Resource"], str]

Guard = Callable[[Asker, str, Fields | None, Fields | None], None]
"""Called with who asks, the project, the new spec (None: delete) and the old one (None: create); raises Forbidden."""


def _holds_nothing(_: Resource) -> bool:
    return False


def _has_no_dependents(_: World, __: Resource) -> list[Resource]:
    return []


def _is_held_by_nothing(_: World, __: Resource) -> str:
    return ""


def _guards_nothing(_: Asker, __: str, ___: Fields | None, ____: Fields | None) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """One registered kind.

    `holds(resource)` true keeps a deleted resource in the store: something in the world still belongs to it.
    `dependents(world, resource)` is what must end with a resource beside what it owns; `held(world, resource)` says why
    people may not delete it now ("": they may).
    `columns` are (heading, dotted path) pairs for tables. `private` names top-level fields never shown.
    `is_internal` kinds are made by controllers only and refused from people. `writers` is the least role that may
    write the kind by hand; `guard` refuses single writes that the role alone would allow. What `is_charged` is paid by
    `spec.creator`, PROJECT/KEY of whoever asked for the rest of the spec; the server says who that is.
    """

    name: str
    plural: str
    description: str
    spec: type[Spec]
    status: type[Status]
    scope: Literal["project", "system"] = "project"
    columns: tuple[tuple[str, str], ...] = (("PHASE", "status.phase"), ("REASON", "status.reason"))
    private: frozenset[str] = frozenset()
    is_internal: bool = False
    is_charged: bool = False
    holds: Callable[[Resource], bool] = field(default=_holds_nothing)
    dependents: Dependents = field(default=_has_no_dependents)
    held: Held = field(default=_is_held_by_nothing)
    writers: Literal["member", "owner", "admin"] = "member"
    guard: Guard = field(default=_guards_nothing)

    @property
    def is_plain(self) -> bool:
        """Whether every member of a project may write it, whatever it says."""
        by_members = self.writers == "member" and self.scope == "project" and not self.is_internal
        return by_members and self.guard is _guards_nothing

    def parse_spec(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec with defaults filled in; Invalid names the field and what would be valid."""
        try:
            return self.spec.model_validate(spec).model_dump(mode="json")
        except ValidationError as error:
            raise _invalid(self, error, spec) from error


class Kinds:
    """The registry of kinds, by name or plural, without regard to case."""

    def __init__(self) -> None:
        self._by_name: dict[str, Kind] = {}

    def register(self, kind: Kind) -> Kind:
        assert kind.name.lower() not in self._by_name, kind.name
        self._by_name[kind.name.lower()] = kind
        return kind

    def named(self, name: str) -> Kind:
        """The kind called `name` (singular or plural); NotFound lists the nearest."""
        wanted = name.lower()
        for kind in self._by_name.values():
            if wanted in (kind.name.lower(), kind.plural):
                return kind
        known = [k.plural for k in self._by_name.values()]
        nearest = difflib.get_close_matches(wanted, known, 3, 0.5) or sorted(known)
        raise NotFound(f"there is no kind {name!r}", hint=f"nearest: {', '.join(nearest)}")

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name

    def __iter__(self) -> Iterator[Kind]:
        return iter(sorted(self._by_name.values(), key=lambda k: k.name))


KINDS = Kinds()


def is_name(text: str) -> bool:
    """Whether a resource can be called so."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """`name` if it can be a resource's name, else Invalid."""
    if not is_name(name):
        raise Invalid(
            f"{name!r} cannot be a name",
            field="name",
            hint="1 to 128 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit",
        )
    return name


def _invalid(kind: Kind, error: ValidationError, spec: dict[str, Any]) -> Invalid:
    found = error.errors(include_url=False)
    first = next(
        (e for e in found if e["type"] == "extra_forbidden"), found[0]
    )  # a misspelt field explains a missing one
    path = [str(part) for part in first["loc"]]
    where = ".".join(["spec", *path])
    if first["type"] == "extra_forbidden":
        valid = sorted(_fields_at(kind.spec, path[:-1]))
        nearest = difflib.get_close_matches(path[-1], valid, 1, 0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        return Invalid(
            f"{kind.name} has no field {where}",
            field=where,
            hint=f"{hint}valid: {', '.join(valid)}",
            value=_shown(first["input"]),
        )
    if first["type"] == "missing":
        explained = ".".join([kind.name.lower(), "spec", *(part for part in path if not part.isdigit())])
        return Invalid(f"{kind.name} needs {where}", field=where, hint=f"see: atoll explain {explained}")
    said = str(first["msg"]).removeprefix("Value error, ")
    if isinstance(first["input"], dict | list):
        return Invalid(f"{kind.name} {where}: {said}", field=where)
    shown = _shown(first["input"])
    return Invalid(f"{kind.name} {where} cannot be {shown!r}", field=where, hint=said, value=shown)


def _shown(value: Any) -> Any:
    """A value as an error shows it: never pages of it."""
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields valid at `path`; a union shows the fields of all its models."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        if part.isdigit():
            continue
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [found for a in annotations for found in models_in(a)] or models
    return [name for m in models for name in m.model_fields]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model named inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in models_in(a)]
