"""JSON schemas as engines get them: every text and list has an end, so that a model that repeats itself ends too.

A small model that is free to go on in a string goes on until its context is full, and the answer is no JSON. So the
tokens there are for the answer are divided over the schema: properties share what their object has, items what their
list has. What the client bounded itself stays as it is. Checks nothing: an engine names a schema it cannot read.
Does not know how to end an object whose properties are free, nor a text that must match a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CONTEXT_UNBOUNDED = 16_384
"""A model with a longer context is not of the kind that needs this; its texts may be long on purpose."""
CONTEXT_UNKNOWN = 4096
CHARACTERS_LEAST = 16
CHARACTERS_MOST = 2000  # llama.cpp refuses to repeat anything more often
ITEMS_MOST = 64
CHARACTERS_PER_ITEM = 32
DEPTH_MAX = 64
REFERENCES_MAX = 3
PARTS_MAX = 2000
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_DEFINITIONS = ("$defs", "definitions")
_FIXED = ("enum", "const", "pattern", "format")
_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_PASSED_OVER = frozenset(
    (
        *("contains", "dependentRequired", "dependentSchemas", "else", "if", "maxProperties", "minProperties"),
        *("multipleOf", "not", "patternProperties", "propertyNames", "then", "unevaluatedItems"),
        *("unevaluatedProperties", "uniqueItems"),
    )
)

ANY_OBJECT_GRAMMAR = r"""
root ::= object0
object0 ::= "{" space (pair0 ("," space pair0){0,15})? "}"
pair0 ::= string space ":" space (object1 | list1 | simple) space
object1 ::= "{" space (pair1 ("," space pair1){0,7})? "}"
pair1 ::= string space ":" space (object2 | list2 | simple) space
list1 ::= "[" space ((object2 | list2 | simple) space ("," space (object2 | list2 | simple) space){0,15})? "]"
object2 ::= "{" space (pair2 ("," space pair2){0,7})? "}"
pair2 ::= string space ":" space simple space
list2 ::= "[" space (simple space ("," space simple space){0,15})? "]"
simple ::= string | number | "true" | "false" | "null"
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})){0,%d} "\""
number ::= "-"? ([0-9] | [1-9] [0-9]{0,14}) ("." [0-9]{1,6})? ([eE] [-+]? [0-9]{1,2})?
space ::= " "?
""".strip()
"""Any JSON object that a small model can be trusted to end; `%d` is the longest string."""


def any_object(tokens: int) -> str:
    """The grammar of any object within about so many tokens."""
    return ANY_OBJECT_GRAMMAR % max(CHARACTERS_LEAST, min(tokens // 8, 400))


def tokens_for_answer(context: int, output_bound: int | None) -> int | None:
    """The tokens an answer may count on; None when there is no need to divide them."""
    if context > CONTEXT_UNBOUNDED:
        return None
    half = (context or CONTEXT_UNKNOWN) // 2
    return half if output_bound is None else max(1, min(half, output_bound))


def bounded(schema: Mapping[str, Any], characters: int) -> dict[str, Any]:
    """The schema with an end to every text, list and recursion, all together about so many characters.

    References are written out, those that come back to themselves as deep as REFERENCES_MAX; a schema that cannot end
    or becomes too large by that is returned as it is.
    """
    limits = _Limits(schema)
    try:
        return dict(limits.bound(schema, characters, ()))
    except _Endless:
        return dict(schema)


class _Endless(Exception):
    """No finite value satisfies this part within the limits."""


class _Limits:
    """One schema being bounded."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts = 0

    def bound(self, schema: Any, characters: int, within: tuple[str, ...]) -> Any:
        """`within` are the references this part is inside of. Raises _Endless."""
        if not isinstance(schema, Mapping):
            return schema
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _Endless
        name = schema.get("$ref")
        if isinstance(name, str):
            return self._follow(name, characters, within)
        result = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
        for key in _ALTERNATIVES:
            if isinstance(schema.get(key), list):
                result[key] = self._possible(schema[key], characters, within)
        if not any(key in schema for key in _FIXED):
            self._end(result, characters, within)
        return result

    def _follow(self, name: str, characters: int, within: tuple[str, ...]) -> Any:
        if within.count(name) >= REFERENCES_MAX or len(within) > DEPTH_MAX:
            raise _Endless
        target: Any = self._root
        for step in name.removeprefix("#").strip("/").split("/"):
            target = target.get(step) if step and isinstance(target, Mapping) else target
        if not isinstance(target, Mapping) or not name.startswith("#"):
            raise _Endless
        return self.bound(target, characters, (*within, name))

    def _possible(self, schemas: list[Any], characters: int, within: tuple[str, ...]) -> list[Any]:
        result = []
        for schema in schemas:
            try:
                result.append(self.bound(schema, characters, within))
            except _Endless:
                continue
        if not result:
            raise _Endless
        return result

    def _end(self, schema: dict[str, Any], characters: int, within: tuple[str, ...]) -> None:
        types = schema.get("type")
        types = types if isinstance(types, list) else [types]
        if "string" in types:
            longest = max(CHARACTERS_LEAST, min(characters, CHARACTERS_MOST), _least(schema, "minLength"))
            schema.setdefault("maxLength", longest)
        if "array" in types or "items" in schema:
            self._end_list(schema, characters, within)
        if "object" in types or "properties" in schema:
            self._end_object(schema, characters, within)

    def _end_list(self, schema: dict[str, Any], characters: int, within: tuple[str, ...]) -> None:
        most = max(1, min(characters // CHARACTERS_PER_ITEM, ITEMS_MOST), _least(schema, "minItems"))
        most = schema.setdefault("maxItems", most)
        count = most if isinstance(most, int) and most > 0 else 1
        try:
            if "items" in schema:
                schema["items"] = self.bound(schema["items"], characters // count, within)
        except _Endless:
            if _least(schema, "minItems"):
                raise
            schema.clear()
            schema["const"] = []
        if isinstance(schema.get("prefixItems"), list):
            share = characters // max(1, len(schema["prefixItems"]))
            schema["prefixItems"] = [self.bound(item, share, within) for item in schema["prefixItems"]]

    def _end_object(self, schema: dict[str, Any], characters: int, within: tuple[str, ...]) -> None:
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, Mapping):
            share, kept = characters // max(1, len(properties)), {}
            for name, value in properties.items():
                try:
                    kept[name] = self.bound(value, share, within)
                except _Endless:
                    if isinstance(required, list) and name in required:
                        raise
            schema["properties"] = kept
        if isinstance(schema.get("additionalProperties"), Mapping):
            schema["additionalProperties"] = self.bound(schema["additionalProperties"], characters // 8, within)


def _least(schema: Mapping[str, Any], name: str) -> int:
    value = schema.get(name)
    return value if isinstance(value, int) else 0


def not_enforced(schema: Any, where: str) -> str | None:
    """The path of the first keyword that llama.cpp's grammars pass over, as measured; None if they hold all."""
    if not isinstance(schema, Mapping):
        return None
    for name, value in schema.items():
        if value is not False and (name in _PASSED_OVER or (name in _RANGE and schema.get("type") == "number")):
            return f"{where}.{name}"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not (pattern.startswith("^") and pattern.endswith("$")):
        return f"{where}.pattern"
    return next(filter(None, (not_enforced(part, path) for path, part in _parts(schema, where))), None)


def _parts(schema: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """The schemas inside a schema, with their paths."""
    for name in ("properties", *_DEFINITIONS):
        if isinstance(schema.get(name), Mapping):
            yield from ((f"{where}.{name}.{key}", part) for key, part in schema[name].items())
    for name in (*_ALTERNATIVES, "prefixItems"):
        if isinstance(schema.get(name), list):
            yield from ((f"{where}.{name}[{index}]", part) for index, part in enumerate(schema[name]))
    for name in ("items", "additionalProperties"):
        yield f"{where}.{name}", schema.get(name)
