"""Several gateway processes behind one address.

Each worker listens on a socket of its own; the sockets share the port (SO_REUSEPORT), so the kernel spreads connections
evenly and wakes one process for each. The supervisor keeps all of them open: while a worker is dead, its connections
wait in its backlog for the next one instead of being reset. Workers share nothing but the file of the rate limits:
journal, flight recorder, slices and snapshot are each one's own, in a folder of its own (`folder_of`).

When there are fewer workers than there were, what the others left (records not shipped, requests a kill cut off, slices
not given back) is brought to the server by the workers that remain (`inherit`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.core.files import write_bytes
from atoll.serving.gateway.centre import post
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.recorder import Recorder
from atoll.serving.gateway.records import lost_record
from atoll.serving.gateway.shipper import Shipper
from atoll.serving.gateway.upstream import Client, Origin

log = logging.getLogger(__name__)

WORKERS_MAX = 64
BACKLOG = 2048
STOP_S = 15.0
STABLE_S = 10.0
BACK_OFF_FIRST_S = 0.05
BACK_OFF_LONGEST_S = 5.0
INHERIT_RETRY_S = 2.0
SNAPSHOT = "snapshot.json"


def folder_of(home: Path, worker: int) -> Path:
    """Where a worker keeps what is its own; the first worker uses the folder of a gateway without workers."""
    return home if worker == 0 else home / f"worker-{worker}"


def prepare(home: Path, worker: int) -> Path:
    """The folder of a worker; a new one begins with the first worker's snapshot, should the server be away."""
    folder = folder_of(home, worker)
    folder.mkdir(parents=True, exist_ok=True)
    known, own = home / SNAPSHOT, folder / SNAPSHOT
    if known.exists() and not own.exists():
        write_bytes(own, known.read_bytes(), mode=0o600)
    return folder


def bind_group(address: tuple[str, int], workers: int) -> list[socket.socket]:
    """Listening sockets that share a port, one a worker; Invalid when somebody else has it."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # without SO_REUSEPORT, or another program that shares its port as well would go unnoticed; never listening,
            # or a client that is early would be taken and then reset
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
            shared = probe.getsockname()[:2]
            return [
                socket.create_server(shared, family=family, backlog=BACKLOG, reuse_port=True) for _ in range(workers)
            ]
    except OSError as error:
        raise Invalid(f"cannot listen on {host}:{port}: {error.strerror}", field="listen") from error


@dataclass(slots=True)
class Worker:
    """One worker process and its history."""

    number: int
    listener: socket.socket
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0


class Supervisor:
    """Keeps the workers of one gateway alive until told to stop. `command` starts one, given its number."""

    def __init__(self, command: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        self._command = list(command)
        self._workers = [Worker(number, listener) for number, listener in enumerate(listeners)]
        self._changed = threading.Event()
        self._is_stopping = False
        self._alive_read, self._alive_write = os.pipe()

    def run(self) -> int:
        """Until SIGTERM, SIGINT or the end of the parent; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_by_signal)
        signal.signal(signal.SIGCHLD, lambda *_: self._changed.set())
        self._watch_parent()
        try:
            while not self._is_stopping:
                self._changed.clear()
                self._changed.wait(self._keep_alive())
        finally:
            self._stop()
        return 0

    def _keep_alive(self) -> float:
        """Start what has ended and is due; seconds until the next look."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                log.error("worker %d ended with code %d", worker.number, worker.process.returncode)
                worker.failures = 1 if now - worker.started_at > STABLE_S else worker.failures + 1
                worker.due_at = now + min(BACK_OFF_LONGEST_S, BACK_OFF_FIRST_S * 2.0 ** (worker.failures - 1))
                worker.process = None
            if worker.process is None and now >= worker.due_at:
                self._start(worker)
        return min((w.due_at - now for w in self._workers if w.process is None), default=1.0)

    def _start(self, worker: Worker) -> None:
        descriptors = {"ATOLL_LISTEN_FD": worker.listener.fileno(), "ATOLL_PARENT_FD": self._alive_read}
        worker.process = subprocess.Popen(
            [*self._command, "--worker", str(worker.number)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **{name: str(number) for name, number in descriptors.items()}},
            pass_fds=list(descriptors.values()),
            process_group=0,
        )
        worker.started_at = time.monotonic()

    def _stop(self) -> None:
        """Let all drain at once; end by force what does not."""
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in self._workers:
            worker.listener.close()
        os.close(self._alive_write)
        os.close(self._alive_read)

    def _stop_by_signal(self, *_: object) -> None:
        self._is_stopping = True
        self._changed.set()

    def _watch_parent(self) -> None:
        """Stop when the pipe of whoever started us ends."""
        handed = os.environ.get("ATOLL_PARENT_FD")
        if handed:

            def watch() -> None:
                while os.read(int(handed), 4096):
                    pass
                self._stop_by_signal()

            threading.Thread(target=watch, name="parent", daemon=True).start()


def supervise(arguments: Sequence[str], address: tuple[str, int], workers: int) -> int:
    """Run a gateway of several workers; `arguments` are those of each of them."""
    if not 1 < workers <= WORKERS_MAX:
        raise Invalid(f"{workers} workers are not possible", field="workers", hint=f"1 to {WORKERS_MAX}")
    listeners = bind_group(address, workers)
    log.info("gateway listens on %s with %d workers", listeners[0].getsockname(), workers)
    command = [sys.executable, "-m", "atoll.serving.gateway.main", *arguments, "--workers", str(workers)]
    return Supervisor(command, listeners).run()


def orphans(home: Path, worker: int, workers: int) -> list[Path]:
    """Folders of workers there are no more, that this one is to look after."""
    found = []
    for folder in home.glob("worker-*"):
        number = folder.name.removeprefix("worker-")
        if number.isdecimal() and int(number) >= workers and int(number) % workers == worker:
            found.append(folder)
    return sorted(found)


async def inherit(folders: Sequence[Path], client: Client, server: Origin, secret: str) -> None:
    """Bring to the server what workers left that are no more, then delete their folders."""
    for folder in folders:
        try:
            await _inherit(folder, client, server, secret)
        except (AtollError, OSError) as error:
            log.error("what the worker of %s left is not at the server yet: %s", folder, error)


async def _inherit(folder: Path, client: Client, server: Origin, secret: str) -> None:
    journal = Journal(folder / "journal")
    try:
        enter_lost(journal, Recorder(folder / "recorder"))
        await journal.sync()
        shipping = asyncio.get_running_loop().create_task(Shipper(journal, client, server, secret).run())
        try:
            while journal.unacknowledged:
                await asyncio.sleep(0.1)
            await _close_slices(journal, client, server, secret)
        finally:
            shipping.cancel()
    finally:
        await journal.close()
    shutil.rmtree(folder)
    log.info("what the worker of %s left is at the server", folder)


def enter_lost(journal: Journal, recorder: Recorder) -> None:
    """Write the usage records of the requests that a kill cut off, before anything else is written."""
    for head, event, _, entry in recorder.recover(journal.assigned):
        record = lost_record(head, event)
        if record is None:
            log.error("a lost request's note cannot be read: %r", head[:200])
            entry.close()
        else:
            journal.append(record, entry)


async def _close_slices(journal: Journal, client: Client, server: Origin, secret: str) -> None:
    """A new process that wants nothing closes the slices of those before it."""
    last_words = {
        "source": journal.source,
        "incarnation": uuid.uuid4().hex,
        "begins_after": journal.assigned,
        "slices": [],
    }
    while True:
        try:
            await post(client, server, secret, "/api/v1/gateway/slices", orjson.dumps(last_words))
            return
        except AtollError as error:
            log.warning("slices of %s are not closed yet: %s", journal.source, error)
            await asyncio.sleep(INHERIT_RETRY_S)
