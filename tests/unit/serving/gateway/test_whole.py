"""Whole answers out of streamed ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.core.errors import IntegrityError
from atoll.serving.gateway.usage import Tokens
from atoll.serving.gateway.whole import assemble


def stream(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values) + b"data: [DONE]\n\n"


def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "a", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def test_choices_are_put_together_in_order() -> None:
    answer = json.loads(
        assemble(
            stream(
                chunk(1, {"role": "assistant", "content": None}),
                chunk(0, {"role": "assistant", "content": None}),
                chunk(0, {"content": "one"}),
                chunk(1, {"content": "uno"}),
                chunk(0, {"content": " two"}),
                chunk(0, {}, "stop"),
                chunk(1, {}, "length"),
            ),
            Tokens(7, 3, 1),
        )
    )
    assert answer["object"] == "chat.completion"
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "one two", "stop"),
        (1, "uno", "length"),
    ]
    assert "delta" not in answer["choices"][0]
    assert answer["usage"]["total_tokens"] == 10


def test_tool_calls_grow_by_index() -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {
            "tool_calls": [{"index": index, "function": {"arguments": arguments} | more.pop("function", {})} | more]
        }

    answer = json.loads(
        assemble(
            stream(
                chunk(0, call(0, "", id="c1", type="function", function={"name": "weather"})),
                chunk(0, call(0, '{"city":')),
                chunk(0, call(1, "{}", id="c2", type="function", function={"name": "time"})),
                chunk(0, call(0, '"Malé"}')),
                chunk(0, {}, "tool_calls"),
            ),
            Tokens(),
        )
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Malé"}'}},
        {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]


def test_texts_and_their_logprobs_are_joined() -> None:
    def text(value: str) -> dict[str, Any]:
        choice = {"index": 0, "text": value, "logprobs": {"content": [{"token": value}]}, "finish_reason": None}
        return {"object": "text_completion", "choices": [choice]}

    answer = json.loads(assemble(stream(text("a"), text("b")), Tokens()))
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "ab"
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b'data: {"choices":[{}]}\n\n', b"data: 3\n\n", b'data: {"error":{}}\n\n']
)
def test_what_cannot_be_put_together_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        assemble(data, Tokens())
