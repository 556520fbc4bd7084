"""`atoll up`: the centre, a gateway and an agent on this machine, kept alive.

The supervisor binds the sockets and hands them down, so that a role that restarts loses no connection that
waits in the backlog. Roles end with the supervisor (a pipe tells them); tasks do not, unless it is stopped
politely. Each role's output goes to <home>/logs/ROLE.log.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atoll.compute.agent.main import ASKING
from atoll.core.errors import Unavailable
from atoll.core.files import write_json
from atoll.core.settings import Settings
from atoll.server.processes import LISTEN_FD, PARENT_FD, bind, hold_lock, system_key
from atoll.serving.gateway.workers import bind_group

READY_S = 60.0
STOP_S = {"agent": 90.0, "gateway": 15.0, "server": 12.0}
"""An agent waits for its tasks, each as long as it may take to stop."""
HURRIED_STOP_S = 3.0
BACKOFF_MAX_S = 10.0
STABLE_S = 30.0
HAND_OVER_S = 10.0


@dataclass(slots=True)
class Role:
    """One role process and its history. `holds_back` are signals that wait until the role itself lets them through:
    one that has something to end would be ended by them while it still starts."""

    name: str
    command: list[str]
    listener: socket.socket | None
    holds_back: tuple[signal.Signals, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    due_at: float = field(default=0.0)


def up(
    settings: Settings, ready: Callable[[bool], None] = lambda _: None, stopping: Callable[[], None] = lambda: None
) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code. A second signal ends the wait for tasks that stop.

    `ready(is_first_start)` is called once the door answers, `stopping()` once asked to end.
    Conflict when the home is in use already, Invalid when the port is.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    address = f"http://{settings.listen}"
    with hold_lock(settings.home / "run" / "up.lock", "`atoll up`", wait_s=1.0, address=address):
        is_first_start = not (settings.home / "credentials.toml").exists()
        system_key(settings)
        supervisor = Supervisor(settings)
        try:
            supervisor.start()
            if supervisor.wait_until_ready():
                ready(is_first_start)
            supervisor.watch()
            stopping()
        finally:
            supervisor.stop()
    return 0


class Supervisor:
    """Starts the roles, starts them again when they end, and stops them in order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping, self._hurry = threading.Event(), threading.Event()
        self._alive_read, self._alive_write = os.pipe()
        os.set_inheritable(self._alive_read, True)
        doors = _bind_doors(settings)
        inner = bind("127.0.0.1", 0)
        self._inner = f"http://127.0.0.1:{inner.getsockname()[1]}"
        write_json(settings.home / "run" / "server.json", {"address": self._inner})
        home = str(settings.home)
        self._roles = [
            Role("server", ["atoll.server.main", "--home", home], inner),
            *self._gateways(home, doors),
            Role(
                "agent",
                ["atoll.compute.agent.main", "--home", home, "--join", self._inner, "--stop-tasks"],
                None,
                ASKING,
            ),
        ]
        if settings.node:
            self._roles[-1].command += ["--node", settings.node]
        if not settings.database:  # with the database in the home, a centre is who holds this lock, and nobody else
            self._roles[-1].command += ["--centre-lock", str(settings.home / "run" / "server.lock")]
        for number in ASKING:
            signal.signal(number, self._heed)

    def _heed(self, *_: object) -> None:
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    def _gateways(self, home: str, doors: list[socket.socket]) -> list[Role]:
        """One role a gateway worker; the first is called as one without workers."""
        command = ["atoll.serving.gateway.main", "--home", home, "--server", self._inner]
        if len(doors) == 1:
            return [Role("gateway", command, doors[0])]
        command += ["--workers", str(len(doors))]
        return [
            Role(f"gateway-{number}" if number else "gateway", [*command, "--worker", str(number)], door)
            for number, door in enumerate(doors)
        ]

    def start(self) -> None:
        """Start every role."""
        (self._settings.home / "logs").mkdir(exist_ok=True)
        for role in self._roles:
            self._start(role)

    def wait_until_ready(self) -> bool:
        """Until the door answers, or until told to stop: then False. Unavailable with the end of the logs when the door
        does not answer in time."""
        deadline = time.monotonic() + READY_S
        while not self._stopping.is_set():
            if _answers(self._settings.host, self._settings.port):
                return True
            self._restart_ended()
            if time.monotonic() > deadline:
                raise Unavailable(f"the platform did not start within {READY_S:g} s\n{self._log_tails()}")
            self._stopping.wait(0.05)
        return False

    def watch(self) -> None:
        """Keep the roles alive until told to stop."""
        while not self._stopping.wait(0.25):
            self._restart_ended()

    def stop(self) -> None:
        """Agent first, so that its last reports arrive; then gateway and server."""
        for name in ("agent", "gateway", "server"):
            self._stop([role for role in self._roles if role.name.partition("-")[0] == name], STOP_S[name])
        os.close(self._alive_write)
        os.close(self._alive_read)

    def _stop(self, roles: list[Role], within_s: float) -> None:
        """End these together, by force what takes longer. In a hurry they are asked again, and have little time."""
        running = [role.process for role in roles if role.process is not None]
        for process in running:
            process.terminate()
        if not self._have_ended(running, within_s, self._hurry):
            for process in running:
                process.terminate()
            self._have_ended(running, HURRIED_STOP_S)
        for process in running:
            process.kill()
            process.wait()

    def _have_ended(
        self, running: list[subprocess.Popen[bytes]], within_s: float, unless: threading.Event | None = None
    ) -> bool:
        """Wait for these to end, unless something else happens first."""
        deadline = time.monotonic() + within_s
        while any(process.poll() is None for process in running):
            if time.monotonic() > deadline or (unless is not None and unless.is_set()):
                return False
            time.sleep(0.02)
        return True

    def _start(self, role: Role) -> None:
        environment = {**os.environ, PARENT_FD: str(self._alive_read), "ATOLL_SYSTEM_KEY": system_key(self._settings)}
        environment |= {"ATOLL_LISTEN": self._settings.listen, "PYTHONUNBUFFERED": "1"}
        for name in ("database", "blobs", "log_level", "site", "public_url"):
            environment[f"ATOLL_{name.upper()}"] = str(getattr(self._settings, name))
        passed = [self._alive_read]
        if role.listener is not None:
            environment[LISTEN_FD] = str(role.listener.fileno())
            passed.append(role.listener.fileno())
        with (self._settings.home / "logs" / f"{role.name}.log").open("ab") as log, _held_back(role.holds_back):
            role.process = subprocess.Popen(
                [sys.executable, "-m", *role.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=passed,
                process_group=0,
            )
        role.started_at = time.monotonic()

    def _restart_ended(self) -> None:
        now = time.monotonic()
        for role in self._roles:
            if role.process is not None and role.process.poll() is not None:
                role.failures = 1 if now - role.started_at > STABLE_S else role.failures + 1
                role.due_at = now + min(BACKOFF_MAX_S, 0.1 * 2.0 ** (role.failures - 1))
                role.process = None
            if role.process is None and now >= role.due_at:
                self._start(role)

    def _log_tails(self) -> str:
        return "\n".join(_tail(self._settings.home / "logs" / f"{role.name}.log") for role in self._roles)


@contextmanager
def _held_back(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Processes started in the block begin with these signals blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bind_doors(settings: Settings) -> list[socket.socket]:
    """The public sockets, one a gateway worker. They stay open here: a worker that restarts loses no connection."""
    door = bind(settings.host, settings.port, HAND_OVER_S if _was_running(settings.home) else 0.0)
    if settings.gateway_workers == 1:
        return [door]
    port = door.getsockname()[1]
    door.close()
    return bind_group((settings.host, port), settings.gateway_workers)


def _was_running(home: Path) -> bool:
    """Whether roles of a supervisor that was killed may still be letting go of their sockets."""
    return (home / "run" / "server.json").exists()


def _answers(host: str, port: int) -> bool:
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _tail(path: Path, lines: int = 5) -> str:
    try:
        return f"{path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"{path}: {error.strerror}"
