"""Commands on a terminal of their own: what a person sees and types."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time

from running import ATOLL, Platform

LIMIT_S = 90.0
AGAIN_S = 5.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One command in a pseudo terminal."""

    def __init__(self, up: Platform, *words: str) -> None:
        self._fd, inner = pty.openpty()
        environment = {**up.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [ATOLL, *words], env=environment, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)
        self.raw = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
        os.close(self._fd)

    @property
    def text(self) -> str:
        """All that was shown, without escapes."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def until(self, words: str, times: int = 1) -> str:
        """Read until `words` were shown so many times."""
        deadline = time.monotonic() + LIMIT_S
        while self.text.count(words) < times:
            assert time.monotonic() < deadline, f"never showed {words!r}: {self.text}"
            has_ended = self.process.poll() is not None
            assert self._read() or not has_ended, f"ended without {words!r}: {self.text}"
        return self.text

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, interrupting: bool = False) -> int:
        """Read to the end; the exit code.

        interrupting: press Ctrl-C meanwhile, and again after a while, as people do: one that comes between a question
        and the wait for its answer is noticed only when the wait is over.
        """
        deadline, again_at = time.monotonic() + LIMIT_S, 0.0
        has_ended = False
        while self._read() or not has_ended:
            assert time.monotonic() < deadline, f"does not end: {self.text}"
            if interrupting and time.monotonic() >= again_at and self.process.poll() is None:
                self.interrupt()
                again_at = time.monotonic() + AGAIN_S
            has_ended = self.process.poll() is not None  # what it showed last is read after that
        return self.process.wait(LIMIT_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], 0.2)
        data = b""
        if ready:
            with contextlib.suppress(OSError):
                data = os.read(self._fd, 65_536)
        self.raw += data.decode(errors="replace")
        return bool(data)
