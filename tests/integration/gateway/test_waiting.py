"""Requests that find no free replica wait: in fair order, bounded, told how it stands, and free to leave."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest

from integration.gateway.conftest import KEY, Running
from integration.gateway.control import Control, target_of, wait_until
from integration.gateway.engine import WORDS, Engine
from integration.gateway.wire import chat, post, read_answer, read_until

Start = Callable[..., Running]
HELLO = [{"role": "user", "content": "hello"}]
HOLD = {"queue_max": 100, "wait_s": 60}


def named(name: str, *, key: str = KEY, extra: bytes = b"", **fields: Any) -> bytes:
    """A chat request that the engine can tell from others."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": name}]} | fields
    return post(json.dumps(body).encode(), key=key, extra=extra)


def order_of(engine: Engine) -> list[str]:
    return [request["messages"][0]["content"] for request in engine.requests]


def waiting(gateway: Running) -> int:
    return int(gateway.ask(lambda: gateway.gateway.dispatch.waiting))


@contextmanager
def sent(gateway: Running, requests: list[bytes]) -> Iterator[list[socket.socket]]:
    """Connections with one request each, sent in order, every one waiting before the next is sent."""
    with ExitStack() as stack:
        connections = []
        for request in requests:
            connection = stack.enter_context(gateway.connect())
            before = waiting(gateway)
            connection.sendall(request)
            wait_until(lambda floor=before: waiting(gateway) > floor, "the request waits")
            connections.append(connection)
        yield connections


@pytest.fixture
def busy(start: Start, control: Control, engine: Engine) -> Running:
    """A gateway whose model has one slot, taken until the engine is released."""
    control.add_model("tiny", [engine.url], slots=1, hold=HOLD)
    gateway = start()
    engine.hold_at = 0
    holder = gateway.connect()
    holder.sendall(named("holder"))
    engine.wait_for("active", 1)
    wait_until(lambda: gateway.gateway.in_flight == 1, "the slot is taken")
    gateway.holder = holder  # type: ignore[attr-defined]
    return gateway


def release(gateway: Running, engine: Engine) -> None:
    engine.hold_at = None
    engine.released.set()
    with gateway.holder as holder:  # type: ignore[attr-defined]
        assert read_answer(holder)[0] == 200


def test_slots_are_never_exceeded_and_everybody_is_served(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], slots=2, hold=HOLD)
    gateway = start()
    most: list[int] = []
    engine.event_s = 0.002
    answers: list[int] = []

    def ask() -> None:
        with gateway.connect() as connection:
            connection.sendall(chat(stream=True))
            read_until(connection, b"0\r\n\r\n")
            most.append(engine.active)
            answers.append(1)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert engine.active_most <= 2
    gateway.wait_for_rest()


def test_projects_take_turns_however_many_requests_one_has(busy: Running, control: Control, engine: Engine) -> None:
    control.add_key("sk-small", "key-small", "small")
    control.snapshot["models"]["small"] = {"tiny": control.snapshot["models"]["default"]["tiny"]}
    busy.follow(control)
    many = [named(f"many-{i}") for i in range(6)]
    few = [named(f"few-{i}", key="sk-small") for i in range(2)]
    with sent(busy, many + few) as connections:
        release(busy, engine)
        for connection in connections:
            assert read_answer(connection)[0] == 200
    served = order_of(engine)[1:]
    assert max(served.index("few-0"), served.index("few-1")) <= 4, served
    records = control.wait_for_usage(9)
    assert [r["queue_s"] > 0 for r in records].count(True) == 8
    busy.wait_for_rest()


def test_weights_of_projects_share_the_slots(busy: Running, control: Control, engine: Engine) -> None:
    control.add_key("sk-heavy", "key-heavy", "heavy")
    control.snapshot["models"]["heavy"] = {"tiny": control.snapshot["models"]["default"]["tiny"]}
    control.snapshot["projects"] = {
        "heavy": {"limits": None, "weight": 3.0},
        "default": {"limits": None, "weight": 1.0},
    }
    busy.follow(control)
    requests = [named(f"light-{i}") for i in range(8)] + [named(f"heavy-{i}", key="sk-heavy") for i in range(8)]
    with sent(busy, requests) as connections:
        release(busy, engine)
        for connection in connections:
            assert read_answer(connection)[0] == 200
    first = order_of(engine)[1:9]
    assert 5 <= sum(name.startswith("heavy") for name in first) <= 7, first


def test_priority_goes_first_and_batch_last(busy: Running, control: Control, engine: Engine) -> None:
    control.add_key("sk-high", "key-high", priority="high")
    control.add_key("sk-batch", "key-batch", priority="batch")
    busy.follow(control)
    requests = [
        named("batch", key="sk-batch"),
        named("lowered", key="sk-high", extra=b"x-atoll-priority: batch\r\n"),
        named("normal"),
        named("not raised", extra=b"x-atoll-priority: high\r\n"),
        named("high", key="sk-high"),
    ]
    with sent(busy, requests) as connections:
        release(busy, engine)
        for connection in connections:
            assert read_answer(connection)[0] == 200
    assert order_of(engine)[1:] == ["high", "normal", "not raised", "batch", "lowered"]
    assert {r["priority"] for r in control.wait_for_usage(6)} == {"high", "normal", "batch"}


def test_unknown_priority_is_named(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.sendall(named("x", extra=b"x-atoll-priority: urgent\r\n"))
        status, _, body, _ = read_answer(connection)
    assert status == 400 and b"urgent" in body and b"high, normal, batch" in body


def test_full_queue_is_429_with_the_number(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], slots=1, hold={"queue_max": 2, "wait_s": 60})
    gateway = start()
    engine.hold_at = 0
    with gateway.connect() as first, gateway.connect() as last:
        first.sendall(chat())
        engine.wait_for("active", 1)
        with sent(gateway, [chat(), chat()]) as connections:
            last.sendall(chat())
            status, headers, body, _ = read_answer(last)
            assert status == 429 and b"2 requests wait" in body and int(headers["retry-after"]) >= 1
            engine.released.set()
            for connection in (first, *connections):
                assert read_answer(connection)[0] == 200
    gateway.wait_for_rest()


def test_model_that_never_holds_is_503_naming_its_slots(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], slots=1)
    gateway = start()
    engine.hold_at = 0
    with gateway.connect() as first, gateway.client() as client:
        first.sendall(chat())
        engine.wait_for("active", 1)
        with pytest.raises(openai.InternalServerError, match="1 requests in flight on 1 slots") as caught:
            client.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert caught.value.code == "model_busy"
        engine.released.set()
        assert read_answer(first)[0] == 200


def test_client_that_leaves_leaves_the_queue(busy: Running, engine: Engine, control: Control) -> None:
    with sent(busy, [named("leaves", stream=True), named("stays")]) as (leaving, staying):
        leaving.close()
        wait_until(lambda: waiting(busy) == 1, "it has left")
        release(busy, engine)
        assert read_answer(staying)[0] == 200
    assert order_of(engine) == ["holder", "stays"]
    busy.wait_for_rest()


def test_wait_ends_in_503_with_time_and_place(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], slots=1, hold={"queue_max": 9, "wait_s": 0.2})
    gateway = start()
    engine.hold_at = 0
    with gateway.connect() as first, gateway.connect() as second:
        first.sendall(chat())
        engine.wait_for("active", 1)
        second.sendall(chat())
        status, _, body, _ = read_answer(second)
        assert status == 503 and b"queue_timeout" in body and b"place 1" in body
        engine.released.set()
        assert read_answer(first)[0] == 200
    gateway.wait_for_rest()


def test_request_wakes_a_sleeping_model_and_is_told_its_progress(
    start: Start, control: Control, engine: Engine
) -> None:
    control.add_model("tiny", [], hold=HOLD)
    gateway = start()
    with gateway.connect() as connection, gateway.connect() as silent:
        connection.sendall(chat(stream=True))
        silent.sendall(chat())
        wait_until(lambda: waiting(gateway) == 2, "both wait")
        wait_until(lambda: any(r["targets"]["dep-tiny"]["queued"] for r in control.loads if r["targets"]), "it is told")
        head = read_until(connection, b": starting, place 1\n\n")
        assert b"200 OK" in head and b"text/event-stream" in head
        progress = {"stage": "load", "done": 45, "total": 100, "unit": "%", "message": "loading the weights"}
        control.add_model("tiny", [], hold=HOLD, progress=progress)
        gateway.follow(control)
        read_until(connection, b": starting, loading the weights 45 %, place 1\n\n")
        control.add_model("tiny", [engine.url], hold=HOLD)
        gateway.follow(control)
        data = read_until(connection, b"0\r\n\r\n")
        assert data.count(b'"content":"') == len(WORDS) and b"[DONE]" in data
        status, headers, _, _ = read_answer(silent)
        assert status == 200 and float(headers["x-atoll-queue-ms"]) > 500
    gateway.wait_for_rest()
    assert all(not t["queued"] for t in gateway.gateway.loads.report()["targets"].values())


def test_held_stream_that_nobody_can_serve_is_told_in_the_stream(start: Start, control: Control) -> None:
    control.add_model("tiny", [], hold=HOLD)
    gateway = start()

    def end_the_wait() -> None:
        for desk in gateway.gateway.dispatch._waiting:
            for ticket in desk.queue.order():
                ticket.until_s = 0.0

    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        data = read_until(connection, b": starting, place 1\n\n")
        gateway.ask(end_the_wait)
        read_until(connection, b"queue_timeout", data)
    gateway.wait_for_rest()


def test_model_that_is_deleted_ends_the_wait(start: Start, control: Control) -> None:
    control.add_model("tiny", [], hold=HOLD)
    gateway = start()
    with sent(gateway, [chat()]) as (connection,):
        del control.snapshot["models"]["default"]["tiny"]
        gateway.follow(control)
        status, _, body, _ = read_answer(connection)
        assert status == 404 and b"does not exist any more" in body
    gateway.wait_for_rest()


def test_crashed_replica_is_waited_for(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url], hold=HOLD)
    gateway = start()
    engine.stop()
    with sent(gateway, [chat()]) as (connection,):
        engine.start()
        assert read_answer(connection)[0] == 200
    gateway.wait_for_rest()


def test_requests_of_two_names_share_one_deployments_slot(busy: Running, control: Control, engine: Engine) -> None:
    replica = {"id": "tiny-0", "url": engine.url, "api_key": "engine-key", "weight": 1, "slots": 1}
    target = target_of("tiny", []) | {"replicas": [replica]}
    control.snapshot["models"]["default"]["alias"] = control.snapshot["models"]["default"]["tiny"] | {
        "targets": [target]
    }
    busy.follow(control)
    with sent(busy, [named("one"), named("two", model="alias")]) as connections:
        assert len(engine.requests) == 1
        release(busy, engine)
        for connection in connections:
            assert read_answer(connection)[0] == 200
    assert engine.active_most == 1
