"""Lineage: what something came from, and what came from it, across all kinds.

Resources tell their origin themselves: in fields that name another resource (`training_run`, `dataset_version`,
`parents`, …) or the digest of a file. These few field names are all that is known here of other rooms' kinds; a new
kind that uses them appears by itself. What lies outside the platform (packages, folders) ends a branch as a leaf.
Pure: resources in, trees out. Whoever asks sees only what its own project holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.core.errors import NotFound
from atoll.core.resources import Resource
from atoll.data.files import digests_of

FIELDS: dict[str, tuple[str, ...]] = {
    "parents": ("DatasetVersion",),
    "known": ("DatasetVersion",),
    "dataset_version": ("DatasetVersion",),
    "dataset": ("DatasetVersion",),
    "datasets": ("DatasetVersion",),
    "reference": ("DatasetVersion",),
    "curation_run": ("CurationRun",),
    "training_run": ("TrainingRun",),
    "model_version": ("ModelVersion",),
    "base_version": ("ModelVersion",),
    "base": ("ModelVersion",),
    "version": ("ModelVersion",),
    "canary_version": ("ModelVersion",),
    "model": ("ModelVersion", "QualityModel"),
    "file": ("File",),
    "files": ("File",),
    "input_file": ("File",),
}
"""Fields that name where something came from, and the kinds they may name."""

DIGESTS = frozenset({"digest", "train", "heldout"})
MAKERS = ("curation_run", "training_run", "made_by")
"""Fields by which a version names what made it; the maker naming its version in turn is not its origin."""

ORIGINS = ("source", "sources")
UNTOLD = frozenset({"Workload", "Task", "Replica", "Secret", "ApiKey", "Pipeline", "Dataset", "Model", "Erasure"})
"""Kinds that carry things out, or only group them."""

COUNTED = ("train", "heldout", "qa_train", "qa_heldout")
NODES_MAX = 5_000
DEPTH_MAX = 80
"""Where a tree is cut; what is cut says so, and can be asked for by its own name."""


@dataclass(slots=True)
class Node:
    """One thing in a tree; `children` are what it came from (up) or what came from it (down)."""

    kind: str
    name: str
    phase: str = ""
    note: str = ""
    children: list[Node] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        told = {"kind": self.kind, "name": self.name, "phase": self.phase, "note": self.note}
        return told | {"children": [child.to_dict() for child in self.children]}

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


Id = tuple[str, str]


class Lineage:
    """The graph of one project's resources."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._known = {(r.kind, r.name): r for r in resources if r.kind not in UNTOLD and not r.is_deleting}
        files = ((id_, r) for id_, r in self._known.items() if r.kind == "File")
        self._files: dict[str, Id] = {digest: id_ for id_, file in files for digest in digests_of(file)}
        self._up: dict[Id, list[Id]] = {}
        self._down: dict[Id, list[Id]] = {}
        for id_, resource in self._known.items():
            found = self._origins(resource)
            self._up[id_] = [origin for origin in found if id_ not in self._makers(self._known[origin])]
            for origin in self._up[id_]:
                self._down.setdefault(origin, []).append(id_)

    def up(self, kind: str, name: str) -> Node:
        """What it came from, and so on to the sources; NotFound when the project has no such thing."""
        return self._tree(self._checked(kind, name), self._up, leaves=True)

    def down(self, kind: str, name: str) -> Node:
        """What came from it, and so on."""
        return self._tree(self._checked(kind, name), self._down, leaves=False)

    def find(self, name: str) -> Id | None:
        """The one thing called `name` whose lineage is asked for most: data before models before the rest."""
        kinds = ("DatasetVersion", "ModelVersion", "Deployment", "TrainingRun", "CurationRun", "File")
        wanted = [id_ for id_ in self._known if id_[1] == name]
        return min(wanted, key=lambda id_: (kinds.index(id_[0]) if id_[0] in kinds else len(kinds), id_), default=None)

    def _checked(self, kind: str, name: str) -> Id:
        if (kind, name) not in self._known:
            raise NotFound(f"{kind} {name!r} has no lineage here", hint="see what there is: atoll get datasetversions")
        return kind, name

    def _tree(self, root: Id, edges: Mapping[Id, list[Id]], *, leaves: bool) -> Node:
        seen: set[Id] = set()

        def grown(id_: Id, depth: int) -> Node:
            resource = self._known[id_]
            node = Node(*id_, resource.phase, "see above" if id_ in seen else _note(resource))
            if id_ in seen:
                return node
            seen.add(id_)
            if depth == DEPTH_MAX or len(seen) > NODES_MAX:
                node.note = "and more: ask for its own lineage"
                return node
            node.children = [grown(other, depth + 1) for other in edges.get(id_, ())]
            if leaves:
                node.children += _outside(resource, node.children)
            return node

        return grown(root, 0)

    def _origins(self, resource: Resource) -> list[Id]:
        found: dict[Id, None] = {}
        for name, value in _texts({"spec": resource.spec, "status": _telling(resource.status)}):
            for kind in FIELDS.get(name, ()):
                if (kind, value) in self._known:
                    found[kind, value] = None
            if name == "made_by" and (maker := _maker(value)) in self._known:
                found[maker] = None
            if name in DIGESTS and value in self._files:
                found[self._files[value]] = None
        found.pop((resource.kind, resource.name), None)
        return list(found)

    def _makers(self, resource: Resource) -> set[Id]:
        told = {name: str(resource.spec.get(name) or "") for name in MAKERS}
        makers = {(kind, told[name]) for name in MAKERS for kind in FIELDS.get(name, ())}
        return makers | {_maker(told["made_by"])}


def _maker(text: str) -> Id:
    kind, _, name = text.partition("/")
    return kind, name


def _telling(status: Mapping[str, Any]) -> dict[str, Any]:
    """A status without what is long and names nothing."""
    return {k: v for k, v in status.items() if k not in ("progress", "funnel", "recipe", "privacy", "metadata", "scan")}


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text below `value` with the name of the field it stands in."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, name)


def _note(resource: Resource) -> str:
    spec, status = resource.spec, resource.status
    if resource.kind == "DatasetVersion":
        rows = {k: v for k, v in (status.get("counts") or spec.get("counts") or {}).items() if v}
        return ", ".join(f"{name} {rows[name]}" for name in COUNTED if name in rows)
    return str(spec.get("filename") or status.get("licence") or "")


def _outside(resource: Resource, children: list[Node]) -> list[Node]:
    """Leaves for the sources a run or a version names that are not things of this project."""
    has_maker = any(child.kind != "DatasetVersion" for child in children)
    if resource.kind == "DatasetVersion":
        given = [] if has_maker else resource.status.get("sources") or []
    else:
        given = [v for name in ORIGINS for v in _listed(resource.spec.get(name))]
    named = {child.name for child in children}
    leaves = (source_of(value) for value in given)
    return [leaf for leaf in leaves if leaf is not None and leaf.name not in named]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def source_of(value: Any) -> Node | None:
    """A source as a recipe or a manifest tells it, as a leaf; None when it is a thing of the platform."""
    if isinstance(value, str):
        return Node("source", value)
    if not isinstance(value, Mapping) or value.get("kind") in ("dataset", "upload"):
        return None
    where = value.get("reference") or value.get("path") or value.get("digest") or ", ".join(value.get("paths") or ())
    kind = str(value.get("kind") or "source")
    return Node("source", f"{kind} {where}".strip(), note=str(value.get("licence") or ""))


def lines(node: Node, indent: str = "") -> list[str]:
    """A tree as text, one line a node."""
    said = [node.kind, node.name, *([f"({node.phase})"] if node.phase else []), node.note]
    own = [indent + " ".join(word for word in said if word)]
    return own + [line for child in node.children for line in lines(child, indent + "  ")]
