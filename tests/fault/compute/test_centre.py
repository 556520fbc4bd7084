"""The connection to the centre, against servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from atoll.compute.agent.centre import Centre
from atoll.core.errors import AtollError, Conflict, Fenced, Invalid, NotFound, Unauthorized, Unavailable

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves raw answers, one list a connection; each request gets the next, and None hangs up."""
    sockets: list[socket.socket] = []

    def start(*connections: list[bytes | None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        threading.Thread(target=_answer, args=(listener, connections), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/base"

    yield start
    for listener in sockets:
        listener.close()


def _answer(listener: socket.socket, connections: tuple[list[bytes | None], ...]) -> None:
    for answers in connections:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with closing(connection):
            for answer in answers:
                if not _request(connection) or answer is None:
                    break
                connection.sendall(answer)


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    )
    while len(body) < length:
        body += connection.recv(65536)
    return data


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


OK = answer("200 OK", b'{"ok": 1}')


def centre(url: str) -> Centre:
    return Centre(url, lambda: "key")


def test_one_connection_serves_many_posts(serve: Serve) -> None:
    with closing(centre(serve([OK, OK, OK]))) as one:
        assert [one.post("agent/sync", {}) for _ in range(3)] == [{"ok": 1}] * 3


def test_a_kept_connection_the_centre_has_closed_is_opened_again(serve: Serve) -> None:
    with closing(centre(serve([OK, None], [OK]))) as one:
        assert one.post("x", {}) == {"ok": 1}
        assert one.post("x", {}) == {"ok": 1}


def test_a_fresh_connection_that_breaks_is_a_failure(serve: Serve) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        centre(serve([None], [OK])).post("x", {})


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (answer("503 Unavailable", b"", "Retry-After: 7"), Unavailable),
        (answer("500 Oops", b"<html>"), Unavailable),
        (answer("200 OK", b"not json"), Unavailable),
        (answer("200 OK", b"[]"), Unavailable),
        (answer("404 Not Found", b'{"detail": "Not Found"}'), NotFound),
        (answer("404 Not Found", b'{"error": {"code": "node_unknown", "message": "m"}}'), NotFound),
        (answer("401 No", b'{"error": {"code": "unauthorized", "message": "m"}}'), Unauthorized),
        (answer("409 Conflict", b'{"code": "fenced", "message": "m"}'), Fenced),
        (answer("409 Conflict", b'{"error": "x"}'), Conflict),
        (answer("418 Teapot", b""), AtollError),
    ],
)
def test_every_bad_answer_is_an_error_with_a_meaning(serve: Serve, raw: bytes, kind: type[AtollError]) -> None:
    with closing(centre(serve([raw]))) as one, pytest.raises(kind) as caught:
        one.post("x", {})
    assert type(caught.value) is kind
    if b"Retry-After" in raw:
        assert caught.value.details["retry_after_s"] == 7


def test_a_post_that_waits_fails_at_once_when_the_connection_is_ended(serve: Serve) -> None:
    listening = threading.Event()

    def key() -> str:
        listening.set()
        return "key"

    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        one = Centre(f"http://127.0.0.1:{silent.getsockname()[1]}", key)
        failures: list[AtollError] = []

        def post() -> None:
            try:
                one.post("x", {}, answer_timeout_s=600)
            except AtollError as error:
                failures.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        listening.wait(10)
        connection, _ = silent.accept()
        connection.recv(1)
        one.end()
        thread.join(60)
        connection.close()
        one.close()
        assert isinstance(failures[0], Unavailable)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://"])
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(Invalid, match="is not the address of a centre"):
        Centre(url, str)
