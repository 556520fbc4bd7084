"""A replica that fails is replaced before the client notices, and never after."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from atoll.serving.gateway import upstream
from atoll.serving.gateway.exchange import ATTEMPTS_MAX
from atoll.serving.router import circuit_break_s
from integration.gateway.conftest import IMPATIENT, Running
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import PROMPT_TOKENS, WORDS, Engine

Start = Callable[..., Running]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def other() -> Iterator[Engine]:
    other = Engine().start()
    yield other
    other.stop()


def chat(gateway: Running, stream: bool = False) -> str:
    with gateway.client() as client:
        if stream:
            chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
            return "".join(c.choices[0].delta.content or "" for c in chunks)
        return client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content or ""


def test_requests_spread_over_replicas(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    for _ in range(6):
        chat(gateway)
    assert (len(engine.requests), len(other.requests)) == (3, 3)


def test_busy_replica_is_avoided(start: Start, control: Control, engine: Engine, other: Engine) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.hold_at = other.hold_at = 1
    with gateway.client() as client:
        held = client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        next(iter(held))
        busy, free = (engine, other) if engine.requests else (other, engine)
        free.hold_at = None
        for _ in range(4):
            chat(gateway)
        assert (len(busy.requests), len(free.requests)) == (1, 4)
        held.close()
    gateway.wait_for_rest()


@pytest.mark.parametrize("stream", [False, True])
def test_refused_connection_goes_to_another_replica(
    start: Start, control: Control, engine: Engine, closed_url: str, stream: bool
) -> None:
    control.add_model("tiny", [closed_url, engine.url])
    gateway = start()
    for _ in range(4):
        assert chat(gateway, stream) == "".join(WORDS)
    gateway.wait_for_rest()


@pytest.mark.parametrize("stream", [False, True])
def test_5xx_goes_to_another_replica(
    start: Start, control: Control, engine: Engine, other: Engine, stream: bool
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.refusals = [(500, b'{"error":{"message":"out of memory"}}')]
    for _ in range(2):
        assert chat(gateway, stream) == "".join(WORDS)
    assert len(engine.requests) + len(other.requests) == 3


def test_5xx_of_the_only_replica_is_502(gateway: Running, engine: Engine, control: Control) -> None:
    engine.refusals = [(500, b'{"error":{"message":"out of memory","type":"server_error"}}')]
    with pytest.raises(openai.InternalServerError, match="out of memory") as caught:
        chat(gateway)
    assert caught.value.status_code == 502
    (record,) = control.wait_for_usage(1)
    assert (record["status"], record["http_status"]) == ("error", 502)


def test_loading_engine_is_503_with_retry_after(gateway: Running, engine: Engine) -> None:
    engine.refusals = [(503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}')]
    with pytest.raises(openai.InternalServerError, match="Loading model") as caught:
        chat(gateway)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "1"


def test_wrong_engine_key_is_not_the_clients_fault(gateway: Running, engine: Engine) -> None:
    engine.refusals = [(401, b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}')]
    with pytest.raises(openai.InternalServerError) as caught:
        chat(gateway)
    assert caught.value.status_code == 502


def test_engines_own_400_passes(gateway: Running, engine: Engine) -> None:
    engine.refusals = [(400, b'{"error":{"code":400,"message":"bad grammar","type":"invalid_request_error"}}')]
    with pytest.raises(openai.BadRequestError, match="bad grammar"):
        chat(gateway)


def test_engines_closing_without_an_answer_are_each_asked_once(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.drops = other.drops = 1
    with pytest.raises(openai.InternalServerError) as caught:
        chat(gateway)
    assert caught.value.status_code == 502
    assert chat(gateway) == "".join(WORDS)


HELD = {"queue_max": 10, "wait_s": 60}


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_its_only_replica_died_over_waits_for_the_next(
    start: Start, control: Control, engine: Engine, other: Engine, stream: bool
) -> None:
    """As in a rolling update: the old one goes with a request before the gateway has heard of the new one."""
    control.add_model("tiny", [engine.url], hold=HELD)
    gateway = start()
    engine.hold_at = 0
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(chat(gateway, stream)))
    asking.start()
    wait_until(lambda: len(engine.requests) == 1, "the old replica has the request")
    engine.stop()
    wait_until(lambda: gateway.ask(lambda: gateway.gateway.dispatch.waiting) == 1, "the request waits")
    control.add_model("tiny", [other.url], hold=HELD)
    gateway.follow(control)
    asking.join(60)
    assert answers == ["".join(WORDS)]
    assert len(other.requests) == 1
    gateway.wait_for_rest()


def test_a_request_that_ends_every_replica_is_not_asked_for_ever(
    start: Start, control: Control, engine: Engine
) -> None:
    control.add_model("tiny", [engine.url], hold=HELD)
    gateway = start()
    engine.drops = 100
    with pytest.raises(openai.InternalServerError) as caught:
        chat(gateway)
    assert (caught.value.status_code, 100 - engine.drops) == (502, ATTEMPTS_MAX)
    gateway.wait_for_rest()


def test_connection_that_went_stale_is_replaced_unseen(gateway: Running, engine: Engine) -> None:
    assert chat(gateway) == "".join(WORDS)
    connections = engine.connections
    engine.close_connections()
    assert chat(gateway) == "".join(WORDS)
    assert engine.connections == connections + 1
    gateway.wait_for_rest()


def test_connections_are_kept(gateway: Running, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "KEPT_S", 600.0)
    for _ in range(5):
        chat(gateway)
    assert engine.connections == 1


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_failure_hangs_nobody_and_frees_everything(
    gateway: Running, control: Control, engine: Engine, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    control.add_model("tiny", [engine.url], price={"note": "d" * 100_000})  # a record too large for the journal
    gateway.follow(control)
    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        chat(gateway, stream)
    assert "could not be passed on" in caplog.text
    gateway.wait_for_rest()
    control.add_model("tiny", [engine.url])
    gateway.follow(control)
    assert chat(gateway, stream) == "".join(WORDS)


def test_restarted_engine_is_found_again(gateway: Running, engine: Engine) -> None:
    chat(gateway)
    engine.stop()
    with pytest.raises(openai.InternalServerError, match="none accepts connections") as caught:
        chat(gateway)
    assert caught.value.status_code == 503
    engine.start()

    def answers() -> bool:
        try:
            return chat(gateway) == "".join(WORDS)
        except openai.InternalServerError:
            return False

    wait_until(answers, "the engine is used again")


def test_broken_replica_is_left_alone_for_a_while(
    start: Start, control: Control, engine: Engine, closed_url: str
) -> None:
    control.add_model("tiny", [closed_url, engine.url])
    gateway = start()
    since = time.monotonic()
    for _ in range(20):
        chat(gateway)
    failed = gateway.gateway.metrics.upstream_errors["tiny", "connect_failed"]
    assert failed > 0
    breaks_s = [circuit_break_s(failures) for failures in range(1, failed)]
    assert sum(breaks_s) <= time.monotonic() - since


def test_silent_engine_is_504_and_not_asked_twice(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start(patience=IMPATIENT)
    engine.hold_at = other.hold_at = 0
    with pytest.raises(openai.InternalServerError) as caught:
        chat(gateway)
    assert caught.value.status_code == 504
    assert len(engine.requests) + len(other.requests) == 1
    gateway.wait_for_rest()


def test_engine_dying_while_it_reads_the_prompt_is_replaced(
    start: Start, control: Control, engine: Engine, other: Engine
) -> None:
    control.add_model("tiny", [engine.url, other.url])
    gateway = start()
    engine.hold_at = other.hold_at = 0  # the progress event has come, no token yet
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(chat(gateway, stream=True)))
    asking.start()
    wait_until(lambda: engine.active or other.active, "an engine has the request")
    first, second = (engine, other) if engine.active else (other, engine)
    second.hold_at = None
    first.stop()
    asking.join(60)
    assert answers == ["".join(WORDS)]
    assert len(second.requests) == 1
    gateway.wait_for_rest()
    (record,) = control.wait_for_usage(1)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_replica_that_ends_with_a_request_is_replaced_by_one_that_came_meanwhile(
    start: Start, control: Control, engine: Engine, other: Engine, stream: bool, is_kept: bool
) -> None:
    """A rolling update: when the old replica loses the request, the gateway knows the new one already."""
    control.add_model("tiny", [engine.url], hold={"queue_max": 9, "wait_s": 60})
    gateway = start()
    if is_kept:
        chat(gateway)
    engine.hold_at = -1 if stream else 0
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(chat(gateway, stream)))
    asking.start()
    engine.wait_for("active", 1)
    control.add_model("tiny", [other.url], hold={"queue_max": 9, "wait_s": 60})
    gateway.follow(control)
    engine.stop()
    asking.join(60)
    assert answers == ["".join(WORDS)]
    gateway.wait_for_rest()


def test_engine_dying_inside_an_event_leaves_nothing_of_it(start: Start, control: Control, engine: Engine) -> None:
    """Half an event of the first engine must not end up before the second one's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control.add_model("tiny", [f"http://127.0.0.1:{listener.getsockname()[1]}", engine.url])
        gateway = start()

        asked = threading.Event()

        def die_inside_an_event() -> None:
            connection, _ = listener.accept()
            asked.set()
            with connection:
                connection.recv(65536)
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                connection.sendall(head + b'e\r\ndata: {"choice\r\n')

        dying = threading.Thread(target=die_inside_an_event)
        dying.start()
        while not asked.is_set():
            assert chat(gateway, stream=True) == "".join(WORDS)
        dying.join()
