"""A real server and real gateway workers on one home, killed and started again as a test wishes, and load on them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from atoll.core.database import Database
from atoll.governance.ledger import Ledger
from atoll.sdk import Client, resolve_credentials
from atoll.server.processes import bind
from atoll.serving.gateway.workers import bind_group
from integration.gateway.control import wait_until
from integration.gateway.engine import Engine
from integration.gateway.wire import post, read_answer, read_until

END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


class Fleet:
    """`server` and `gateway-0`, `gateway-1`, …; sockets stay open here, as with a supervisor."""

    def __init__(self, home: Path, workers: int) -> None:
        self.home = home
        home.mkdir(parents=True)
        inner, self._doors = bind("127.0.0.1", 0), bind_group(("127.0.0.1", 0), workers)
        self.port = self._doors[0].getsockname()[1]
        self._sockets = {"server": inner, **{f"gateway-{i}": door for i, door in enumerate(self._doors)}}
        self._inner = f"http://127.0.0.1:{inner.getsockname()[1]}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}
        self._log = (home / "fleet.log").open("ab")
        (home / "run").mkdir()
        (home / "run" / "system.key").write_text("sk-atoll-system-of-the-fleet")
        for name in self._sockets:
            self.start(name)
        wait_until(lambda: (home / "credentials.toml").exists(), "the server has begun", 120)
        self.key = resolve_credentials(home=home, environment={}).key
        self._database = Database(f"sqlite:///{home / 'atoll.db'}")

    @property
    def names(self) -> list[str]:
        return list(self._sockets)

    def start(self, name: str) -> None:
        kind, _, number = name.partition("-")
        command = ["atoll.server.main", "--home", str(self.home)]
        if kind == "gateway":
            command = ["atoll.serving.gateway.main", "--home", str(self.home), "--server", self._inner]
            command += ["--worker", number, "--workers", str(len(self._doors))]
        listener = self._sockets[name].fileno()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ATOLL_")}
        environment |= {"ATOLL_LISTEN_FD": str(listener), "OMP_NUM_THREADS": "1"}
        environment |= {"ATOLL_SYSTEM_KEY": (self.home / "run" / "system.key").read_text()}
        self._started_at[name] = time.time()
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            pass_fds=[listener],
            stdout=self._log,
            stderr=self._log,
        )

    def kill(self, name: str) -> None:
        """kill -9, and start it again."""
        os.kill(self._running[name].pid, signal.SIGKILL)
        self._running[name].wait()
        self.start(name)

    def client(self) -> Client:
        """At the door; it must answer."""
        return Client(f"http://127.0.0.1:{self.port}", self.key)

    def folder(self, worker: int) -> Path:
        """What a gateway worker keeps."""
        return self.home / "gateway" / (f"worker-{worker}" if worker else "")

    def has_heard_all(self) -> bool:
        """Whether every gateway worker has spoken to the server since it was last started."""
        heard_at = {gateway.source: gateway.seen_at for gateway in self.ledger().gateways()}
        for worker in range(len(self._doors)):
            (path,) = self.folder(worker).glob("*/source")
            if heard_at.get(path.read_text().strip(), 0.0) < self._started_at[f"gateway-{worker}"]:
                return False
        return True

    def is_answering(self) -> bool:
        """Whether the server answers through the door."""
        with suppress(Exception), self.client() as client:
            return bool(client.status())
        return False

    def stop(self) -> None:
        """Politely: gateways first, so that their last records arrive."""
        for name in sorted(self._running):
            self._running[name].terminate()
            self._running[name].wait(60)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        for listener in self._sockets.values():
            listener.close()
        self._database.close()
        self._log.close()

    def ledger(self) -> Ledger:
        return Ledger(self._database)


class Load:
    """Clients that ask without pause; some leave in the middle. `answered` were answered whole."""

    def __init__(self, fleet: Fleet, seed: int, clients: int = 4) -> None:
        self.answered: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n, random.Random(seed + n))) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: int, chance: random.Random) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            try:
                self._ask(f"load-{client}-{count}", chance)
            except (OSError, AssertionError):
                continue

    def _ask(self, name: str, chance: random.Random) -> None:
        stream, leaves = chance.random() < 0.6, chance.random() < 0.1
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": stream}
        extra = b"x-request-id: %b\r\n" % name.encode()
        with socket.create_connection(("127.0.0.1", self._fleet.port), 15) as connection:
            connection.sendall(post(json.dumps(body).encode(), key=self._fleet.key, extra=extra))
            if stream:
                head = read_until(connection, b"\r\n\r\n")
                if b" 200 " in head[:15]:
                    if not leaves:
                        read_until(connection, END, head)
                        self.answered.add(name)
                    return
                status, data = int(head.split()[1]), read_answer(connection, head)[2]
            else:
                status, _, data, _ = read_answer(connection)
            if status == 200:
                self.answered.add(name)
            else:
                self.refusals[json.loads(data)["error"]["code"]] += 1
                self._stop.wait(0.02)

    def wait_for(self, more: int) -> None:
        floor = len(self.answered) + more
        wait_until(lambda: len(self.answered) >= floor, f"{more} more answers; refused: {self.refusals}", 120)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def serve_tiny(fleet: Fleet, engine: Engine, **budget: Any) -> None:
    """The model `tiny` at the engine, and a budget over it, both known to every gateway."""
    price = {"input_per_million": 10.0, "output_per_million": 20.0, "currency": "EUR"}
    with fleet.client() as client:
        client.put("Budget", "all", budget)
        model = {"name": "tiny", "context": 512, "price": price}
        client.put("Provider", "fake", {"url": f"{engine.url}/v1", "models": [model]})
    for number in range(len(fleet._doors)):
        path = fleet.folder(number) / "snapshot.json"
        wait_until(lambda path=path: _knows(path), "the gateways know the model", 120)  # type: ignore[misc]


def _knows(path: Path) -> bool:
    return path.exists() and b'"tiny"' in path.read_bytes() and b'"all"' in path.read_bytes()
