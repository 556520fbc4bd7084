"""The gateway as a process: how it starts, ends, and what kill -9 cannot take from it."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.gateway.conftest import KEY, Process
from integration.gateway.control import SYSTEM_KEY, Control, wait_until
from integration.gateway.engine import CACHED_TOKENS, PROMPT_TOKENS, Engine
from integration.gateway.wire import chat, read_answer, read_until


@pytest.fixture
def served(control: Control, engine: Engine) -> Control:
    control.add_model("tiny", [engine.url])
    return control


@pytest.fixture
def process(served: Control, tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, served.url)
    process.wait_until_listening()
    yield process
    process.kill()


def connect(process: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", process.port), 60)


def is_up(process: Process) -> bool:
    with connect(process) as connection:
        connection.sendall(b"GET /v1/models/tiny HTTP/1.1\r\nauthorization: Bearer %b\r\n\r\n" % KEY.encode())
        return read_answer(connection)[0] == 200


def test_sigterm_lets_answers_end_and_leaves_idle_clients(process: Process, engine: Engine, served: Control) -> None:
    wait_until(lambda: is_up(process), "the model is known")
    engine.hold_at = 2
    with connect(process) as busy, connect(process) as idle:
        busy.sendall(chat(stream=True))
        data = read_until(busy, engine.words[1].encode())
        process.process.terminate()
        assert idle.recv(1) == b""
        with pytest.raises(OSError):
            connect(process)
        engine.released.set()
        read_until(busy, b"data: [DONE]\n\n\r\n0\r\n\r\n", data)
        assert busy.recv(1) == b""
    assert process.process.wait(60) == 0


def test_end_of_the_supervisors_pipe_ends_the_gateway(served: Control, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    reading, writing = os.pipe()
    environment = {"ATOLL_LISTEN_FD": str(listener.fileno()), "ATOLL_PARENT_FD": str(reading)}
    port = listener.getsockname()[1]
    process = Process(tmp_path, served.url, port, env=environment, pass_fds=(listener.fileno(), reading))
    try:
        process.wait_until_listening()
        wait_until(lambda: is_up(process), "the model is known")
        os.close(writing)
        assert process.process.wait(60) == 0
        with connect(process):
            pass  # the supervisor's socket still takes connections for the next gateway
    finally:
        process.kill()
        os.close(reading)
        listener.close()


def test_key_to_the_server_comes_from_a_file(served: Control, tmp_path: Path) -> None:
    file = tmp_path / "system.key"
    file.write_text(f"{SYSTEM_KEY}\n")
    process = Process(tmp_path, served.url, env={"ATOLL_SYSTEM_KEY": ""}, arguments=("--key-file", str(file)))
    try:
        process.wait_until_listening()
        wait_until(lambda: is_up(process), "the model is known")
        assert process.terminate() == 0
    finally:
        process.kill()


def test_second_gateway_on_a_home_refuses_to_start(process: Process, served: Control, tmp_path: Path) -> None:
    second = Process(tmp_path, served.url)
    _, errors = second.process.communicate(timeout=60)
    assert second.process.returncode != 0
    assert b"another gateway writes usage" in errors


def test_gateway_process_is_light(process: Process) -> None:
    loaded = Path(f"/proc/{process.process.pid}/maps").read_text()
    assert not any(name in loaded for name in ("pydantic", "sqlalchemy"))
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    resident_kb = int(status.partition("VmRSS:")[2].split()[0])
    assert resident_kb < 60_000


def test_nothing_is_served_while_usage_cannot_be_written(process: Process, served: Control, tmp_path: Path) -> None:
    def ask() -> int:
        with connect(process) as connection:
            connection.sendall(chat())
            return read_answer(connection)[0]

    wait_until(lambda: is_up(process), "the model is known")
    assert ask() == 200
    (segment,) = (tmp_path / "gateway" / "journal").glob("*.journal")
    _, hard = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (segment.stat().st_size + 10, hard))
    assert ask() == 200, "this one is only found out at its end"
    assert ask() == 503
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_until(lambda: ask() == 200, "usage can be written again")
    assert [record["seq"] for record in served.wait_for_usage(3)] == [1, 2, 3]


def test_kill_9_under_load_loses_and_doubles_no_answered_request(served: Control, tmp_path: Path) -> None:
    """Every answer a client saw whole is on the bill exactly once, over several kills at random moments."""
    chance = random.Random(7)
    answered: set[str] = set()
    stop = threading.Event()
    port = 0

    def load(worker: int) -> None:
        count = 0
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as connection:
                    while not stop.is_set():
                        count += 1
                        name, stream = f"load-{worker}-{count}", count % 3 == 0
                        request = chat(stream=stream)
                        connection.sendall(
                            request.replace(b"\r\n\r\n", b"\r\nx-request-id: %b\r\n\r\n" % name.encode(), 1)
                        )
                        if stream:
                            read_until(connection, b"data: [DONE]\n\n\r\n0\r\n\r\n")
                        else:
                            assert read_answer(connection)[0] == 200
                        answered.add(name)
            except (OSError, AssertionError):
                time.sleep(0.01)

    process = Process(tmp_path, served.url)
    port = process.port
    process.wait_until_listening()
    wait_until(lambda: is_up(process), "the model is known")
    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for kill in range(4):
        before = len(answered)
        wait_until(lambda floor=before: len(answered) > floor + 50, "requests are answered")
        served.loses_confirmations = kill % 2
        time.sleep(chance.random() * 0.1)
        process.kill()
        process = Process(tmp_path, served.url, port)
        process.wait_until_listening()
    stop.set()
    for thread in threads:
        thread.join()
    billed = lambda: [record["request_id"] for record in served.wait_for_usage(1)]  # noqa: E731
    wait_until(lambda: answered <= set(billed()), "every answered request is on the bill")
    assert process.terminate() == 0
    identifiers = billed()
    assert len(identifiers) == len(set(identifiers)), "a request was billed twice"
    sources = {source for source, _ in served.usage}
    assert len(sources) == 1
    assert sorted(seq for _, seq in served.usage) == list(range(1, len(served.usage) + 1))


def test_request_a_kill_9_interrupted_is_on_the_bill(served: Control, engine: Engine, tmp_path: Path) -> None:
    """What a client was sent before the gateway died is charged by the next gateway of the same home, once."""
    served.add_budget("b-1", {"tokens": 100_000})
    served.add_key(KEY, budgets={"default": ["b-1"]})
    process = Process(tmp_path, served.url)
    process.wait_until_listening()
    wait_until(lambda: is_up(process), "the model is known")
    engine.hold_at = 3
    with connect(process) as connection:
        connection.sendall(chat(stream=True, max_tokens=50))
        read_until(connection, engine.words[2].encode())
        process.kill()
    engine.hold_at = None
    engine.released.set()
    again = Process(tmp_path, served.url, process.port)
    try:
        (record,) = served.wait_for_usage(1)
        counted = record["prompt_tokens"], record["completion_tokens"], record["cached_tokens"]
        assert (record["status"], counted) == ("lost", (PROMPT_TOKENS, 3, CACHED_TOKENS))
        assert list(record["slices"].values()) == [PROMPT_TOKENS + 3]
        assert record["key_id"] == "key-1" and record["stream"] is True
        again.wait_until_listening()
        with connect(again) as connection:
            connection.sendall(chat(max_tokens=50))
            assert read_answer(connection)[0] == 200
        assert len(served.wait_for_usage(2)) == 2
        assert served.ledger.spent["b-1", "tokens"] == 2 * PROMPT_TOKENS + 3 + len(engine.words)
        wait_until(lambda: served.ledger.held < 100_000, "the dead gateway's slices are taken back")
        assert served.ledger.overspent == 0
    finally:
        again.kill()
