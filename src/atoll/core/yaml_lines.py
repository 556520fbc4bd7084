"""YAML as plain JSON values, with the line of every field kept; and values as YAML that is read back the same.

Only what JSON can say: YAML 1.2 core scalars, so `no`, `on`, `12:30` and dates stay texts and `1e-4` is a
number. Anchors, aliases and merge keys work within a bound. Knows nothing of manifests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from atoll.core.errors import Invalid

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

Path = tuple[str | int, ...]

VALUES_MAX = 100_000
"""Values one document may hold once its aliases are written out; a few aliases of aliases make billions."""

DEPTH_MAX = 64

_TAG = "tag:yaml.org,2002:"
_CORE_SCHEMA = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
    "merge": r"<<",
}
_TAGS = {"map", "seq", "str", *_CORE_SCHEMA}
_DIGITS_MAX = 100


class _Loader(_SafeLoader):
    """The safe loader with YAML 1.2's core schema in place of YAML 1.1's."""


class _Dumper(yaml.SafeDumper):
    """The safe dumper; texts that either version of YAML would take for something else are quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern in _CORE_SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), None)


def dump_yaml(value: Any) -> str:
    """A JSON value as block YAML in its own order."""
    return str(
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100)
    )


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the line (from 1) of every path in it."""

    value: Any
    line: int
    lines: dict[Path, int] = field(repr=False)

    def line_of(self, path: str) -> int:
        """The line of a dotted path, or of its nearest ancestor that is written down.

        Parts that are not in the document (the tag of a union, a missing field) are passed over.
        """
        here: Path = ()
        parts = path.split(".") if path else []
        while parts:
            here, parts = self._descend(here, parts)
        return self.lines.get(here, self.line)

    def _descend(self, here: Path, parts: list[str]) -> tuple[Path, list[str]]:
        for count in range(len(parts), 0, -1):
            name = ".".join(parts[:count])
            if (*here, name) in self.lines:
                return (*here, name), parts[count:]
            if name.isdigit() and (*here, int(name)) in self.lines:
                return (*here, int(name)), parts[count:]
        return here, parts[1:]


def read_documents(text: str, name: str) -> list[Document]:
    """The documents of a YAML stream; empty ones are left out. Invalid names `name` and the line."""
    try:
        _check_depth(text, name)
        nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if node is not None]
        return [d for d in (_Reader(name).document(node) for node in nodes) if d.value is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise Invalid(f"{where}: not valid YAML: {error.problem or error.context}", field=where) from error
    except yaml.YAMLError as error:
        raise Invalid(f"{name}: not valid YAML: {' '.join(str(error).split())}", field=name) from error


def _check_depth(text: str, name: str) -> None:
    """Composing recurses, in C without a limit, so depth is checked on the flat events first."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            where = f"{name}:{event.start_mark.line + 1 if event.start_mark else 1}"
            raise Invalid(f"{where}: nested too deeply", field=where, hint=f"at most {DEPTH_MAX} levels")


class _Reader:
    """Turns the nodes of one document into values, noting lines on the way."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[Path, int] = {}
        self._count = 0

    def document(self, node: yaml.Node) -> Document:
        value = self._value(node, ())
        return Document(value, _line(node), self._lines)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        if self._count > VALUES_MAX or len(path) > DEPTH_MAX:
            raise self._error(node, f"more than {VALUES_MAX} values or {DEPTH_MAX} levels, aliases written out")
        if node.tag.removeprefix(_TAG) not in _TAGS:
            raise self._error(node, f"the tag {node.tag} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._lines[path] = _line(node)
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value_node, is_merged in self._entries(node):
            key = self._key(key_node)
            if is_merged and key in found:
                continue
            if key in own:
                raise self._error(key_node, f"{key!r} is given twice, first on line {own[key]}")
            if not is_merged:
                own[key] = _line(key_node)
            self._lines[(*path, key)] = _line(key_node)
            found[key] = self._value(value_node, (*path, key))
        return found

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """The mapping's own entries first, then those merged in by `<<`, nearest first."""
        merges = [(k, v) for k, v in node.value if _is_merge(k)]
        yield from ((k, v, False) for k, v in node.value if not _is_merge(k))
        for key, value in merges:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise self._error(key, "<< can merge only mappings")
                yield from self._merged(source)

    def _merged(self, source: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        self._count += 1
        if self._count > VALUES_MAX:
            raise self._error(source, f"more than {VALUES_MAX} values, aliases written out")
        yield from ((k, v, True) for k, v, _ in self._entries(source))

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be a text")
        return str(node.value)

    def _scalar(self, node: yaml.Node) -> Any:
        text, tag = str(node.value), node.tag.removeprefix(_TAG)
        if tag in ("str", "merge"):
            return text
        try:
            return _parsed(tag, text)
        except ValueError as error:
            raise self._error(node, f"{text!r} is no {tag}") from error

    def _error(self, node: yaml.Node, problem: str) -> Invalid:
        where = f"{self._name}:{_line(node)}"
        return Invalid(f"{where}: {problem}", field=where)


def _parsed(tag: str, text: str) -> Any:
    """The value of a scalar; ValueError when JSON could not carry it."""
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int" and len(text) <= _DIGITS_MAX:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _is_merge(node: yaml.Node) -> bool:
    return bool(node.tag == f"{_TAG}merge")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
