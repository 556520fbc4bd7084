"""What is not the gateway's own passes to the server and back, unchanged and at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from integration.gateway.conftest import Running
from integration.gateway.control import Control, wait_until
from integration.gateway.wire import read_answer, read_to_end, read_until

Start = Callable[..., Running]


@pytest.fixture
def running(start: Start) -> Running:
    return start()


def test_request_passes_with_its_end_to_end_headers(running: Running, control: Control) -> None:
    with running.connect() as connection:
        connection.sendall(
            b"GET /console/pages?a=1&b=%20 HTTP/1.1\r\nHost: platform.example\r\nCookie: s=1\r\nX-Odd: one\r\n"
            b"Connection: keep-alive, X-Odd\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"
        )
        status, headers, body, _ = read_answer(connection)
    assert (status, json.loads(body)["path"]) == (200, "/console/pages?a=1&b=%20")
    assert headers["x-request-id"]
    seen = next(headers for _, path, headers in control.requests if path.startswith("/console"))
    assert (seen["Host"], seen["Cookie"]) == ("platform.example", "s=1")
    assert not {"X-Odd", "TE", "Connection"} & set(seen)
    assert seen["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"


@pytest.mark.parametrize("method", [b"PUT", b"DELETE", b"PATCH", b"POST"])
def test_methods_and_bodies_pass(running: Running, control: Control, method: bytes) -> None:
    with running.connect() as connection:
        connection.sendall(b"%b /api/v1/x HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\n\r\nhello" % method)
        assert json.loads(read_answer(connection)[2]) == {"method": method.decode(), "path": "/api/v1/x", "bytes": 5}
    assert control.bodies["/api/v1/x"] == b"hello"


def test_head_has_a_length_and_no_body(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"HEAD /x HTTP/1.1\r\nhost: g\r\n\r\n")
        data = read_until(connection, b"\r\n\r\n")
        assert b"content-length: " in data and data.endswith(b"\r\n\r\n")
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n")
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_large_upload_streams_through(running: Running, control: Control, chunked: bool) -> None:
    piece, count = b"0123456789abcdef" * 4096, 300
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (len(piece) * count)
    with running.connect() as connection:
        connection.sendall(b"POST /upload HTTP/1.1\r\nhost: g\r\n%b\r\n\r\n" % framing)
        for _ in range(count):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        assert json.loads(read_answer(connection)[2])["bytes"] == len(piece) * count
    assert control.bodies["/upload"] == piece * count


def test_events_pass_one_by_one_and_end_with_the_client(running: Running, control: Control) -> None:
    go, gone = threading.Event(), threading.Event()

    def events(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b"data: 1\n\n")
        go.wait(60)
        handler.wfile.write(b"data: 2\n\n")
        gone.set() if handler.connection.recv(1) == b"" else None

    control.routes["/events"] = events
    with running.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nhost: g\r\n\r\n")
        data = read_until(connection, b"data: 1\n\n")
        assert b"text/event-stream" in data and b"data: 2" not in data
        go.set()
        read_until(connection, b"data: 2\n\n")
    assert gone.wait(60)


def test_lost_request_that_may_have_done_something_is_not_repeated(running: Running, control: Control) -> None:
    done: list[str] = []

    def lost(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        done.append(handler.command)
        handler.close_connection = True

    control.routes["/lost"] = lost
    with running.connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n")
        assert read_answer(connection)[0] == 200
        connection.sendall(b"POST /lost HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n")
        assert read_answer(connection)[0] == 503
    assert done == ["POST"]


def test_connection_with_a_half_sent_upload_is_not_used_again(running: Running, control: Control) -> None:
    with running.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nhost: g\r\ncontent-length: 10\r\n\r\n")
        assert read_answer(connection)[0] == 413
        connection.sendall(b"0123456789GET /x HTTP/1.1\r\nhost: g\r\n\r\n")
        assert json.loads(read_answer(connection)[2])["path"] == "/x"


def test_answer_without_length_ends_properly(running: Running, control: Control) -> None:
    def plain(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.wfile.write(b"until the end")

    control.routes["/plain"] = plain
    with running.connect() as connection:
        connection.sendall(b"GET /plain HTTP/1.1\r\nhost: g\r\n\r\n")
        data = read_until(connection, b"0\r\n\r\n")
        assert b"until the end" in data
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n")
        assert read_answer(connection)[0] == 200


def test_answer_that_breaks_off_is_seen_to(running: Running, control: Control) -> None:
    def torn(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    control.routes["/torn"] = torn
    with running.connect() as connection:
        connection.sendall(b"GET /torn HTTP/1.1\r\nhost: g\r\n\r\n")
        data = read_to_end(connection)
    assert b"content-length: 100" in data and data.endswith(b"half")


def test_server_that_is_down_is_503(running: Running, control: Control) -> None:
    control.stop()
    with running.connect() as connection:
        for request in (
            b"GET /console HTTP/1.1\r\nhost: g\r\n\r\n",
            b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        ):
            connection.sendall(request)
            status, headers, body, _ = read_answer(connection)
            assert status == 503 and int(headers["retry-after"]) >= 1
            assert json.loads(body)["error"]["code"] == "server_unavailable"
    control.start()

    def passes() -> bool:
        with running.connect() as connection:
            connection.sendall(b"GET /console HTTP/1.1\r\nhost: g\r\n\r\n")
            return read_answer(connection)[0] == 200

    wait_until(passes, "the server is reached again")


def test_metrics_count_what_passed(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n")
        read_answer(connection)
        connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: g\r\n\r\n")
        status, headers, body, _ = read_answer(connection)
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'atoll_gateway_requests_total{route="proxy",model="",status="200"} 1\n' in body


def test_metrics_are_not_for_strangers(running: Running) -> None:
    with running.connect() as connection:
        for key, expected in ((b"sk-atoll-test", 401), (b"system-key", 200)):
            connection.sendall(
                b"GET /metrics HTTP/1.1\r\nx-forwarded-for: 10.0.0.9\r\nauthorization: Bearer %b\r\n\r\n" % key
            )
            assert read_answer(connection)[0] == expected
