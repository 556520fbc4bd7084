"""The HTTP server of engines that have none, asked with bare sockets: bounds, bad manners, clients that leave."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

import httpx
import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.lifecycle import wait_until_ready
from atoll.serving.engine.server import Answer, Door, Request, ServerThread, Stream, new_key
from running_engine import wait_until

BODY_BYTES_MAX = 1000


class Handler:
    """Answers as its path says."""

    def __init__(self) -> None:
        self.cancelled, self.closed, self.started = threading.Event(), threading.Event(), threading.Event()

    async def handle(self, request: Request) -> Answer | Stream:
        if request.path == "/echo":
            return Answer(request.body)
        if request.path == "/invalid":
            raise Invalid("no good", field="x")
        if request.path == "/broken":
            raise ZeroDivisionError("division by zero")
        if request.path == "/stream":
            return Stream(self._pieces())
        self.started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Answer(b"")

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.01)
        finally:
            self.closed.set()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[ServerThread]:
    key = new_key()
    running = ServerThread("test", Door(handler.handle, key, body_bytes_max=BODY_BYTES_MAX), key).start()
    wait_until_ready(running, 60.0)
    yield running
    running.close()


def _headers(server: ServerThread) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.api_key}"}


def _connect(server: ServerThread) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), 60.0)


def _raw(server: ServerThread, data: bytes) -> bytes:
    """What comes back for bare bytes; the server need not read them all."""
    parts = []
    with _connect(server) as connection, suppress(ConnectionError):
        with suppress(ConnectionError):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_an_answer_and_an_error_come_back(server: ServerThread) -> None:
    assert httpx.post(f"{server.url}/echo", content=b"abc", headers=_headers(server), timeout=60.0).content == b"abc"
    answer = httpx.post(f"{server.url}/invalid", headers=_headers(server), timeout=60.0)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "x"
    assert httpx.post(f"{server.url}/echo", headers={"Authorization": "Bearer x"}, timeout=60.0).status_code == 401
    assert (
        httpx.post(
            f"{server.url}/echo", headers={"Authorization": "Bearer \xfc".encode("latin-1")}, timeout=60.0
        ).status_code
        == 401
    )


def test_an_exception_is_an_answer_and_the_server_lives_on(server: ServerThread) -> None:
    answer = httpx.post(f"{server.url}/broken", headers=_headers(server), timeout=60.0)
    assert answer.status_code == 500 and "ZeroDivisionError: division by zero" in answer.json()["error"]["message"]
    server.probe(60.0)


def test_a_body_over_the_limit_is_refused_told_or_not(server: ServerThread) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    for content in (b"x" * (BODY_BYTES_MAX + 1), chunks()):
        answer = httpx.post(f"{server.url}/echo", content=content, headers=_headers(server), timeout=60.0)
        assert answer.status_code == 413
    assert (
        httpx.post(
            f"{server.url}/echo", content=b"x" * BODY_BYTES_MAX, headers=_headers(server), timeout=60.0
        ).status_code
        == 200
    )


def test_nonsense_and_header_floods_are_refused(server: ServerThread) -> None:
    assert _raw(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    flood = b"GET /echo HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (i, b"y" * 100) for i in range(5000)) + b"\r\n"
    answer = _raw(server, flood)
    assert not answer.startswith(b"HTTP/1.1 200")
    server.probe(60.0)


def test_a_client_that_sends_half_and_leaves_occupies_nothing(server: ServerThread) -> None:
    head = f"POST /echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\ncontent-length: 100\r\n\r\nabc"
    _raw(server, head.encode())
    wait_until(lambda: server.in_flight(60.0) == 0, "nothing is in flight")


def test_a_client_that_leaves_cancels_its_request(server: ServerThread, handler: Handler) -> None:
    head = f"POST /wait HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\ncontent-length: 0\r\n\r\n"
    with _connect(server) as connection:
        connection.sendall(head.encode())
        assert handler.started.wait(60.0)
    assert handler.cancelled.wait(60.0)
    wait_until(lambda: server.in_flight(60.0) == 0, "nothing is in flight")


def test_a_client_that_leaves_closes_its_stream(server: ServerThread, handler: Handler) -> None:
    with httpx.stream("POST", f"{server.url}/stream", headers=_headers(server), timeout=60.0) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces).startswith(b"data: x")
        assert server.in_flight(60.0) == 1
    assert handler.closed.wait(60.0)
    wait_until(lambda: server.in_flight(60.0) == 0, "nothing is in flight")
