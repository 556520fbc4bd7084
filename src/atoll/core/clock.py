"""Time as something passed in: the machine's clock live, a virtual one in tests and simulation.

`now` (Unix seconds) is for people and records only; every duration, lease and back-off uses `monotonic`,
so a wall clock that jumps changes nothing.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, both in seconds."""

    def now(self) -> float:
        """Unix time; may jump."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class VirtualClock:
    """A clock that moves only when told; `jump` moves the wall clock alone."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._wall_offset_s = now
        self._elapsed_s = 0.0

    def now(self) -> float:
        return self._wall_offset_s + self._elapsed_s

    def monotonic(self) -> float:
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, seconds
        self._elapsed_s += seconds

    def jump(self, seconds: float) -> None:
        self._wall_offset_s += seconds
