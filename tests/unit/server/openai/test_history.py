"""Conversations and responses on both databases: in order, once, bounded, and of one project each."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, NotFound, TooLarge
from atoll.server.openai import history as module
from atoll.server.openai.history import History, Stored, forget_projects, forget_responses


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def stored(name: str, **fields: Any) -> Stored:
    given = {"previous": None, "conversation": None, "last_seq": 0, "response": {"id": name}} | fields
    return Stored(name, input=[user(name)], output=[answer(name.upper())], **given)


def texts(items: list[dict[str, Any]]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


@pytest.fixture
def history(database: Database, clock: VirtualClock) -> History:
    return History(database, clock, "red")


def test_items_come_back_in_the_order_they_were_added(history: History) -> None:
    made = history.create([user("a"), user("b")], {"x": "y"})
    kept = history.append(made.id, [user("c")])
    assert texts(history.items(made.id)) == ["a", "b", "c"]
    assert len({item["id"] for item in history.items(made.id)}) == 3
    assert history.items(made.id)[-1] == kept[0]
    assert history.conversation(made.id).metadata == {"x": "y"}


def test_side_by_side_appends_lose_nothing(history: History) -> None:
    made = history.create([], {})
    threads = [
        threading.Thread(target=lambda n=n: [history.append(made.id, [user(f"{n}-{i}")]) for i in range(10)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = texts(history.items(made.id))
    assert len(found) == 40
    for n in range(4):
        assert [t for t in found if t.startswith(f"{n}-")] == [f"{n}-{i}" for i in range(10)]


def test_a_response_is_kept_once_however_often_it_is_sent(history: History) -> None:
    made = history.create([], {})
    for _ in range(3):
        history.store(stored("r1", conversation=made.id), "key-1")
    assert texts(history.items(made.id)) == ["r1", "R1"]
    assert history.response("r1").last_seq == 2


def test_a_chain_ends_where_a_response_is_gone(history: History) -> None:
    history.store(stored("r1"), "k")
    history.store(stored("r2", previous="r1"), "k")
    assert texts(history.chain("r2")) == ["r1", "R1", "r2", "R2"]
    history.forget_response("r1")
    with pytest.raises(NotFound, match="r1"):
        history.chain("r2")


def test_an_endless_chain_is_refused(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHAIN_MAX", 3)
    history.store(stored("r0", previous="r0"), "k")
    with pytest.raises(Conflict, match="more than 3"):
        history.chain("r0")


def test_a_conversation_has_an_end(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEMS_MAX", 2)
    made = history.create([user("a")], {})
    with pytest.raises(TooLarge, match="limit is 2"):
        history.append(made.id, [user("b"), user("c")])
    assert texts(history.items(made.id)) == ["a"]


def test_a_response_to_no_conversation_leaves_nothing(history: History) -> None:
    with pytest.raises(NotFound):
        history.store(stored("r1", conversation="conv_none"), "k")
    with pytest.raises(NotFound):
        history.response("r1")


def test_responses_are_forgotten_after_their_time_and_conversations_are_not(
    history: History, database: Database, clock: VirtualClock
) -> None:
    made = history.create([], {})
    history.store(stored("r1", conversation=made.id), "k")
    clock.advance(100)
    history.store(stored("r2", conversation=made.id), "k")
    assert forget_responses(database, clock.now() - 50) == 1
    with pytest.raises(NotFound):
        history.response("r1")
    assert texts(history.chain("r2")) == ["r1", "R1", "r2", "R2"]


def test_what_belonged_to_a_project_that_is_no_more_goes(
    history: History, database: Database, clock: VirtualClock
) -> None:
    other = History(database, clock, "blue")
    kept, gone = history.create([user("a")], {}), other.create([user("b")], {})
    other.store(stored("r1", conversation=gone.id), "k")
    assert forget_projects(database, ["red"]) == 1 + 3 + 1
    assert (texts(history.items(kept.id)), other.items(gone.id)) == (["a"], [])


def test_no_statement_reaches_into_another_project(history: History, database: Database, clock: VirtualClock) -> None:
    made = history.create([user("secret")], {})
    item = history.items(made.id)[0]["id"]
    history.store(stored("r1"), "k")
    other = History(database, clock, "blue")
    assert other.items(made.id) == []
    for ask in (
        lambda: other.conversation(made.id),
        lambda: other.annotate(made.id, {}),
        lambda: other.delete(made.id),
        lambda: other.append(made.id, [user("x")]),
        lambda: other.remove_item(made.id, item),
        lambda: other.response("r1"),
        lambda: other.forget_response("r1"),
        lambda: other.chain("r1"),
        lambda: other.store(stored("r2", conversation=made.id), "k"),
    ):
        with pytest.raises(NotFound):
            ask()
    other.store(stored("r1"), "k")  # the same id in another project is another response
    other.forget_response("r1")
    assert history.response("r1").id == "r1"
    assert texts(history.items(made.id)) == ["secret"]
