"""The diary of a workload's attempts on this node: when each began, from where, and every step it completed.

One line of JSON per event is appended to `attempts.jsonl`; a line costs microseconds and survives the process being
killed (not the machine losing power, for which there are checkpoints). The last line of a killed attempt may be torn.

**Time lost** is the time in which no new step was completed because of a restart: for each restart, from the last step
completed before it until the same number of steps is reached again; when that number is reached only after further
restarts, the whole span counts once. It holds detection, backoff, start-up, restore and repeated steps. A span that
crosses a reboot is taken from the wall clock, any other from the monotonic one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from atoll.core.files import disk_full_named

STARTED = -1
"""The step number of an attempt that has not reached its first or restored step yet."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Entry:
    """An attempt (from 1) had completed `step` steps; `loss` is that step's. `monotonic_s` holds within one boot."""

    attempt: int
    step: int
    monotonic_s: float
    wall_s: float
    boot: str
    loss: float | None = None
    resumed: bool = False


class Diary:
    """The diary of one workload; opening it begins an attempt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        earlier = read_entries(path)
        self.attempt = max((e.attempt for e in earlier), default=0) + 1
        self._boot = boot_id()
        self._mend()
        self._file = path.open("ab", buffering=0)
        self._note(STARTED)

    @property
    def restarts(self) -> int:
        return self.attempt - 1

    def resume(self, step: int) -> None:
        """This attempt stands at `step` completed steps and goes on from there."""
        self._note(step, resumed=True)

    def complete(self, step: int, loss: float) -> None:
        """This attempt has completed `step` steps."""
        self._note(step, loss)

    def elapsed_s(self) -> float:
        """Seconds since the first attempt began."""
        return elapsed_s(self.entries()[0], self._entry(STARTED))

    def close(self) -> None:
        self._file.close()

    def entries(self) -> list[Entry]:
        """All that is written so far."""
        return read_entries(self._path)

    def _note(self, step: int, loss: float | None = None, *, resumed: bool = False) -> None:
        line = orjson.dumps(asdict(self._entry(step, loss, resumed=resumed))) + b"\n"
        with disk_full_named(self._path):
            self._file.write(line)

    def _entry(self, step: int, loss: float | None = None, *, resumed: bool = False) -> Entry:
        return Entry(self.attempt, step, time.monotonic(), time.time(), self._boot, loss, resumed)

    def _mend(self) -> None:
        """End a torn last line, so that it spoils no line but itself."""
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            with self._path.open("ab") as file:
                file.write(b"\n")


def read_entries(path: Path) -> list[Entry]:
    """The entries in `path`, in order; torn lines are left out."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [entry for line in lines if (entry := _parse(line))]


def lost_s(entries: Iterable[Entry]) -> float:
    """The time lost to restarts, in seconds, as this module defines it."""
    total, highest = 0.0, None
    for entry in entries:
        if highest is None:
            highest = entry
        elif entry.step >= highest.step:
            if entry.attempt != highest.attempt:
                total += elapsed_s(highest, entry)
            highest = entry
    return total


def resumed_steps(entries: Iterable[Entry]) -> list[int]:
    """From how many completed steps each restarted attempt went on."""
    return [e.step for e in entries if e.resumed and e.attempt > 1]


def elapsed_s(start: Entry, end: Entry) -> float:
    """Seconds from one entry to another; never negative."""
    same_boot = start.boot == end.boot
    return max(0.0, end.monotonic_s - start.monotonic_s if same_boot else end.wall_s - start.wall_s)


def boot_id() -> str:
    """Which boot of this machine this is; empty where the system does not say."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry(**orjson.loads(line))
    except (orjson.JSONDecodeError, TypeError):
        return None
