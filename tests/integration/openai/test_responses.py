"""Responses through the door: stored, gone on from, part of conversations, and nobody else's."""

from __future__ import annotations

import openai
import pytest


def test_a_response_is_stored_and_gone_on_from(door: openai.OpenAI, stranger: openai.OpenAI) -> None:
    first = door.responses.create(model="tiny", input="My name is Ada.", max_output_tokens=5)
    second = door.responses.create(
        model="tiny", input="What is my name?", previous_response_id=first.id, max_output_tokens=5
    )
    assert first.usage is not None and second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert door.responses.retrieve(first.id).output_text == first.output_text
    assert door.responses.retrieve(second.id).previous_response_id == first.id
    (item,) = door.responses.input_items.list(second.id)
    assert item.type == "message"
    with pytest.raises(openai.NotFoundError):
        stranger.responses.retrieve(first.id)
    door.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        door.responses.create(model="tiny", input="And?", previous_response_id=first.id, max_output_tokens=5)


def test_what_is_not_to_be_stored_is_not(door: openai.OpenAI) -> None:
    made = door.responses.create(model="tiny", input="Forget this.", store=False, max_output_tokens=3)
    with pytest.raises(openai.NotFoundError):
        door.responses.retrieve(made.id)


def test_a_conversation_takes_up_what_is_said_in_it(door: openai.OpenAI) -> None:
    made = door.conversations.create(items=[{"type": "message", "role": "user", "content": "I like red."}])
    for text in ("Hello.", "Goodbye."):
        door.responses.create(model="tiny", input=text, conversation=made.id, max_output_tokens=4)
    said = list(door.conversations.items.list(made.id, order="asc"))
    assert [getattr(item, "role", None) for item in said] == ["user", "user", "assistant", "user", "assistant"]


def test_a_streamed_response_is_stored_too(door: openai.OpenAI) -> None:
    stream = door.responses.create(model="tiny", input="Say something.", max_output_tokens=5, stream=True)
    last = list(stream)[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert door.responses.retrieve(last.response.id).output_text == last.response.output_text
