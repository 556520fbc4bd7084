"""A gateway in a thread of this process, with a real engine and a real control server on real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvloop

from atoll.serving.gateway.app import Gateway
from atoll.serving.gateway.http import Limits
from atoll.serving.gateway.main import serve
from atoll.serving.gateway.upstream import Origin, Patience
from integration.gateway.control import SYSTEM_KEY, Control, wait_until
from integration.gateway.engine import Engine
from ports import free_port

KEY = "sk-atoll-test"
SHORT = Limits(head_s=0.4, body_idle_s=0.4, idle_s=1.0, write_stall_s=0.5, linger_s=0.5)
IMPATIENT = Patience(connect_s=10.0, first_byte_s=2.0, idle_s=2.0)


class Running:
    """A gateway serving in its own thread; `gateway` may be looked at, `ask` runs a function on its loop."""

    def __init__(self, home: Path, server: str, limits: Limits | None = None, patience: Patience | None = None) -> None:
        self.gateway: Gateway
        self._arguments = (home, server, limits, patience)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._thread.start()
        assert self._ready.wait(60)

    async def _run(self) -> None:
        home, server, limits, patience = self._arguments
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        extra: dict[str, Any] = {"patience": patience} if patience else {}
        self.gateway = Gateway(home, Origin(server), SYSTEM_KEY, limits=limits, **extra)
        self._ready.set()
        await serve(self.gateway, self._listener, self._stop, tick_s=0.05)

    def ask(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def client(self, key: str = KEY, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **options)

    def follow(self, control: Control) -> None:
        """Publish the changed snapshot and return once it is in force."""
        control.publish()
        seen = control.snapshot["seen"]
        wait_until(lambda: self.gateway.directory.snapshot.seen == seen, f"snapshot {seen} has come")

    def wait_for_rest(self) -> None:
        """Return once nothing is under way: no request, call, place, queue, reservation, recording, busy replica."""

        def is_at_rest() -> bool:
            gateway = self.gateway
            busy = [r for r in gateway.directory.snapshot.replicas if r.outstanding]
            calls = [c for c in gateway.client.calls if c.origin is not gateway.server]
            held = gateway.recorder.in_flight + gateway.dispatch.waiting + gateway.purse.waiting
            held += sum(reserved for _, reserved in gateway.purse.figures.values())
            return not (busy or calls or gateway.in_flight or gateway.load_of_key or gateway.body_bytes or held)

        wait_until(lambda: self.ask(is_at_rest), "the gateway is at rest")

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()


class Process:
    """A gateway in a process of its own."""

    def __init__(self, home: Path, server: str, port: int = 0, **options: Any) -> None:
        environment = os.environ | {"ATOLL_SYSTEM_KEY": SYSTEM_KEY} | options.pop("env", {})
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "atoll.serving.gateway.main", "--home", str(home), "--server", server]
        command += ["--listen", f"127.0.0.1:{self.port}", *options.pop("arguments", ())]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **options)

    def wait_until_listening(self) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1].decode()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens, "the gateway listens")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def closed_url() -> Iterator[str]:
    """An address that refuses connections; nobody else gets its port meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def control() -> Iterator[Control]:
    control = Control()
    control.add_key(KEY)
    control.start()
    yield control
    control.stop()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine().start()
    yield engine
    engine.stop()


@pytest.fixture
def start(tmp_path: Path, control: Control) -> Iterator[Callable[..., Running]]:
    """Start a gateway that knows what the control server says by now."""
    started: list[Running] = []

    def start_one(limits: Limits | None = None, patience: Patience | None = None) -> Running:
        running = Running(tmp_path / "gateway", control.url, limits, patience)
        started.append(running)
        wait_until(lambda: running.gateway.directory.origin_of_snapshot == "fresh", "the snapshot has come")
        return running

    yield start_one
    for running in started:
        running.stop()


@pytest.fixture
def gateway(start: Callable[..., Running], control: Control, engine: Engine) -> Running:
    """A gateway with one model, `tiny`, served by `engine`."""
    control.add_model("tiny", [engine.url])
    return start()
