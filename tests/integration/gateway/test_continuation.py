"""A replica that dies in the middle of a stream is followed by another, and the client sees one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.gateway.conftest import Running
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import CACHED_TOKENS, PROMPT_TOKENS, WORDS, Engine
from integration.gateway.wire import chat, post, read_to_end, read_until

Start = Callable[..., Running]
TEXT = "".join(WORDS)
SERVE = "from integration.gateway.engine import main; main()"


@pytest.fixture
def other() -> Iterator[Engine]:
    other = Engine().start()
    yield other
    other.stop()


def events_of(data: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def text_of(events: list[dict[str, Any]]) -> str:
    pieces = [choice for event in events for choice in event["choices"]]
    return "".join((p["delta"].get("content") or "") if "delta" in p else p["text"] for p in pieces)


def ask(gateway: Running, request: bytes) -> bytes:
    with gateway.connect() as connection:
        connection.sendall(request)
        return read_until(connection, b"0\r\n\r\n")


def test_stream_goes_on_where_the_dead_replica_stopped(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.dies_after = other.dies_after = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, stream_options={"include_usage": True}))
        data = read_until(connection, WORDS[0].encode())
        (engine if other.requests else other).dies_after = None
        data = read_until(connection, b"0\r\n\r\n", data)
    events = events_of(data)
    assert text_of(events) == TEXT
    assert {event["id"] for event in events} == {events[0]["id"]}
    assert [e["choices"][0]["delta"].get("role") for e in events if e["choices"]].count("assistant") == 1
    assert data.count(b"[DONE]") == 1
    (record,) = control.wait_for_usage(1)
    told = record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]
    assert told == (PROMPT_TOKENS, len(WORDS), CACHED_TOKENS)
    usage = events[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))
    assert record["status"] == "ok" and "went on after 2 tokens" in record["note"]
    later = engine.requests[-1] if len(other.requests) > len(engine.requests) else other.requests[-1]
    second = next(r for r in (*engine.requests, *other.requests) if len(r["messages"]) == 2)
    assert second["messages"][-1] == {"role": "assistant", "content": "".join(WORDS[:2])}, later
    gateway.wait_for_rest()


def test_continued_answer_keeps_to_max_tokens(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.dies_after = other.dies_after = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, max_tokens=5))
        data = read_until(connection, WORDS[0].encode())
        (engine if other.requests else other).dies_after = None
        read_until(connection, b"0\r\n\r\n", data)
    second = next(r for r in (*engine.requests, *other.requests) if len(r["messages"]) == 2)
    assert second["max_tokens"] == 3


def test_answer_whose_last_token_was_sent_is_ended_for_the_dead(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    gateway = start()
    engine.dies_after = 5
    events = events_of(ask(gateway, chat(stream=True, max_tokens=5, stream_options={"include_usage": True})))
    assert text_of(events) == TEXT
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 5
    (record,) = control.wait_for_usage(1)
    assert (record["status"], record["completion_tokens"]) == ("ok", 5)
    gateway.wait_for_rest()


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_what_cannot_be_continued_breaks_off(
    start: Start, control: Control, engine: Engine, other: Engine, fields: dict[str, Any]
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.dies_after = other.dies_after = 2
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, **fields))
        data = read_to_end(connection)
    assert b"upstream_broken" in data and b"[DONE]" not in data
    (record,) = control.wait_for_usage(1)
    assert record["status"] == "error"
    gateway.wait_for_rest()


def test_plain_completion_goes_on_with_its_prompt(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.dies_after = other.dies_after = 2
    body = {"model": "tiny", "prompt": "Once", "stream": True}
    with gateway.connect() as connection:
        connection.sendall(post(json.dumps(body).encode(), "/v1/completions"))
        data = read_until(connection, WORDS[0].encode())
        (engine if other.requests else other).dies_after = None
        data = read_until(connection, b"0\r\n\r\n", data)
    assert text_of(events_of(data)) == TEXT
    second = next(r for r in (*engine.requests, *other.requests) if r["prompt"] != "Once")
    assert second["prompt"] == "Once" + "".join(WORDS[:2])


def test_long_stream_is_continued_after_much_text(start: Start, control: Control, engine: Engine) -> None:
    """More than is kept as it came: the text is read out on the way."""
    words = tuple(f' w{i}é\\"' for i in range(600))
    with_all, rest = Engine().start(), words[500:]
    try:
        engine.words, with_all.words = words, rest
        control.add_model("tiny", [engine.url, with_all.url], context=4096)
        gateway = start()
        engine.dies_after = 500
        with gateway.connect() as connection:
            for _ in range(2):  # one of them begins at the first
                connection.sendall(chat(stream=True))
                data = read_until(connection, b"0\r\n\r\n")
                if len(events_of(data)) > 300:
                    break
        assert text_of(events_of(data)) == "".join(words)
        second = next(r for r in with_all.requests if len(r["messages"]) == 2)
        assert second["messages"][-1]["content"] == "".join(words[:500])
    finally:
        with_all.stop()


class Killed:
    """An engine in a process of its own, to be killed with -9."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_replica_killed_under_load_fails_no_request(start: Start, control: Control) -> None:
    """Real processes, a real SIGKILL, streams and whole answers: every client gets a whole answer, billed once."""
    first, second = Killed(), Killed()
    control.add_model("tiny", [first.url, second.url])
    gateway = start()
    failures: list[str] = []
    answered: list[int] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        with gateway.connect() as connection:
            connection.settimeout(60)
            while not stop.is_set():
                connection.sendall(chat(stream=worker % 4 != 0))
                data = read_until(connection, b"0\r\n\r\n" if worker % 4 else b'"usage"')
                if worker % 4 and (text_of(events_of(data)) != TEXT or b"[DONE]" not in data):
                    failures.append(data.decode())
                answered.append(worker)

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 60, "load runs")
    first.kill()
    before = len(answered)
    wait_until(lambda: len(answered) > before + 120, "load goes on")
    stop.set()
    for thread in threads:
        thread.join()
    second.kill()
    assert not failures, failures[0]
    records = control.wait_for_usage(len(answered))
    assert len(records) == len(answered)
    assert {r["status"] for r in records} == {"ok"}
    assert {(r["prompt_tokens"], r["completion_tokens"]) for r in records} == {(PROMPT_TOKENS, len(WORDS))}
    assert any("went on after" in r["note"] for r in records), "no stream was continued"
    gateway.wait_for_rest()
