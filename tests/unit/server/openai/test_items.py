"""Items as chat messages, and what is no item."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Invalid, TooLarge
from atoll.server.openai import items as module
from atoll.server.openai.items import chat_messages, checked, named


def test_parts_of_text_are_one_text_and_pictures_stay_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    picture = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:x"}]
    found = chat_messages([{"role": "developer", "content": parts}, {"role": "user", "content": picture}])
    assert found == [
        {"role": "system", "content": "ab"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
        },
    ]


def test_calls_after_an_answer_belong_to_its_message_and_reasoning_is_left_out() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": {"sun": True}}
    thought = {"type": "reasoning", "summary": []}
    found = chat_messages([{"role": "assistant", "content": "well"}, thought, call, output, call])
    assert [m["role"] for m in found] == ["assistant", "tool", "assistant"]
    assert found[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert found[1]["content"] == '{"sun":true}'


def test_naming_is_the_same_each_time_and_keeps_given_names() -> None:
    items = [{"role": "user", "content": "a"}, {"type": "message", "id": "msg_1", "role": "user", "content": "b"}]
    once = named(items, "red/conv")
    assert once == named(items, "red/conv") != named(items, "blue/conv")
    assert once[1]["id"] == "msg_1"
    assert once[0]["content"] == [{"type": "input_text", "text": "a"}]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("text", "items[0]"),
        ({"type": "telepathy"}, "items[0].type"),
        ({"type": ["x"]}, "items[0].type"),
        ({"role": "user"}, "items[0].content"),
        ({"role": "user", "content": ["x"]}, "items[0].content"),
        ({"role": "user", "content": "x", "id": 3}, "items[0].id"),
        ({"role": None, "content": "x"}, "items[0].role"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "items[0].arguments"),
        ({"role": "user", "content": "\ud800"}, "items"),
    ],
)
def test_what_is_no_item_is_named(item: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked([item])
    assert caught.value.field == field


def test_items_have_a_size_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEMS_BYTES_MAX", 100)
    with pytest.raises(TooLarge, match="limit is 100"):
        checked([{"role": "user", "content": "x" * 100}])
