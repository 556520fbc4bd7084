"""What the tests of tasks share: waiting with a bound, and finding processes by what they carry."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from atoll.compute.runtime.base import TaskReport, TaskSpec
from atoll.compute.runtime.processes import ProcessRuntime

T = TypeVar("T")

SLEEPER = ("sh", "-c", "echo started >> starts; exec sleep 600")
"""A task that counts its starts and then stays."""

ESCAPER = "import os,sys,time\nif os.fork() == 0:\n os.setsid()\n{}\n time.sleep(600)\ntime.sleep({})\n"


def until(condition: Callable[[], T], within_s: float = 60.0, what: str = "") -> T:
    """The first true value of `condition`, which must come within `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or condition}"
        time.sleep(0.005)


def unique() -> str:
    """A uid no other test on this machine has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def spec(*command: str, uid: str = "", **fields: Any) -> TaskSpec:
    """A task, with a grace that no stall of the machine uses up."""
    return TaskSpec(uid or unique(), fields.pop("epoch", 1), command, **{"stop_grace_s": 60.0, **fields})


def report(runtime: ProcessRuntime, uid: str) -> TaskReport:
    return next(report for report in runtime.observe() if report.uid == uid)


def reaches(runtime: ProcessRuntime, uid: str, state: str, within_s: float = 60.0) -> TaskReport:
    """The report of `uid` once it is in `state`; fails at once when it ended in another."""

    def look() -> TaskReport | None:
        found = report(runtime, uid)
        assert found.state == state or not found.is_ended, found
        return found if found.state == state else None

    return until(look, within_s, f"{uid} {state}")  # type: ignore[return-value]


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def processes_of(uid: str) -> list[int]:
    """Every running process that carries the mark of task `uid`, its shim included."""
    mark = f"ATOLL_TASK_UID={uid}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and is_alive(int(name)):
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
            except OSError:
                continue
    return found


def written(path: Path) -> str:
    """What `path` holds, waiting until it holds anything."""
    return until(lambda: path.exists() and path.read_text(), what=str(path))


def record(path: Path) -> dict[str, Any]:
    """The JSON in `path`, waiting until it is there."""
    until(path.exists, what=str(path))
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def kill(pid: int) -> None:
    """kill -9; one that is gone meanwhile, as a task's command is with its shim, stays gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
