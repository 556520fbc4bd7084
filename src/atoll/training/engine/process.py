"""How this process computes: threads, arithmetic, no network; and how it stops.

`settle` must run before torch and transformers are imported. It does not know what is computed.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

from atoll.core.errors import Invalid

STOPPED = 128 + signal.SIGTERM
"""Exit code of a task that was told to stop and kept its state."""


class Stopped(BaseException):
    """SIGTERM came; raised where the state is whole, so no handler for errors may swallow it."""


class Stop:
    """Turns SIGTERM into `Stopped` at the next `check`; before `watch` it ends the process at once."""

    def __init__(self) -> None:
        self._is_asked = False
        self._is_watched = False
        signal.signal(signal.SIGTERM, self._ask)

    def watch(self) -> None:
        """From here on the work calls `check` often, and has something to save first."""
        self._is_watched = True
        self.check()

    def check(self) -> None:
        if self._is_asked:
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True
        if not self._is_watched:
            leave()


def leave() -> NoReturn:
    """End this process as stopped on request."""
    raise SystemExit(STOPPED)


def settle() -> None:
    """Prepare the environment libraries read when they load: nothing is fetched, idle threads yield the processor."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def thread_count(wanted: int | None) -> int:
    """Threads to compute with: `wanted`, else ATOLL_THREADS, else OMP_NUM_THREADS, else the processors there are."""
    if wanted is not None:
        return wanted
    for name in ("ATOLL_THREADS", "OMP_NUM_THREADS"):
        if text := os.environ.get(name):
            return _positive(name, text)
    return len(os.sched_getaffinity(0))


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise Invalid(f"{name} cannot be {text!r}", field=name, hint="a number of threads from 1 up")
    return int(text)
