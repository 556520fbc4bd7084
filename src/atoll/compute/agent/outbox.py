"""What the centre has yet to hear: each task's latest report, until the centre has it.

Only the latest report of a task counts, so the outbox never grows with time. Changes of progress alone wait up to
PROGRESS_EVERY_S, everything else is due at once. A task that ended is told again every REMIND_S until it is
forgotten, so that the permission to forget it cannot get lost. Safe to use from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from atoll.compute.runtime.base import TaskReport

PROGRESS_EVERY_S = 1.0
REMIND_S = 300.0


@dataclass(slots=True)
class _Entry:
    latest: TaskReport
    delivered: TaskReport | None = None
    delivered_at: float = 0.0


class Outbox:
    """Reports in, deliveries out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def update(self, reports: Sequence[TaskReport]) -> bool:
        """Take `reports` as all there is; say whether any of them is news."""
        with self._lock:
            gone = self._entries.keys() - {report.uid for report in reports}
            for uid in gone:
                del self._entries[uid]
            return any([self._put(report) for report in reports])

    def _put(self, report: TaskReport) -> bool:
        entry = self._entries.setdefault(report.uid, _Entry(report))
        entry.latest = report
        return _is_news(report, entry.delivered)

    def due(self) -> list[TaskReport]:
        """The reports to deliver now, in order of uid."""
        with self._lock:
            now = time.monotonic()
            return [e.latest for _, e in sorted(self._entries.items()) if _due_in_s(e, now) == 0.0]

    def due_in_s(self) -> float | None:
        """Seconds until something is due; None when all is delivered for good."""
        with self._lock:
            now = time.monotonic()
            delays_s = [delay_s for e in self._entries.values() if (delay_s := _due_in_s(e, now)) is not None]
            return min(delays_s, default=None)

    def delivered(self, reports: Sequence[TaskReport]) -> None:
        """The centre has `reports`."""
        with self._lock:
            for report in reports:
                if report.uid in self._entries:
                    entry = self._entries[report.uid]
                    entry.delivered, entry.delivered_at = report, time.monotonic()

    def uids_delivered(self) -> Set[str]:
        """The tasks the centre has heard of at least once since the last `reset`."""
        with self._lock:
            return {uid for uid, entry in self._entries.items() if entry.delivered is not None}

    def reset(self) -> None:
        """The centre may know nothing: all is news again."""
        with self._lock:
            for entry in self._entries.values():
                entry.delivered = None


def _is_news(latest: TaskReport, delivered: TaskReport | None) -> bool:
    """Log lines alone are no news: they come along with the next change, and are asked for when wanted."""
    if latest is delivered:
        return False
    return delivered is None or replace(latest, log_tail=()) != replace(delivered, log_tail=())


def _due_in_s(entry: _Entry, now: float) -> float | None:
    latest, delivered = entry.latest, entry.delivered
    if not _is_news(latest, delivered):
        return max(0.0, entry.delivered_at + REMIND_S - now) if latest.is_ended else None
    if delivered is None or _is_news(replace(latest, progress=None), replace(delivered, progress=None)):
        return 0.0
    return max(0.0, entry.delivered_at + PROGRESS_EVERY_S - now)
