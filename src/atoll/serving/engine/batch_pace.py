"""How many requests of a batch are in flight: more while they are answered, half when the door pushes back.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP shares a line: what online traffic needs is
given up at once and taken again slowly. Knows nothing of requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEGIN = 2.0


class Pace:
    """Lets at most `limit` of `most` callers work at a time, and none before a wait the door asked for is over."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(most)
        self._clock = clock
        self._limit = min(BEGIN, self._most)
        self._running = 0
        self._not_before = 0.0
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Callers that may work now."""
        return int(self._limit)

    @property
    def running(self) -> int:
        """Callers that work."""
        return self._running

    def begin(self) -> bool:
        """Wait for a place and take it; False once stopped."""
        with self._changed:
            while not self._stopped:
                wait_s = self._not_before - self._clock()
                if wait_s <= 0 and self._running < self.limit:
                    self._running += 1
                    return True
                self._changed.wait(wait_s if wait_s > 0 else None)
            return False

    def answered(self) -> None:
        """Give the place back after an answer: a little more may work."""
        with self._changed:
            self._running -= 1
            self._limit = min(self._most, self._limit + 1.0 / self._limit)
            self._changed.notify_all()

    def pushed_back(self, wait_s: float) -> None:
        """Give the place back after a refusal: half may work, and none for `wait_s`.

        Refusals that were under way when the wait began say nothing new.
        """
        with self._changed:
            self._running -= 1
            now = self._clock()
            if now >= self._not_before:
                self._limit = max(1.0, self._limit / 2)
            self._not_before = max(self._not_before, now + wait_s)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody begin any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_idle(self, limit_s: float) -> bool:
        """Wait until nobody works, at most `limit_s`; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, limit_s)
