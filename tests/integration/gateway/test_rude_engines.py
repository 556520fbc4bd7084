"""Engines that send garbage, too much, too little or nothing: a clear error, and nothing is left taken."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from atoll.serving.gateway.upstream import Patience
from integration.gateway.conftest import IMPATIENT, KEY, Running
from integration.gateway.control import Control
from integration.gateway.wire import chat, read_answer, read_to_end, read_until

Start = Callable[..., Running]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Rude:
    """Answers every request with the same bytes and closes, or stays silent after them."""

    def __init__(self, answer: bytes, *, stays: bool = False) -> None:
        self._answer, self._stays = answer, stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._kept: list[socket.socket] = []
        self.asked = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            data = b""
            while b'"messages"' not in data and (piece := connection.recv(65536)):
                data += piece
            if not data:
                connection.close()
                continue
            self.asked += 1
            with suppress(OSError):
                connection.sendall(self._answer)
            if self._stays:
                self._kept.append(connection)
            else:
                connection.close()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)
        for connection in self._kept:
            connection.close()


@pytest.fixture
def rude() -> Iterator[Callable[..., Rude]]:
    made: list[Rude] = []

    def make(answer: bytes, **options: Any) -> Rude:
        made.append(Rude(answer, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


def budgeted(control: Control, url: str, start: Start, patience: Patience | None = None) -> Running:
    control.add_budget("b-1", {"tokens": 100_000})
    control.add_key(KEY, budgets={"default": ["b-1"]})
    control.add_model("tiny", [url], slots=2)
    return start(patience=patience)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff garbage",
        b"HTTP/1.1 200 OK\r\ncontent-length: banana\r\n\r\n",
        OK + b"content-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 200_000,
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 7\r\n\r\n<html>\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_502_and_leaves_nothing(
    start: Start, control: Control, rude: Callable[..., Rude], answer: bytes, stream: bool
) -> None:
    gateway = budgeted(control, rude(answer).url, start)
    with gateway.connect() as connection:
        connection.sendall(chat(stream=stream, max_tokens=5))
        status, _, body, _ = read_answer(connection)
    assert status == 502 and json.loads(body)["error"]["message"]
    (record,) = control.wait_for_usage(1)
    assert record["status"] == "error"
    assert control.ledger.spent["b-1", "tokens"] == 0
    gateway.wait_for_rest()


@pytest.mark.parametrize("answer", [b"", OK + b"content-length: 100\r\n\r\n{", SSE])
def test_stall_before_the_first_token_is_504(
    start: Start, control: Control, rude: Callable[..., Rude], answer: bytes
) -> None:
    engine = rude(answer, stays=True)
    gateway = budgeted(control, engine.url, start, IMPATIENT)
    with gateway.connect() as connection:
        connection.sendall(chat(stream=answer == SSE, max_tokens=5))
        assert read_answer(connection)[0] == 504
    assert engine.asked == 1
    gateway.wait_for_rest()


@pytest.mark.parametrize(
    "events",
    [
        b"data: {not json}\n\ndata: [DONE]\n\n",
        b"data: \xff\xfe\n\n" * 10 + b"data: [DONE]\n\n",
        b"event: x\nid: 1\n\n: comment\n\ndata: [DONE]\n\n",
        b'data: {"choices": 7, "usage": "none", "timings": []}\n\ndata: [DONE]\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":7}}],"usage":{"prompt_tokens":-5}}\n\ndata: [DONE]\n\n',
    ],
)
def test_events_that_make_no_sense_pass_and_are_not_charged_wildly(
    start: Start, control: Control, rude: Callable[..., Rude], events: bytes
) -> None:
    gateway = budgeted(control, rude(SSE + chunk(events) + b"0\r\n\r\n").url, start)
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, max_tokens=5))
        data = read_until(connection, b"0\r\n\r\n")
    assert b"[DONE]" in data
    (record,) = control.wait_for_usage(1)
    assert 0 <= control.ledger.spent["b-1", "tokens"] <= 10 and record["prompt_tokens"] >= 0
    gateway.wait_for_rest()


def test_event_without_end_is_cut_off(start: Start, control: Control, rude: Callable[..., Rude]) -> None:
    endless = SSE + chunk(b"data: " + b"x" * 5_000_000)
    gateway = budgeted(control, rude(endless, stays=True).url, start)
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, max_tokens=5))
        status, _, _, _ = read_answer(connection)
    assert status == 502
    gateway.wait_for_rest()


def test_stream_cut_short_without_its_end_is_no_success(
    start: Start, control: Control, rude: Callable[..., Rude]
) -> None:
    event = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Is"}}]}\n\n'
    engine = rude(SSE + chunk(event))
    gateway = budgeted(control, engine.url, start)
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True, max_tokens=5))
        data = read_to_end(connection)
    assert b"upstream_broken" in data and b"[DONE]" not in data
    (record,) = control.wait_for_usage(1)
    assert (record["status"], record["completion_tokens"]) == ("error", 1)
    assert engine.asked == 1
    gateway.wait_for_rest()


def test_engine_that_breaks_every_stream_is_not_asked_for_ever(
    start: Start, control: Control, rude: Callable[..., Rude]
) -> None:
    """Holding requests for a model must not turn one broken engine into a loop."""
    event = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Is"}}]}\n\n'
    engine = rude(SSE + chunk(event))
    control.add_model("tiny", [engine.url], hold={"queue_max": 10, "wait_s": 30})
    gateway = start()
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        data = read_to_end(connection)
    assert b"upstream_broken" in data and engine.asked <= 4
    gateway.wait_for_rest()
