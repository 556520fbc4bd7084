"""Where requests go, what the client and the record are told of it, and what happens when nobody is there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from integration.gateway.conftest import Running
from integration.gateway.control import Control, target_of, wait_until
from integration.gateway.engine import PROMPT_TOKENS, WORDS, Engine
from integration.gateway.wire import chat, post, read_answer, read_until

Start = Callable[..., Running]
HELLO: Any = [{"role": "user", "content": "hello"}]
TEXT = "".join(WORDS)


@pytest.fixture
def other() -> Iterator[Engine]:
    other = Engine().start()
    yield other
    other.stop()


def ask(gateway: Running, text: str = "hello", *, stream: bool = False, **options: Any) -> str:
    """The text of the answer."""
    messages: Any = [{"role": "user", "content": text}]
    with gateway.client() as client:
        answer: Any = client.chat.completions.create(model="tiny", messages=messages, stream=stream, **options)
        if stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        return str(answer.choices[0].message.content)


# what is told


@pytest.mark.parametrize("stream", [False, True])
def test_headers_and_record_tell_the_way(start: Start, control: Control, engine: Engine, stream: bool) -> None:
    control.add_model("tiny", [engine.url])
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(chat(stream=stream, user="ada"))
        head = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")[0].decode()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert headers["x-atoll-route"] == "tiny > tiny"
    assert headers["x-atoll-replica"] == "tiny-0"
    assert float(headers["x-atoll-queue-ms"]) == 0.0
    assert 0.0 <= float(headers["x-atoll-overhead-ms"]) < 60_000.0
    (record,) = control.wait_for_usage(1)
    expected = {"note": "tiny-0: the only one", "priority": "normal", "provider": False, "user": "ada", "queue_s": 0.0}
    assert {name: record[name] for name in expected} == expected


def test_names_outside_ascii_break_no_header(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [])
    target = target_of("tiny", [engine.url]) | {"name": "岛\r\nx-evil: 1"}
    control.snapshot["models"]["default"]["tiny"]["targets"] = [target]
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(chat())
        status, headers, _, _ = read_answer(connection)
    assert status == 200 and "x-evil" not in headers


# targets, sessions and prefixes


def routed(control: Control, targets: list[dict[str, Any]], **fields: Any) -> None:
    control.add_model("tiny", [], **fields)
    control.snapshot["models"]["default"]["tiny"]["targets"] = targets


def test_targets_share_by_weight(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    routed(control, [target_of("main", [engine.url], weight=0.8), target_of("canary", [other.url], weight=0.2)])
    gateway = start()
    for number in range(30):
        ask(gateway, f"{number}")
    assert 4 <= len(other.requests) <= 8
    assert {r["deployment"] for r in control.wait_for_usage(30)} == {"dep-main", "dep-canary"}


def test_target_without_a_replica_is_passed_over(start: Start, control: Control, engine: Engine) -> None:
    routed(control, [target_of("main", [engine.url]), target_of("starting", [])])
    gateway = start()
    for _ in range(6):
        ask(gateway)
    assert len(engine.requests) == 6


def test_session_stays_on_its_replica(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    control.add_model("tiny", [engine.url, other.url], affinity="session")
    gateway = start()
    for session in range(8):
        before = len(engine.requests), len(other.requests)
        for _ in range(3):
            ask(gateway, extra_headers={"x-atoll-session": f"session-{session}"})
        grown = len(engine.requests) - before[0], len(other.requests) - before[1]
        assert sorted(grown) == [0, 3]
    assert engine.requests and other.requests


def test_conversation_stays_where_its_beginning_was_computed(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url], context=8192)
    gateway = start()
    talks = [[{"role": "user", "content": f"{number} tell me a long story " * 20}] for number in range(4)]
    for _ in range(3):
        for talk in talks:
            with gateway.client() as client:
                client.chat.completions.create(model="tiny", messages=talk)  # type: ignore[arg-type]
            talk += [{"role": "assistant", "content": TEXT}, {"role": "user", "content": "and then?"}]
    firsts = [{r["messages"][0]["content"][:2] for r in e.requests} for e in (engine, other)]
    assert not firsts[0] & firsts[1], "a conversation was on both"
    assert len(engine.requests) == len(other.requests) == 6
    assert any("of the prompt" in r["note"] for r in control.wait_for_usage(12))


def test_provider_with_a_version_in_its_address_is_asked_there(start: Start, control: Control, engine: Engine) -> None:
    price = {"input_per_million": 1.0, "output_per_million": 2.0, "currency": "USD"}
    target = target_of("far", [], engine="openai", model="gpt-far", price=price, parallel=3)
    target["replicas"] = [{"id": "far", "url": f"{engine.url}/openai/v1", "api_key": "far-key"}]
    routed(control, [target])
    gateway = start()
    ask(gateway)
    assert engine.paths == ["/openai/v1/chat/completions"]
    assert engine.requests[0]["model"] == "gpt-far"
    assert engine.headers[0]["authorization"] == "Bearer far-key"
    (record,) = control.wait_for_usage(1)
    assert record["provider"] and record["cost_micros"] == PROMPT_TOKENS * 1 + len(WORDS) * 2


# nobody there


def test_fallback_answers_for_a_model_without_replicas(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [], fallback=["gone", "spare"], hold={"queue_max": 5, "wait_s": 10})
    control.add_model("spare", [engine.url])
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(chat())
        status, headers, _, _ = read_answer(connection)
    assert status == 200 and headers["x-atoll-route"] == "spare > spare"
    (record,) = control.wait_for_usage(1)
    assert (record["model"], record["deployment"]) == ("tiny", "dep-spare")
    assert "fallback spare" in record["note"]
    gateway.wait_for_rest()


def test_fallback_answers_for_replicas_that_are_gone(
    start: Start, control: Control, engine: Engine, closed_url: str
) -> None:
    control.add_model("tiny", [closed_url], fallback=["spare"])
    control.add_model("spare", [engine.url])
    gateway = start()
    for stream in (False, True, False):
        assert ask(gateway, stream=stream) == TEXT
    gateway.wait_for_rest()


def test_fallback_answers_when_waiting_was_in_vain(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url], slots=1, fallback=["spare"], hold={"queue_max": 5, "wait_s": 0.2})
    control.add_model("spare", [other.url])
    gateway = start()
    engine.hold_at = 0
    with gateway.connect() as busy:
        busy.sendall(chat())
        engine.wait_for("active", 1)
        ask(gateway)
        assert len(other.requests) == 1
        engine.released.set()
        assert read_answer(busy)[0] == 200
    gateway.wait_for_rest()


# hedging


@pytest.mark.parametrize("stream", [False, True])
def test_slow_first_token_is_raced_and_billed_once(
    start: Start, control: Control, engine: Engine, other: Engine, stream: bool
) -> None:
    control.add_model("tiny", [engine.url, other.url], hedge_s=0.1)
    gateway = start()
    engine.hold_at = other.hold_at = 0
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(ask(gateway, stream=stream)))
    asking.start()
    wait_until(lambda: engine.active and other.active, "both are asked")
    other.hold_at = None
    other.released.set()
    asking.join(60)
    assert answers == [TEXT]
    engine.wait_for("disconnects", 1)
    (record,) = control.wait_for_usage(1)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))
    assert "no token within 0.1 s" in record["note"]
    gateway.wait_for_rest()


def test_loser_of_a_race_that_fails_changes_nothing(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url], hedge_s=0.05)
    gateway = start()
    engine.hold_at = other.hold_at = 0
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        wait_until(lambda: engine.active and other.active, "both are asked")
        engine.close_connections()
        other.hold_at = None
        other.released.set()
        assert b"[DONE]" in read_until(connection, b"0\r\n\r\n")
    gateway.wait_for_rest()


def test_fast_first_token_is_not_raced(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    control.add_model("tiny", [engine.url, other.url], hedge_s=60.0)
    gateway = start()
    engine.hold_at = other.hold_at = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        read_until(connection, WORDS[1].encode())
        assert gateway.ask(lambda: all(x._race._hedge is None for x in _exchanges(gateway)))
        engine.released.set()
        other.released.set()
        read_until(connection, b"0\r\n\r\n")
    assert len(engine.requests) + len(other.requests) == 1


def _exchanges(gateway: Running) -> list[Any]:
    return [c.handler for c in gateway.gateway.http.connections if c.handler is not None]


def test_engine_that_cannot_do_what_is_asked_is_400_by_name(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], engine="transformers", capabilities=["chat"])
    gateway = start()
    body = {"model": "tiny", "messages": HELLO, "mirostat": 2}
    with gateway.connect() as connection:
        connection.sendall(post(json.dumps(body).encode()))
        status, _, answer, _ = read_answer(connection)
    assert status == 400 and b"mirostat" in answer
    gateway.wait_for_rest()


def test_models_are_told_with_their_owner(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("shared", [engine.url], owner="platform")
    gateway = start()
    with gateway.client() as client:
        assert client.models.retrieve("shared").owned_by == "platform"
    with pytest.raises(openai.NotFoundError), gateway.client() as client:
        client.models.retrieve("none")
