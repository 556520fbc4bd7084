"""Several gateway processes behind one address: all get connections, one may die, none loses a record."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atoll.serving.gateway.workers import bind_group, folder_of
from integration.gateway.conftest import KEY, Process
from integration.gateway.control import Control, wait_until
from integration.gateway.engine import Engine
from integration.gateway.wire import chat, read_answer, read_until
from running import processes

END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


@pytest.fixture
def served() -> Iterator[Control]:
    control, engine = Control(), Engine().start()
    control.add_key(KEY)
    control.add_model("tiny", [engine.url])
    control.start()
    yield control
    control.stop()
    engine.stop()


def start(home: Path, served: Control, workers: int, port: int = 0) -> Process:
    process = Process(home, served.url, port, arguments=("--workers", str(workers)))
    process.wait_until_listening()
    wait_until(lambda: ask(process, "up?") == 200, "the model is known")
    folders = [folder_of(home / "gateway", number) for number in range(workers)]
    wait_until(lambda: all((at / "snapshot.json").exists() for at in folders), "every worker knows it")
    return process


def workers_of(process: Process) -> list[int]:
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def send(connection: socket.socket, name: str, **options: Any) -> None:
    request = chat(**options)
    connection.sendall(request.replace(b"\r\n\r\n", b"\r\nx-request-id: %b\r\n\r\n" % name.encode(), 1))


def ask(process: Process, name: str) -> int:
    with socket.create_connection(("127.0.0.1", process.port), 60) as connection:
        send(connection, name)
        return int(read_answer(connection)[0])


class Load:
    """Clients that ask one request a connection until stopped; `answered` are those answered whole."""

    def __init__(self, port: int, clients: int = 6) -> None:
        self.answered: set[str] = set()
        self.broken = 0
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            name = f"load-{client}-{count}"
            try:
                with socket.create_connection(("127.0.0.1", self._port), 60) as connection:
                    send(connection, name, stream=count % 2 == 0)
                    if count % 2 == 0:
                        read_until(connection, END)
                    else:
                        assert read_answer(connection)[0] == 200
                    self.answered.add(name)
            except (OSError, AssertionError):
                self.broken += 1

    def wait_for(self, more: int) -> None:
        floor = len(self.answered) + more
        wait_until(lambda: len(self.answered) >= floor, f"{more} more requests are answered")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def billed(served: Control) -> list[str]:
    return [record["request_id"] for record in list(served.usage.values())]


def test_every_worker_gets_connections_and_kills_lose_no_record(served: Control, tmp_path: Path) -> None:
    process = start(tmp_path, served, 3)
    load = Load(process.port)
    try:
        for turn in range(3):
            load.wait_for(60)
            victim = workers_of(process)[turn % 3]
            os.kill(victim, signal.SIGKILL)
            load.wait_for(60)
            wait_until(lambda gone=victim: len(set(workers_of(process)) - {gone}) == 3, "a new one was started")
        load.wait_for(60)
    finally:
        load.stop()
    wait_until(lambda: load.answered <= set(billed(served)), "every answered request is on the bill")
    assert process.terminate() == 0
    doubled = [name for name, count in Counter(billed(served)).items() if count > 1]
    assert doubled == []
    assert load.broken <= 3 * 6, "only what the killed worker was working on may break"
    by_source = Counter(source for source, _ in served.usage)
    assert len(by_source) == 3 and min(by_source.values()) >= 20
    for source, count in by_source.items():
        assert sorted(seq for name, seq in served.usage if name == source) == list(range(1, count + 1))


def test_connections_of_a_dead_worker_wait_for_its_successor(served: Control, tmp_path: Path) -> None:
    process = start(tmp_path, served, 2)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    assert {ask(process, f"after-{number}") for number in range(12)} == {200}
    assert process.terminate() == 0


def test_workers_end_with_their_supervisor(served: Control, tmp_path: Path) -> None:
    process = start(tmp_path, served, 2)
    process.kill()
    wait_until(lambda: not processes(tmp_path, "atoll.serving.gateway.main"), "the workers have ended")


def test_fewer_workers_bring_home_what_the_others_left(served: Control, tmp_path: Path) -> None:
    process = start(tmp_path, served, 3)
    port = process.port
    served.stop()
    for number in range(30):
        assert ask(process, f"left-{number}") == 200
    process.kill()
    wait_until(lambda: not processes(tmp_path, "atoll.serving.gateway.main"), "the workers have ended")
    assert (tmp_path / "gateway" / "worker-2" / "journal").exists()
    served.start()
    fewer = start(tmp_path, served, 1, port)
    wait_until(lambda: {f"left-{n}" for n in range(30)} <= set(billed(served)), "all records have come")
    wait_until(lambda: not list((tmp_path / "gateway").glob("worker-*")), "nothing is left of the others")
    assert fewer.terminate() == 0
    assert len(billed(served)) == len(set(billed(served)) - {"up?"}) + billed(served).count("up?")


def test_port_in_use_is_told(served: Control, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = Process(tmp_path, served.url, taken.getsockname()[1], arguments=("--workers", "2"))
        _, errors = process.process.communicate(timeout=60)
    assert process.process.returncode != 0
    assert b"cannot listen on 127.0.0.1" in errors


def connect_early(port: int) -> socket.socket:
    while True:
        client = socket.socket()
        if client.connect_ex(("127.0.0.1", port)) == 0:
            return client
        client.close()


def test_client_that_is_early_is_not_reset() -> None:
    with socket.socket() as free, ThreadPoolExecutor(1) as pool:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for _ in range(200):
            early = pool.submit(connect_early, port)
            listeners = bind_group(("127.0.0.1", port), 3)
            with early.result(60):
                assert select.select(listeners, [], [], 60)[0], "one of the workers has the connection"
            for listener in listeners:
                listener.close()


def test_new_worker_serves_while_the_server_is_away(served: Control, tmp_path: Path) -> None:
    process = start(tmp_path, served, 1)
    assert process.terminate() == 0
    served.stop()
    more = Process(tmp_path, served.url, process.port, arguments=("--workers", "3"))
    more.wait_until_listening()
    assert {ask(more, f"alone-{number}") for number in range(12)} == {200}
    assert more.terminate() == 0
