"""One question on a kept connection: what was answered, and what went wrong where."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from atoll.core.door import AGAIN_S_MAX, AWAY, CUT_OFF, NOT_JSON, TOO_LONG, Door

Answer = tuple[int, bytes, dict[str, str]]
GOOD: Answer = (200, b'{"a": 1}', {})


class Desk(ThreadingHTTPServer):
    """Gives `answers` in turn, the last one for ever, and keeps what it was asked, with the asker's port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.answers: list[Answer] = [GOOD]
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.ports: list[int] = []
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.hung_up.set()


class Clerk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Desk

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}))
        self.server.ports.append(self.client_address[1])
        answers = self.server.answers
        status, data, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = "X-Hang-Up" in headers


Open = Callable[..., Door]


@pytest.fixture
def desk() -> Iterator[Desk]:
    server = Desk()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def enter(desk: Desk) -> Iterator[Open]:
    made: list[Door] = []

    def open_one(path: str = "", **options: Any) -> Door:
        made.append(Door(desk.url + path, "sk-1", **{"timeout_s": 20.0, **options}))
        return made[-1]

    yield open_one
    for door in made:
        door.close()


def refused(message: str = "no", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


def test_a_question_carries_its_key_and_headers_and_is_asked_once(desk: Desk, enter: Open) -> None:
    desk.answers = [(201, b'{"made": [1]}', {"X-Request-Id": "r7"})]
    reply = enter("/base/", headers={"X-Own": "always"}).call("POST", "/things?a=b", b"[]", {"X-Own": "now"})
    assert (reply.status, reply.body, reply.request_id, reply.again_s) == (201, {"made": [1]}, "r7", 0.0)
    assert reply.is_good and not (reply.is_push_back or reply.is_broken or reply.is_exhausted)
    ((method, path, body, headers),) = desk.asked
    assert (method, path, body) == ("POST", "/base/things?a=b", b"[]")
    assert (headers["authorization"], headers["content-type"]) == ("Bearer sk-1", "application/json")
    assert headers["x-own"] == "now"


def test_a_connection_is_kept_from_question_to_question(desk: Desk, enter: Open) -> None:
    desk.answers = [GOOD, (404, refused(), {}), (502, b"<html>", {}), GOOD]
    door = enter()
    assert [door.call("GET", "/").status for _ in range(4)] == [200, 404, 502, 200]
    assert len(set(desk.ports)) == 1
    assert "content-type" not in desk.asked[0][3]


def test_a_connection_the_door_hung_up_in_between_loses_no_question(desk: Desk, enter: Open) -> None:
    desk.answers = [(200, b"{}", {"X-Hang-Up": "1"}), GOOD]
    door = enter()
    assert door.call("GET", "/").is_good
    assert desk.hung_up.wait(20)
    assert door.call("POST", "/", b"{}").body == {"a": 1}
    assert len(desk.asked) == len(set(desk.ports)) == 2


@pytest.mark.parametrize(
    ("status", "claims"),
    [
        (429, {"is_push_back"}),
        (503, {"is_push_back"}),
        (500, {"is_broken"}),
        (502, {"is_broken"}),
        (504, {"is_broken"}),
        (401, set()),
        (402, set()),
        (404, set()),
    ],
)
def test_a_refusal_says_whether_it_is_for_good(desk: Desk, enter: Open, status: int, claims: set[str]) -> None:
    desk.answers = [(status, refused("full"), {})]
    reply = enter().call("GET", "/")
    names = ("is_good", "is_push_back", "is_broken", "is_exhausted")
    assert {name for name in names if getattr(reply, name)} == claims
    assert reply.words == f"{status}: full"


@pytest.mark.parametrize("status", [402, 429])
def test_a_budget_that_is_used_up_is_told_from_a_busy_door(desk: Desk, enter: Open, status: int) -> None:
    desk.answers = [(status, refused(code="insufficient_quota"), {}), (status, refused(code="slow_down"), {})]
    door = enter()
    assert [door.call("GET", "/").is_exhausted for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("said", "again_s"),
    [("7", 7.0), ("0", 0.0), ("86400", AGAIN_S_MAX), ("soon", 2.5), ("-1", 2.5), ("\u00b2", 2.5), ("1" * 400, 15.0)],
)
def test_it_is_left_alone_as_long_as_it_says_up_to_a_limit(desk: Desk, enter: Open, said: str, again_s: float) -> None:
    desk.answers = [(503, b"{}", {"Retry-After": said})]
    assert enter(again_s=2.5).call("GET", "/").again_s == again_s


@pytest.mark.parametrize("data", [b"", b"<html>bad</html>", b"[1]", b'"a"', b'{"a": 1', b"\xff\xfe"])
def test_a_good_answer_that_is_no_json_object_is_broken(desk: Desk, enter: Open, data: bytes) -> None:
    desk.answers = [(200, data, {}), GOOD]
    door = enter()
    reply = door.call("GET", "/")
    assert (reply.status, reply.is_good, reply.is_broken, reply.is_push_back) == (NOT_JSON, False, True, False)
    assert reply.words.startswith("the answer is not a JSON object")
    assert door.call("GET", "/").is_good


def test_a_refusal_that_is_no_json_keeps_its_status_and_is_shown(desk: Desk, enter: Open) -> None:
    desk.answers = [(502, b"<html>bad" + b"!" * 9999, {}), (401, b"\xffwho?", {}), (418, b'{"detail": 3}', {})]
    door = enter()
    replies = [door.call("GET", "/") for _ in range(3)]
    assert [reply.status for reply in replies] == [502, 401, 418]
    assert replies[0].words.startswith("502: <html>bad!") and len(replies[0].words) < 600
    assert replies[1].body["error"]["message"] == "\ufffdwho?"
    assert (replies[2].words, replies[2].body) == ('418: {"detail": 3}', {"detail": 3})


@pytest.mark.parametrize("headers", [{"Content-Length": "4000"}, {"Transfer-Encoding": "chunked"}])
def test_an_answer_that_ends_before_its_time_is_cut_off(desk: Desk, enter: Open, headers: dict[str, str]) -> None:
    part = b'{"a": 1}' if "Content-Length" in headers else b'ff\r\n{"a": 1}'
    desk.answers = [(200, part, {**headers, "X-Hang-Up": "1"}), GOOD]
    door = enter()
    reply = door.call("GET", "/")
    assert (reply.status, reply.is_broken, reply.is_push_back) == (CUT_OFF, True, False)
    assert reply.words.startswith("the answer was cut off: ")
    assert door.call("GET", "/").is_good


def test_an_answer_that_does_not_come_in_time_is_cut_off(desk: Desk, enter: Open) -> None:
    desk.answers = [(200, b"{", {"Content-Length": "9"})]
    reply = enter(timeout_s=0.05).call("GET", "/")
    assert (reply.status, reply.words) == (CUT_OFF, "the answer was cut off: TimeoutError: timed out")


def test_an_answer_may_be_as_long_as_the_limit_and_no_longer(desk: Desk, enter: Open) -> None:
    desk.answers = [(200, b'{"a": 1}', {}), (200, b'{"a": 12}', {}), (500, b'{"a": 12}', {}), GOOD]
    door = enter(answer_bytes_max=8)
    replies = [door.call("GET", "/") for _ in range(4)]
    assert [reply.status for reply in replies] == [200, TOO_LONG, TOO_LONG, 200]
    assert (replies[1].is_broken, replies[1].words) == (True, "the answer is longer than 8 bytes")


def test_a_door_that_is_not_there_may_be_asked_later() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with closing(Door(f"http://127.0.0.1:{taken.getsockname()[1]}", "sk-1", again_s=3.0)) as door:
            reply = door.call("POST", "/", b"{}")
    assert (reply.status, reply.is_push_back, reply.is_broken, reply.again_s) == (AWAY, True, False, 3.0)
    assert reply.words.startswith("the door was not reached: ConnectionRefusedError")
    assert reply.body["error"]["message"] == reply.words


def test_who_speaks_another_language_than_http_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with closing(Door(f"http://127.0.0.1:{listener.getsockname()[1]}", "sk-1", timeout_s=20.0)) as door:
            assert door.call("GET", "/").status == CUT_OFF
        thread.join()
