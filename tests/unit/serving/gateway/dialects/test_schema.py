"""Schemas get ends where they have none, and keep those they have."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.gateway.dialects.schema import any_object, bounded, not_enforced, tokens_for_answer

TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "name": {"type": "string"}},
            "required": ["next", "name"],
        }
    },
    "$ref": "#/$defs/node",
}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def test_texts_share_the_characters_of_their_object() -> None:
    schema = bounded(obj(a={"type": "string"}, b={"type": "string"}), 600)
    assert [part["maxLength"] for part in schema["properties"].values()] == [300, 300]


def test_lists_and_their_texts_end_together() -> None:
    schema = bounded({"type": "array", "items": {"type": "string"}}, 640)
    assert schema == {"type": "array", "items": {"type": "string", "maxLength": 32}, "maxItems": 20}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 9000},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "string", "format": "date"},
        {"const": 3},
        {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
        {"type": "boolean"},
        obj(),
    ],
)
def test_what_has_an_end_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert bounded(schema, 100) == schema


def test_least_lengths_stay_possible() -> None:
    assert bounded({"type": "string", "minLength": 500}, 10)["maxLength"] == 500
    assert bounded({"type": "array", "minItems": 90, "items": {"type": "null"}}, 10)["maxItems"] == 90


def test_recursion_ends_after_some_steps() -> None:
    schema: Any = bounded(TREE, 1000)
    depth = 0
    while isinstance(schema.get("properties"), dict):
        schema, depth = schema["properties"]["next"]["anyOf"][0], depth + 1
    assert depth == 3
    assert "$ref" not in str(bounded(TREE, 1000))


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": obj(a={"$ref": "#/$defs/a"})}, "$ref": "#/$defs/a"},
        {"$ref": "https://elsewhere/schema.json"},
        {"anyOf": [{"$ref": "#"}]},
    ],
)
def test_what_cannot_end_is_left_to_the_engine(schema: dict[str, Any]) -> None:
    assert bounded(schema, 100) == schema


json_schemas = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": "null"}, {"enum": [1, "a"]}, {"type": "array"}]),
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda p: obj(**p))
        | inner.map(lambda item: {"type": "array", "items": item})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})
    ),
    max_leaves=8,
)


@given(json_schemas, st.integers(1, 5000), st.data())
def test_bounded_schemas_allow_only_what_the_client_allowed(schema: Any, characters: int, data: Any) -> None:
    fitted = bounded(schema, characters)
    jsonschema_rs.meta.validate(fitted)
    value = data.draw(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda i: st.lists(i, max_size=2)))
    if jsonschema_rs.is_valid(fitted, value):
        assert jsonschema_rs.is_valid(schema, value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "items",
                        "anyOf",
                        "$ref",
                        "required",
                        "maxItems",
                        "minItems",
                        "prefixItems",
                        "additionalProperties",
                        "$defs",
                        "x",
                    ]
                ),
                i,
                max_size=4,
            )
        ),
    )
)
def test_nonsense_is_left_to_the_engine_to_name(nonsense: Any) -> None:
    if isinstance(nonsense, dict):
        assert isinstance(bounded(nonsense, 100), dict)
    not_enforced(nonsense, "schema")


def test_long_contexts_need_no_bounds_and_short_ones_are_halved() -> None:
    assert tokens_for_answer(100_000, None) is None
    assert tokens_for_answer(2048, None) == 1024
    assert tokens_for_answer(2048, 100) == 100
    assert tokens_for_answer(0, None) == 2048


def test_grammar_of_any_object_has_an_end() -> None:
    assert "{0,50}" in any_object(400)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        (obj(a={"type": "array", "uniqueItems": True}), "s.properties.a.uniqueItems"),
        (obj(a={"type": "number", "minimum": 0}), "s.properties.a.minimum"),
        ({"anyOf": [{"type": "null"}, {"not": {}}]}, "s.anyOf[1].not"),
        (obj(a={"type": "string", "pattern": "a"}), "s.properties.a.pattern"),
        (obj(a={"type": "integer", "minimum": 0}), None),
        (obj(a={"type": "string", "pattern": "^a$"}), None),
        (obj(uniqueItems={"type": "null"}), None),
    ],
)
def test_what_a_grammar_does_not_hold_is_found(schema: dict[str, Any], where: str | None) -> None:
    assert not_enforced(schema, "s") == where
