"""What roles need as processes: an exclusive lock, a socket handed over or bound, an end with the parent."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atoll.core.errors import Conflict, Invalid
from atoll.core.files import write_bytes
from atoll.core.settings import Settings
from atoll.governance.keys import new_key

LISTEN_FD = "ATOLL_LISTEN_FD"
PARENT_FD = "ATOLL_PARENT_FD"
BACKLOG = 1024


@contextmanager
def hold_lock(path: Path, what: str, wait_s: float = 0.0, **facts: object) -> Iterator[None]:
    """Hold an exclusive lock on `path` for the block; Conflict names who holds it, after `wait_s`.

    The lock ends with the process, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + wait_s
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise _held(path, what)
            time.sleep(0.05)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), **facts}))
        file.flush()
        yield


def system_key(settings: Settings) -> str:
    """The key the platform's own parts share, made at the first start (mode 600)."""
    path = settings.home / "run" / "system.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_bytes(path, new_key().encode(), mode=0o600)
    return path.read_text().strip()


def listening_socket(settings: Settings) -> socket.socket:
    """The socket the supervisor handed over, or a newly bound one."""
    handed = os.environ.get(LISTEN_FD)
    if handed:
        return socket.socket(fileno=int(handed))
    return bind(settings.host, settings.port)


def bind(host: str, port: int, wait_s: float = 0.0) -> socket.socket:
    """A listening TCP socket; Conflict when the port stays in use for `wait_s`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            listener.close()
            raise _unbindable(host, port, error) from error
        return listener


def exit_with_parent(stop: Callable[[], None]) -> None:
    """Call `stop` from a thread once the parent that started this process is gone."""
    handed = os.environ.get(PARENT_FD)
    if not handed:
        return

    def watch() -> None:
        select.select([int(handed)], [], [])  # nothing is ever written: readable means closed
        stop()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(path: Path, what: str) -> Conflict:
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        facts = {}
    at = f" at {facts['address']}" if facts.get("address") else ""
    return Conflict(
        f"{what} (process {facts.get('pid', 'unknown')}) already runs on home {path.parent.parent}{at}",
        hint="use that one, stop it, or choose another folder with --home",
    )


def _unbindable(host: str, port: int, error: OSError) -> Invalid:
    if error.errno == errno.EADDRINUSE:
        return Invalid(
            f"port {port} on {host} is in use by another program",
            field="listen",
            hint=f"stop it, or choose another: --listen {host}:{port + 1}",
        )
    return Invalid(f"cannot listen on {host}:{port}: {error.strerror}", field="listen", hint="give --listen host:port")
