"""What a run tells while it goes, and what it leaves: progress at most twice a second, figures of the losses.

It measures speed over the last few seconds only; how a loss came about it does not know.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from atoll.core.task import report_progress

INTERVAL_S = 0.5
WINDOW_S = 20.0
LOSSES_KEPT = 5


class Progress:
    """Progress of one attempt, throttled; the first and the last of a stage always get through."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.figures: dict[str, Any] = {}
        self._clock = clock
        self._reported_at = -INTERVAL_S
        self._stage = ""
        self._window: deque[tuple[float, int]] = deque()

    def tell(self, stage: str, done: float, total: float | None, unit: str, message: str = "") -> None:
        """Report the stage, with the figures gathered so far."""
        now = self._clock()
        if stage == self._stage and done != total and now - self._reported_at < INTERVAL_S:
            return
        self._stage, self._reported_at = stage, now
        report_progress(stage, done, total, unit, message, **self.figures)

    def count_tokens(self, tokens: int) -> None:
        """Count tokens learned just now, for `tokens_per_s`."""
        now = self._clock()
        self._window.append((now, tokens))
        while len(self._window) > 2 and now - self._window[0][0] > WINDOW_S:
            self._window.popleft()
        span = now - self._window[0][0]
        learned = sum(count for _, count in self._window) - self._window[0][1]
        if span > 0:
            self.figures["tokens_per_s"] = round(learned / span, 1)


class LossRecord:
    """The losses a result names: means over the first and the last few steps, held-out before and after."""

    def __init__(self, figures: dict[str, Any]) -> None:
        self.first: list[float] = list(figures.get("losses_first", []))
        self.last: list[float] = list(figures.get("losses_last", []))
        self.heldout_before: float | None = figures.get("heldout_before")
        self.heldout_after: float | None = None

    def add(self, loss: float) -> None:
        """Take up the loss of the next step."""
        if len(self.first) < LOSSES_KEPT:
            self.first.append(loss)
        self.last = [*self.last, loss][-LOSSES_KEPT:]

    def figures(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"losses_first": self.first, "losses_last": self.last, "heldout_before": self.heldout_before}

    def result(self) -> dict[str, Any]:
        """The `loss` part of the result."""
        return {
            "train_first": _mean(self.first),
            "train_last": _mean(self.last),
            "heldout_before": self.heldout_before,
            "heldout_after": self.heldout_after,
        }


def _mean(losses: list[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None
