"""Tool calls and JSON answers hold for a model of 135 million parameters: they parse and satisfy their schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import openai
import pytest

from integration.dialects.conftest import CAPABILITIES, add_model, follow, openai_of
from integration.gateway.conftest import Running
from integration.gateway.control import Control

CITY = {"type": "string", "description": "Name of the city"}
WEATHER_OF = {
    "type": "object",
    "properties": {"city": CITY, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TIME_OF = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
SCHEMAS = {"get_weather": WEATHER_OF, "get_time": TIME_OF}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"{name} of a city", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
NAMED: Any = {"type": "function", "function": {"name": "get_time"}}
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
ISLAND = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "facts": {"type": "array", "items": {"type": "string"}},
        "population": {"type": "integer"},
        "reefs": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "kind": {"enum": ["atoll", "volcanic"]},
    },
    "required": ["name", "facts", "population", "reefs", "kind"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "island", "schema": ISLAND}}
SEEDS = range(3)


def check_calls(calls: list[tuple[str, str]], names: set[str] | None = None) -> None:
    assert calls
    for name, arguments in calls:
        assert name in (names or SCHEMAS)
        jsonschema_rs.validate(SCHEMAS[name], json.loads(arguments))


def streamed_calls(chunks: list[Any]) -> list[tuple[str, str]]:
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for call in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
            if call.id:
                assert call.type == "function" and call.index not in calls
                calls[call.index] = [call.function.name, ""]
            calls[call.index][1] += call.function.arguments or ""
    return [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_required_tool_is_called(small: Running, choice: Any, seed: int) -> None:
    names = {"get_time"} if choice is NAMED else None
    with openai_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "messages": QUESTION, "tools": TOOLS, "tool_choice": choice}
        answer = client.chat.completions.create(**asked, seed=seed)
        chunks = list(client.chat.completions.create(**asked, seed=seed, stream=True))
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.content is None and message.tool_calls is not None
    check_calls([(c.function.name, c.function.arguments) for c in message.tool_calls if c.type == "function"], names)
    check_calls(streamed_calls(chunks), names)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_required_tool_is_called_where_the_template_knows_tools_too(small: Running, control: Control) -> None:
    """llama.cpp itself would let the model talk instead."""
    url = small.gateway.directory.snapshot.models["default"]["small"].targets[0].replicas[0].url
    add_model(control, "able", url, capabilities=[*CAPABILITIES, "tools"])
    follow(small, control)
    with openai_of(small) as client:
        answer = client.chat.completions.create(model="able", messages=QUESTION, tools=TOOLS, tool_choice=NAMED)
    calls = answer.choices[0].message.tool_calls or []
    check_calls([(c.function.name, c.function.arguments) for c in calls if c.type == "function"], {"get_time"})


@pytest.mark.parametrize("seed", SEEDS)
def test_a_free_choice_is_a_call_or_a_text(small: Running, seed: int) -> None:
    with openai_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "tools": TOOLS, "max_tokens": 200, "seed": seed}
        messages = [{"role": "user", "content": "Say hello. Do not call a tool."}]
        choice = client.chat.completions.create(**asked, messages=messages).choices[0]
    if choice.message.tool_calls:
        calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls if c.type == "function"]
        check_calls(calls)
    else:
        assert choice.message.content and not choice.message.content.startswith("{")


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_in_parallel_are_several(small: Running, seed: int) -> None:
    with openai_of(small) as client:
        answer = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Weather in Paris and in London?"}],
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=True,
            seed=seed,
        )
    calls = answer.choices[0].message.tool_calls or []
    assert len({c.id for c in calls}) == len(calls) <= 8
    check_calls([(c.function.name, c.function.arguments) for c in calls if c.type == "function"])


def test_no_tool_is_called_when_none_may(small: Running) -> None:
    with openai_of(small) as client:
        answer = client.chat.completions.create(
            model="small", messages=QUESTION, tools=TOOLS, tool_choice="none", max_tokens=20
        )
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_a_conversation_goes_on_after_a_tools_result(small: Running) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    said: list[Any] = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees, rain"},
    ]
    with openai_of(small) as client:
        answer = client.chat.completions.create(model="small", messages=said, tools=TOOLS, max_tokens=150)
        without = client.chat.completions.create(model="small", messages=said, max_tokens=20)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls
    assert without.choices[0].message.content


@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_satisfies_its_schema(small: Running, seed: int) -> None:
    with openai_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "response_format": FORM, "seed": seed, "temperature": 1.5}
        asked["messages"] = [{"role": "user", "content": "Describe an island as JSON."}]
        choice = client.chat.completions.create(**asked).choices[0]
        chunks = list(client.chat.completions.create(**asked, stream=True))
    assert choice.finish_reason == "stop"
    jsonschema_rs.validate(ISLAND, json.loads(choice.message.content or ""))
    jsonschema_rs.validate(ISLAND, json.loads("".join(c.choices[0].delta.content or "" for c in chunks)))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_json_object_is_an_object(small: Running, seed: int) -> None:
    with openai_of(small) as client:
        choice = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Describe an island as JSON."}],
            response_format={"type": "json_object"},
            seed=seed,
            temperature=1.5,
        ).choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(json.loads(choice.message.content or ""), dict)


def test_a_tree_of_references_ends(small: Running) -> None:
    tree = {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "next", "children"],
            }
        },
        "$ref": "#/$defs/node",
    }
    with openai_of(small) as client:
        choice = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "A tree as JSON."}],
            response_format={"type": "json_schema", "json_schema": {"name": "tree", "schema": tree}},
            seed=1,
        ).choices[0]
    assert choice.finish_reason == "stop"
    jsonschema_rs.validate(tree, json.loads(choice.message.content or ""))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"functions": [{"name": "f"}]}, "functions"),
    ],
)
def test_wrong_wishes_are_named(tiny: Running, changes: dict[str, Any], field: str) -> None:
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=QUESTION, extra_body=changes)
    assert caught.value.param == field


def test_what_the_grammar_cannot_hold_is_named_when_strict(tiny: Running) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        client.chat.completions.create(model="tiny", messages=QUESTION, response_format=form)
    assert caught.value.param == "response_format.json_schema.schema.properties.a.uniqueItems"
