"""A command as a child of this process: in a process group of its own, followed line by line, dead when we are.

Its group is killed when the child is closed, and also when this process is killed without a chance to clean up: the
kernel ends the command itself (PR_SET_PDEATHSIG), and a shell that waits for our end of a pipe to close ends what it
started. Descendants that leave the group are left to the task's shim. It knows nothing of what the command does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO

from atoll.core.errors import Invalid

LINES_KEPT = 200
LINE_CHARS_MAX = 4000
CHUNK_BYTES = 64 << 10
TERMINATE_WITHIN_S = 5.0
_PR_SET_PDEATHSIG = 1
_IS_LINUX = sys.platform == "linux"
_GUARD = 'read -r _; kill -s KILL -- "-$1"'
_BREAKS = re.compile(rb"[\r\n]+")


class Child:
    """The running command. `on_line` gets every line it prints, in a thread; what is in `secrets` is blotted out of
    the lines before anybody sees them."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        secrets: Sequence[str] = (),
    ) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._on_line, self._secrets = on_line, [secret for secret in secrets if secret]
        self.process = _started(command, env)
        waiting, self._alive = os.pipe()
        self._guard = _guarded(self.process.pid, waiting)
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._follow, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it. All it printed has been read when it is not None."""
        code = self.process.poll()
        if code is not None:
            self._reader.join(TERMINATE_WITHIN_S)
        return code

    def close(self, within_s: float = TERMINATE_WITHIN_S) -> None:
        """End the whole group: politely, and after `within_s` seconds by force."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within_s)
        self._signal(signal.SIGKILL)
        self.process.wait()
        self._guard.kill()
        self._guard.wait()
        with contextlib.suppress(OSError):
            os.close(self._alive)
        self._reader.join(TERMINATE_WITHIN_S)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def _follow(self, output: IO[bytes]) -> None:
        for raw in _lines(output.fileno()):
            line = raw.decode(errors="replace")
            for secret in self._secrets:
                line = line.replace(secret, "***")
            self.lines.append(line)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            self._on_line(line)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends; a carriage return ends one too, as progress bars use it. Long ones come in pieces."""
    rest = b""
    while data := os.read(descriptor, CHUNK_BYTES):
        *whole, rest = _BREAKS.split(rest + data)
        yield from (line for line in whole if line)
        while len(rest) > LINE_CHARS_MAX:
            yield rest[:LINE_CHARS_MAX]
            rest = rest[LINE_CHARS_MAX:]
    if rest:
        yield rest


def _started(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    libc = ctypes.CDLL(None) if _IS_LINUX else None

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(127)

    try:
        return subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=die_with_parent,
            bufsize=0,
        )
    except OSError as error:
        raise Invalid(f"cannot run {command[0]}: {error.strerror or error}", field="environment") from error


def _guarded(group: int, waiting: int) -> subprocess.Popen[bytes]:
    """A shell that kills `group` once the other end of the pipe `waiting` is closed."""
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(group)],
            stdin=waiting,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(waiting)
