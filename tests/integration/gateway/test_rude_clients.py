"""Clients that are slow, greedy, malformed or gone get what they deserve and leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable

import pytest

from atoll.serving.gateway.http import Limits
from integration.gateway.conftest import SHORT, Running
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import Engine
from integration.gateway.wire import chat, post, read_answer, read_to_end, read_until

Start = Callable[..., Running]
GET = b"GET /v1/models HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-atoll-test\r\n\r\n"


@pytest.fixture
def strict(start: Start, control: Control, engine: Engine) -> Running:
    """A gateway with short times for clients."""
    control.add_model("tiny", [engine.url])
    return start(limits=SHORT)


def no_connection_is_left(gateway: Running) -> None:
    wait_until(lambda: not gateway.gateway.http.connections, "every client connection is closed")
    gateway.wait_for_rest()


def test_pipelined_requests_are_answered_in_order(gateway: Running, engine: Engine) -> None:
    with gateway.connect() as connection:
        connection.sendall(chat() + GET + chat(stream=True) + GET)
        status, _, first, rest = read_answer(connection)
        assert status == 200 and b"chat.completion" in first
        status, _, second, rest = read_answer(connection, rest)
        assert status == 200 and b'"list"' in second
        rest = read_until(connection, b"\r\n0\r\n\r\n", rest).partition(b"\r\n0\r\n\r\n")[2]
        status, _, fourth, rest = read_answer(connection, rest)
        assert (status, rest) == (200, b"") and fourth == second
    assert len(engine.requests) == 2


def test_requests_pipelined_while_an_answer_is_under_way_wait(gateway: Running, engine: Engine) -> None:
    engine.hold_at = 0
    with gateway.connect() as connection:
        connection.sendall(chat())
        engine.wait_for("active", 1)
        for _ in range(3):
            connection.sendall(GET)
        engine.released.set()
        rest = b""
        for kind in (b"chat.completion", b'"list"', b'"list"', b'"list"'):
            status, _, body, rest = read_answer(connection, rest)
            assert status == 200 and kind in body


def test_request_arriving_byte_by_byte_is_served(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in chat():
            connection.sendall(bytes([byte]))
        assert read_answer(connection)[0] == 200


def test_chunked_body_is_understood(gateway: Running, engine: Engine) -> None:
    body = chat().partition(b"\r\n\r\n")[2]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-atoll-test\r\n"
    with gateway.connect() as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        for piece in (body[:10], body[10:]):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        assert read_answer(connection)[0] == 200
    assert engine.requests == [json.loads(body)]


def test_body_is_asked_for_with_100_continue(gateway: Running) -> None:
    head, _, body = chat().partition(b"\r\n\r\n")
    with gateway.connect() as connection:
        connection.sendall(head + b"\r\nexpect: 100-continue\r\n\r\n")
        read_until(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(body)
        assert read_answer(connection)[0] == 200


def test_body_of_a_refused_request_is_not_asked_for(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.sendall(post(b"", key="sk-wrong", extra=b"expect: 100-continue\r\n"))
        assert read_answer(connection)[0] == 401
        connection.sendall(chat())
        assert read_answer(connection)[0] == 200


def test_early_refusal_keeps_the_connection_in_step(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.sendall(post(b"x" * 300_000, key="sk-wrong") + chat())
        status, _, _, rest = read_answer(connection)
        assert status == 401
        assert read_answer(connection, rest)[0] == 200


@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit_is_413(control: Control, gateway: Running, engine: Engine, announced: bool) -> None:
    control.snapshot["limits"] = {"body_bytes_max": 100_000}
    gateway.follow(control)
    body = b"x" * 150_000
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-atoll-test\r\n"
    with gateway.connect() as connection:
        connection.sendall(post(body) if announced else head + b"transfer-encoding: chunked\r\n\r\n" + chunked)
        status, _, answer, rest = read_answer(connection)
        assert status == 413 and b"100000" in answer
        connection.sendall(chat())
        assert read_answer(connection, rest)[0] == 200
    gateway.wait_for_rest()


def test_upgrade_is_ignored_and_the_request_served(gateway: Running) -> None:
    extra = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    body = chat().partition(b"\r\n\r\n")[2]
    with gateway.connect() as connection:
        for _ in range(2):
            connection.sendall(post(body, extra=extra))
            status, _, answer, _ = read_answer(connection)
            assert status == 200 and b"chat.completion" in answer


def test_http10_client_gets_its_stream_until_the_connection_closes(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0"))
        data = read_to_end(connection)
    assert b"transfer-encoding" not in data and data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /v1/models HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked") + b"2\r\n{}\r\nZZ\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\nZZ\r\n", b"400"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 12_000, b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 70_000, b"431"),
        (b"GET /" + b"b" * 70_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 12_000 + b"\r\n", b"431"),
    ],
)
def test_what_is_no_request_is_refused(gateway: Running, data: bytes, status: bytes) -> None:
    with gateway.connect() as connection:
        connection.sendall(data)
        answer = read_until(connection, b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection)
    no_connection_is_left(gateway)


def test_flood_of_chunk_trailers_is_refused(gateway: Running) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer sk-atoll-test\r\n"
    with gateway.connect() as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        try:
            for _ in range(100):
                connection.sendall(b"t: " + b"x" * 10_000)
        except OSError:
            pass
        read_to_end(connection)
    no_connection_is_left(gateway)


def test_too_many_pipelined_requests_end_the_connection(gateway: Running) -> None:
    with gateway.connect() as connection:
        connection.sendall(GET * 100)
        data = read_to_end(connection)
    assert b"100 requests" not in data and b"HTTP/1.1 400" in data
    no_connection_is_left(gateway)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /v1/mod",
        b"GET /v1/models HTTP/1.1\r\nhost: g\r\n",
        post(b"")[:-4] + b"\r\ncontent-length: 100\r\n\r\n{",
        chat()[:-5],
        GET,
    ],
)
def test_slow_or_idle_client_is_closed(strict: Running, data: bytes) -> None:
    with strict.connect() as connection:
        connection.settimeout(60)
        connection.sendall(data)
        read_to_end(connection)
    no_connection_is_left(strict)


def test_more_connections_than_allowed_are_turned_away(start: Start, control: Control) -> None:
    gateway = start(limits=Limits(connections_max=2))
    with gateway.connect() as first, gateway.connect() as second, gateway.connect() as third:
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert read_answer(connection)[0] == 200
        assert read_answer(third)[0] == 503


def test_slow_sender_is_told_408(start: Start, control: Control, engine: Engine) -> None:
    control.add_model("tiny", [engine.url])
    with start(limits=Limits(body_idle_s=0.4)).connect() as connection:
        connection.sendall(chat()[:-5])
        assert read_to_end(connection).startswith(b"HTTP/1.1 408")


def test_client_that_never_reads_loses_its_stream_and_the_engine_is_freed(
    start: Start, control: Control, engine: Engine
) -> None:
    control.add_model("tiny", [engine.url])
    gateway = start(limits=Limits(write_stall_s=0.5))
    engine.words = tuple(f"{i:04}" + "x" * 60_000 for i in range(400))
    with gateway.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(chat(stream=True))
        engine.wait_for("disconnects", 1)
        (record,) = control.wait_for_usage(1)
        assert record["status"] == "cancelled" and 0 < record["completion_tokens"] < 400
        no_connection_is_left(gateway)


def test_slow_reader_gets_everything(gateway: Running, engine: Engine, control: Control) -> None:
    engine.words = tuple(f"<{i}>" + "x" * 150_000 for i in range(100))
    with gateway.connect() as connection:
        connection.sendall(chat(stream=True))
        connections = gateway.gateway.http.connections
        wait_until(lambda: gateway.ask(lambda: any(c._is_stalled for c in connections)), "the gateway waits")
        data = read_until(connection, b"0\r\n\r\n")
    assert [data.count(b"<%d>" % i) for i in range(100)] == [1] * 100
    (record,) = control.wait_for_usage(1)
    assert (record["status"], record["completion_tokens"]) == ("ok", 100)


def test_storm_of_leaving_clients_leaves_nothing(gateway: Running, engine: Engine, control: Control) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    engine.hold_at = 1

    def come_and_go(kind: int) -> None:
        with gateway.connect() as connection:
            connection.sendall((chat(stream=True), chat(stream=True), chat()[:-3], GET)[kind])
            if kind == 0:
                read_until(connection, engine.words[0].encode())

    def storm() -> None:
        threads = [threading.Thread(target=come_and_go, args=(i % 4,)) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: not gateway.gateway.http.connections, "every client is gone")
        gateway.wait_for_rest()
        wait_until(lambda: engine.active == 0, "the engine is free")

    storm()
    links = gateway.gateway.client.links
    kept = lambda: all(k.call or k.keep_until < 1e9 for k in links)  # noqa: E731
    wait_until(lambda: gateway.ask(kept), "no connection is lost")
    before = descriptors()
    storm()
    wait_until(lambda: descriptors() <= before + 2, "no descriptor is left open")
    assert engine.active == 0
