"""The official Anthropic client is content with the gateway, before a real llama.cpp server."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import jsonschema_rs
import pytest

from integration.dialects.conftest import anthropic_of
from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def test_message_answers_whole(tiny: Running, control: Control) -> None:
    with anthropic_of(tiny) as client:
        message = client.messages.create(model="tiny", max_tokens=8, messages=HELLO, system="Be short.")
    assert (message.type, message.role, message.model) == ("message", "assistant", "tiny")
    assert message.id.startswith("msg_")
    assert message.stop_reason in ("max_tokens", "end_turn")
    (record,) = control.wait_for_usage(1)
    usage = message.usage
    assert (record["endpoint"], record["completion_tokens"]) == ("messages", usage.output_tokens)
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == record["prompt_tokens"]


def test_message_streams_in_anthropics_order(small: Running, control: Control) -> None:
    with anthropic_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "max_tokens": 12, "messages": HELLO}
        events = list(client.messages.create(**asked, stream=True))
        with client.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert text and final.content[0].type == "text" and final.content[0].text == text
    assert final.usage.output_tokens > 0
    first, second = control.wait_for_usage(2)
    assert events[0].type == "message_start"
    begun = events[0].message.usage
    assert begun.input_tokens + (begun.cache_read_input_tokens or 0) == first["prompt_tokens"]
    assert final.usage.output_tokens == second["completion_tokens"]
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) == second["prompt_tokens"]


def test_what_is_cached_is_told_apart(tiny: Running) -> None:
    said = [{"role": "user", "content": "The same long beginning of a text. " * 8}]
    with anthropic_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "max_tokens": 1, "messages": said}
        first = client.messages.create(**asked).usage
        again = client.messages.create(**asked).usage
    assert (again.cache_read_input_tokens or 0) > 200
    assert again.input_tokens < 10
    total = first.input_tokens + (first.cache_read_input_tokens or 0)
    assert total == again.input_tokens + (again.cache_read_input_tokens or 0)


def test_stop_sequence_is_named_whole_and_streamed(small: Running) -> None:
    with anthropic_of(small) as client:
        asked: dict[str, Any] = {
            "model": "small",
            "max_tokens": 60,
            "stop_sequences": ["4", "zzz"],
            "extra_body": {"top_k": 1},
        }
        asked["messages"] = [{"role": "user", "content": "Count: 1 2 3 4 5 6. Repeat it."}]
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "4")
        assert all(block.type == "text" and "4" not in block.text for block in message.content)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_tools_are_used_whole_and_streamed(small: Running, choice: Any) -> None:
    with anthropic_of(small) as client:
        asked: dict[str, Any] = {"model": "small", "max_tokens": 300, "tools": [WEATHER], "tool_choice": choice}
        asked["messages"] = [{"role": "user", "content": "What is the weather in Paris?"}]
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert message.stop_reason == "tool_use"
        (block,) = message.content
        assert block.type == "tool_use" and block.name == "get_weather" and block.id
        jsonschema_rs.validate(WEATHER["input_schema"], block.input)


def test_results_of_tools_and_blocks_are_read(small: Running) -> None:
    said: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "12 degrees"}]},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    with anthropic_of(small) as client:
        message = client.messages.create(
            model="small",
            max_tokens=100,
            messages=said,
            tools=[WEATHER],  # type: ignore[list-item]
            system=[{"type": "text", "text": "Be short."}, {"type": "text", "text": "Be kind."}],
        )
    assert message.content


def test_structured_output_satisfies_its_schema(small: Running) -> None:
    schema = WEATHER["input_schema"]
    with anthropic_of(small) as client:
        message = client.messages.create(
            model="small",
            max_tokens=300,
            messages=[{"role": "user", "content": "Paris in celsius as JSON"}],
            output_config={"format": {"type": "json_schema", "schema": schema}},
        )
    (block,) = message.content
    assert block.type == "text"
    jsonschema_rs.validate(schema, json.loads(block.text))


def test_tokens_are_counted_as_they_will_be_billed(tiny: Running, control: Control) -> None:
    said: dict[str, Any] = {"model": "tiny", "messages": HELLO, "system": "Be short.", "tools": [WEATHER]}
    with anthropic_of(tiny) as client:
        counted = client.messages.count_tokens(**said).input_tokens
        client.messages.create(**said, max_tokens=5)
    record = next(r for r in control.wait_for_usage(2) if r["endpoint"] == "messages")
    assert record["prompt_tokens"] == counted


def test_wrong_key_is_told_in_anthropics_form(tiny: Running) -> None:
    client = anthropic.Anthropic(base_url=tiny.url, api_key="sk-wrong", max_retries=0)
    with client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="tiny", max_tokens=1, messages=HELLO)
    body: Any = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "other"}, "not_found_error"),
        ({"max_tokens": 0}, "invalid_request_error"),
        ({"unknown": 1}, "invalid_request_error"),
        ({"messages": []}, "invalid_request_error"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "invalid_request_error"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "invalid_request_error"),
    ],
)
def test_errors_have_anthropics_form(tiny: Running, changes: dict[str, Any], told: str) -> None:
    body = {"model": "tiny", "max_tokens": 4, "messages": HELLO} | changes
    answer = httpx.post(f"{tiny.url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=60)
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == told
    assert answer.status_code == (404 if told == "not_found_error" else 400)
