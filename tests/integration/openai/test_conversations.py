"""Conversations and stored responses: kept in order, gone on from, paged, and nobody else's."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import openai
import pytest

from running import Platform

from .conftest import server_of


class Gate:
    """What a gateway says to the server."""

    def __init__(self, up: Platform) -> None:
        key = (up.home / "run" / "system.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=f"{server_of(up)}/api/v1/gateway", headers=headers, timeout=60)

    def store(self, said: str, answer: str, **fields: Any) -> str:
        name = f"resp_{secrets.token_hex(8)}"
        body = {
            "project": "default",
            "key_id": "admin",
            "id": name,
            "input": [{"role": "user", "content": said}],
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": answer}]}],
            "response": {
                "id": name,
                "object": "response",
                "created_at": 1,
                "model": "tiny",
                "output": [],
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
            },
            **fields,
        }
        for _ in range(2):  # a gateway that did not hear the answer sends it again
            answer_ = self.http.post("/responses", json=body)
            assert answer_.status_code == 200, answer_.text
        return name

    def messages(self, what: str, name: str, project: str = "default") -> list[tuple[str, Any]]:
        answer = self.http.get(f"/{what}/{project}/{name}")
        assert answer.status_code == 200, answer.text
        return [(m["role"], m["content"]) for m in answer.json()["items"]]


@pytest.fixture(scope="module")
def gate(up: Platform) -> Any:
    made = Gate(up)
    with made.http:
        yield made


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def test_a_chain_of_responses_is_read_back_in_order(door: openai.OpenAI, gate: Gate) -> None:
    first = gate.store("one", "eins")
    second = gate.store("two", "zwei", previous_response_id=first)
    third = gate.store("three", "drei", previous_response_id=second)
    said = [("user", "one"), ("assistant", "eins"), ("user", "two"), ("assistant", "zwei")]
    assert gate.messages("responses", second) == said
    assert gate.messages("responses", third)[-2:] == [("user", "three"), ("assistant", "drei")]
    assert door.responses.retrieve(third).id == third
    (item,) = door.responses.input_items.list(third)
    assert item.type == "message"
    door.responses.delete(second)
    with pytest.raises(openai.NotFoundError):
        door.responses.retrieve(second)
    assert gate.http.get(f"/responses/default/{third}").status_code == 404
    assert gate.messages("responses", first) == said[:2]


def test_a_conversation_grows_by_items_and_by_responses(door: openai.OpenAI, gate: Gate) -> None:
    made = door.conversations.create(items=[user("hello")], metadata={"topic": "x"})  # type: ignore[list-item]
    gate.store("how are you", "well", conversation=made.id)
    added = door.conversations.items.create(made.id, items=[user("good"), user("bye")])  # type: ignore[list-item]
    assert [item.type for item in added.data] == ["message", "message"]
    listed = list(door.conversations.items.list(made.id, order="asc", limit=2))
    assert len(listed) == 5
    assert [i.id for i in door.conversations.items.list(made.id)] == [i.id for i in listed][::-1]
    texts = [text for _, text in gate.messages("conversations", made.id)]
    assert texts == ["hello", "how are you", "well", "good", "bye"]
    last = listed[-1]
    assert door.conversations.items.retrieve(str(last.id), conversation_id=made.id) == last
    door.conversations.items.delete(str(last.id), conversation_id=made.id)
    assert len(gate.messages("conversations", made.id)) == 4
    assert door.conversations.update(made.id, metadata={"topic": "y"}).metadata == {"topic": "y"}
    assert door.conversations.retrieve(made.id).metadata == {"topic": "y"}
    door.conversations.delete(made.id)
    for ask in (door.conversations.retrieve, door.conversations.items.list, door.conversations.delete):
        with pytest.raises(openai.NotFoundError):
            ask(made.id)


def test_a_response_of_a_conversation_is_gone_on_from_with_what_was_before(door: openai.OpenAI, gate: Gate) -> None:
    made = door.conversations.create(items=[user("hello")])  # type: ignore[list-item]
    first = gate.store("one", "eins", conversation=made.id)
    gate.store("two", "zwei", conversation=made.id)
    branch = gate.store("other", "anders", previous_response_id=first)
    texts = [text for _, text in gate.messages("responses", branch)]
    assert texts == ["hello", "one", "eins", "other", "anders"]


def test_calls_and_their_outputs_become_tool_messages(door: openai.OpenAI, gate: Gate) -> None:
    items = [
        user("weather?"),
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
    ]
    made = door.conversations.create(items=items)  # type: ignore[arg-type]
    found = gate.http.get(f"/conversations/default/{made.id}").json()["items"]
    assert [m["role"] for m in found] == ["user", "assistant", "tool"]
    assert [call["id"] for call in found[1]["tool_calls"]] == ["c1", "c2"]
    assert found[2] == {"role": "tool", "tool_call_id": "c1", "content": "sun"}


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"type": "telepathy"}], "items[0].type"),
        ([user("x"), {"role": "wizard", "content": "x"}], "items[1].role"),
        ([{"role": "user", "content": 3}], "items[0].content"),
        ([{"type": "function_call", "name": "f"}], "items[0].call_id"),
        ([user("x")] * 21, "items"),
    ],
)
def test_a_wrong_item_is_named(door: openai.OpenAI, items: list[Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        door.conversations.create(items=items)
    assert caught.value.param == param


def test_a_response_to_a_conversation_that_is_not_there_is_refused(gate: Gate) -> None:
    body = {"project": "default", "key_id": "k", "id": "resp_x", "conversation": "conv_none", "input": []}
    answer = gate.http.post("/responses", json={**body, "output": [], "response": {}})
    assert answer.status_code == 404
    assert gate.http.get("/responses/default/resp_x").status_code == 404


def test_another_tenant_sees_neither(door: openai.OpenAI, stranger: openai.OpenAI, gate: Gate) -> None:
    made = door.conversations.create(items=[user("secret")])  # type: ignore[list-item]
    response = gate.store("secret", "too")
    item = str(next(iter(door.conversations.items.list(made.id))).id)
    for ask in (
        lambda: stranger.conversations.retrieve(made.id),
        lambda: stranger.conversations.update(made.id, metadata={}),
        lambda: stranger.conversations.delete(made.id),
        lambda: stranger.conversations.items.list(made.id),
        lambda: stranger.conversations.items.retrieve(item, conversation_id=made.id),
        lambda: stranger.conversations.items.delete(item, conversation_id=made.id),
        lambda: stranger.conversations.items.create(made.id, items=[user("x")]),  # type: ignore[list-item]
        lambda: stranger.responses.retrieve(response),
        lambda: stranger.responses.delete(response),
        lambda: stranger.responses.input_items.list(response),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    for what, name in (("responses", response), ("conversations", made.id)):
        assert gate.http.get(f"/{what}/elsewhere/{name}").status_code == 404
        headers = {"Authorization": f"Bearer {stranger.api_key}"}
        answer = httpx.get(f"{gate.http.base_url}{what}/default/{name}", headers=headers, timeout=60)
        assert answer.status_code == 403
    assert door.responses.retrieve(response).id == response
