"""Requests are checked field by field, and errors have OpenAI's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid, Unavailable
from atoll.serving.gateway.dialects.order import PLAIN, Endpoint
from atoll.serving.gateway.dialects.refusal import read_engine_refusal, render, unknown_model
from atoll.serving.gateway.dialects.routes import CHAT, COMPLETION, EMBEDDING

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def refusal(endpoint: Endpoint, value: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        endpoint.read(value if isinstance(value, bytes) else json.dumps(value).encode(), {})
    return caught.value


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": 3}, "model"),
        ({"model": None}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": -7}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": [1]}, "stop"),
        ({"tools": {}}, "tools"),
        ({"id_slot": 3}, "id_slot"),
        ({"temperatur": 1}, "temperatur"),
        ({"prompt": "hi"}, "prompt"),
    ],
)
def test_wrong_chat_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert refusal(CHAT, HELLO | changes).field == field


@pytest.mark.parametrize("prompt", [3, [], {}, [1, "a"], [[1], []], [[1], "a"], [1.5]])
def test_wrong_prompt_is_named(prompt: Any) -> None:
    assert refusal(COMPLETION, {"model": "m", "prompt": prompt}).field == "prompt"
    assert refusal(EMBEDDING, {"model": "m", "input": prompt}).field == "input"


def test_misspelt_parameter_gets_a_suggestion() -> None:
    assert "Did you mean 'temperature'?" in refusal(CHAT, HELLO | {"temperatur": 1}).message


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"\xff", b'{"model":"m",}'])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    assert refusal(CHAT, data).field == ""


@given(json_values)
def test_any_value_is_read_or_refused_with_a_field(value: Any) -> None:
    for endpoint in (CHAT, COMPLETION, EMBEDDING):
        for name in endpoint.parameters:
            body = {"model": "m", endpoint.content: HELLO["messages"] if endpoint is CHAT else "hi"} | {name: value}
            try:
                endpoint.read(json.dumps(body).encode(), {})
            except Invalid as error:
                assert error.field.startswith(name)


def test_nulls_are_as_absent() -> None:
    order = CHAT.read(
        json.dumps(HELLO | {"stop": None, "n": None, "stream": None, "stream_options": None}).encode(), {}
    )
    assert (order.is_stream, order.choices, order.wants_usage) == (False, 1, False)


@pytest.mark.parametrize(
    ("prompt", "choices"), [("a", 2), (["a"], 2), (["a", "b", "c"], 6), ([1, 2, 3], 2), ([[1, 2], [3]], 4)]
)
def test_choices_are_counted_over_prompts(prompt: Any, choices: int) -> None:
    order = COMPLETION.read(json.dumps({"model": "m", "prompt": prompt, "n": 2}).encode(), {})
    assert (order.choices, order.choices_per_prompt) == (choices, 2)


def test_plain_request_goes_to_the_engine_as_it_is() -> None:
    data = b' {"model":"m", "messages":[{"role":"user","content":"hi"}], "seed":18446744073709551615}'
    assert CHAT.read(data, {}).body(PLAIN) is data


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": False}},
        {"stream": True, "timings_per_token": False, "return_progress": False},
        {"n": 2},
    ],
)
def test_engine_is_asked_for_what_metering_needs(changes: dict[str, Any]) -> None:
    data = b"  " + json.dumps(HELLO | changes).encode()
    asked = json.loads(CHAT.read(data, {}).body(PLAIN))
    added = {"stream_options": {"include_usage": True}, "timings_per_token": True, "return_progress": True}
    assert asked == HELLO | changes | {"stream": True} | added


def test_nearest_models_are_named() -> None:
    assert (
        "nearest are: llama-small, llama-large" in unknown_model("llama-smal", ["llama-large", "llama-small"]).message
    )
    assert "nearest are: a, b" in unknown_model("zzz", ["b", "a"]).message
    assert "no model this key may use" in unknown_model("zzz", []).message


def test_errors_have_openais_shape() -> None:
    status, body, headers = render(Unavailable("Later.", retry_after_s=0.2, code="no_replica"))
    error = {"message": "Later.", "type": "server_error", "param": None, "code": "no_replica"}
    assert (status, json.loads(body), headers) == (503, {"error": error}, b"retry-after: 1\r\n")
    status, body, headers = render(Invalid("Wrong.", field="n"))
    error = {"message": "Wrong.", "type": "invalid_request_error", "param": "n", "code": "invalid"}
    assert (status, json.loads(body), headers) == (400, {"error": error}, b"")


def told(**error: Any) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, told(type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=4), 400, "context_length_exceeded"),
        (
            500,
            told(message="input (901 tokens) is too large to process. increase (current batch size: 512)"),
            400,
            "context_length_exceeded",
        ),
        (400, told(message="messages has 901 tokens, the context is 512"), 400, "context_length_exceeded"),
        (
            400,
            told(message="This model's maximum context length is 512 tokens. However, you requested 901 tokens."),
            400,
            "context_length_exceeded",
        ),
        (422, told(message="no"), 422, "invalid"),
        (401, told(message="Invalid API Key"), 502, "engine_error"),
        (404, b"", 502, "engine_error"),
        (500, b"<html>", 502, "engine_error"),
        (500, b'{"error":"text"}', 502, "engine_error"),
        (503, told(message="Loading model"), 503, "engine_busy"),
    ],
)
def test_engine_errors_are_translated(status: int, body: bytes, expected: int, code: str) -> None:
    told_status, told_body, _ = render(read_engine_refusal("messages", status, body))
    assert (told_status, json.loads(told_body)["error"]["code"]) == (expected, code)


def test_context_error_tells_both_numbers() -> None:
    for status, body in (
        (400, told(type="exceed_context_size_error", n_prompt_tokens=3031, n_ctx=512)),
        (500, told(message="input (3031 tokens) is too large to process. increase (current batch size: 512)")),
    ):
        message = read_engine_refusal("messages", status, body).message
        assert "3031" in message and "512" in message
