"""The pace of a synthesis: nobody asks while the door wants to be left alone, and nothing is asked beyond the budget.

Waits double with every push-back in a row, up to WAIT_S_MAX, and are as long as the door says where it says so
(exponential back-off). Tokens are reserved before a request and settled by what it used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WAIT_S_MIN, WAIT_S_MAX = 0.25, 30.0


class Pace:
    """For many threads; `spent` tokens were used before, `tokens_max` None does not limit."""

    def __init__(self, tokens_max: int | None, spent: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens_max = tokens_max
        self._clock = clock
        self._changed = threading.Condition()
        self._not_before = 0.0
        self._wait_s = WAIT_S_MIN
        self._held = 0
        self.spent = spent
        self.ended = ""

    def begin(self, tokens: int) -> bool:
        """Wait until a request that may use `tokens` can be made, and reserve them; False once all is over.

        It is over when nothing in flight could free enough tokens.
        """
        with self._changed:
            while not self.ended:
                wait_s = self._not_before - self._clock()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                elif self._tokens_max is None or self.spent + self._held + tokens <= self._tokens_max:
                    self._held += tokens
                    return True
                elif not self._held:
                    self._end(f"the budget of {self._tokens_max} tokens is used up")
                else:
                    self._changed.wait()
            return False

    def settle(self, reserved: int, used: int) -> None:
        """A request was answered and used so many tokens."""
        with self._changed:
            self._held -= reserved
            self.spent += used
            self._wait_s = WAIT_S_MIN
            self._changed.notify_all()

    def pushed_back(self, reserved: int, again_s: float) -> None:
        """A request is to be made again later. Push-backs that were under way when a wait began say nothing new."""
        with self._changed:
            self._held -= reserved
            now = self._clock()
            if now >= self._not_before:
                self._not_before = now + max(again_s, self._wait_s)
                self._wait_s = min(WAIT_S_MAX, 2 * self._wait_s)
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        """Let nobody begin any more; the first reason counts."""
        with self._changed:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self._changed.notify_all()
