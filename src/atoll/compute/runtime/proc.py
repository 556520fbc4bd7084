"""The processes of this machine, as /proc tells them.

A process is named by its pid, its start in clock ticks and the boot id: a pid alone may be someone else's by now.
Where there is no /proc it sees nothing, and says so by being empty.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass

from atoll.compute.runtime.shim import start_ticks, stat_fields

_ZOMBIE = (b"Z", b"X")
_IN_EXEC = b"0"
EXEC_TRIES = 500


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    parent: int
    session: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Family:
    """What tells the processes of one task apart: its environment mark and the session of its command."""

    uid: str
    epoch: int
    leader: int
    leader_start_ticks: int


def process_table() -> dict[int, Process]:
    """Every process that still runs; those only waiting to be reaped are left out."""
    table = {}
    for name in _pids():
        fields = stat_fields(name)
        if fields and fields[0] not in _ZOMBIE:
            table[int(name)] = Process(int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def _pids() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def members(family: Family) -> dict[int, int]:
    """The processes of a task whose shim is gone: pid to start in ticks.

    They carry the task's mark in their environment, or are in its command's session, or descend from one that is.
    A process that cleaned its environment, left the session, and lost its parent cannot be found: only a living shim
    holds such a one.
    """
    table = process_table()
    marks = {pid: _mark(pid) for pid in table}
    own = (family.uid, str(family.epoch))
    found = {pid for pid, mark in marks.items() if mark == own}
    if family.leader and not _is_reused(table, family):
        found |= {pid for pid, process in table.items() if process.session == family.leader and not marks[pid]}
    return {pid: table[pid].start_ticks for pid in _with_descendants(found, table) - {os.getpid()}}


def _is_reused(table: dict[int, Process], family: Family) -> bool:
    """Whether the leader's pid is a later process's: a pid stays taken while its session has members."""
    leader = table.get(family.leader)
    return leader is not None and leader.start_ticks != family.leader_start_ticks


def _mark(pid: int) -> tuple[str, str] | None:
    """The uid and epoch in the environment `pid` was started with; None when there are none, or none we may read."""
    try:
        pairs = (entry.partition(b"=") for entry in _environ(pid).split(b"\0"))
    except OSError:
        return None
    env = {name: value.decode(errors="replace") for name, _, value in pairs if name.startswith(b"ATOLL_TASK_")}
    uid = env.get(b"ATOLL_TASK_UID")
    return (uid, env.get(b"ATOLL_TASK_EPOCH", "")) if uid else None


def _environ(pid: int) -> bytes:
    """The environment of `pid`, which a process shows none of in the midst of an exec: then it is read again."""
    for _ in range(EXEC_TRIES):
        before = _environ_end(pid)
        with open(f"/proc/{pid}/environ", "rb") as file:
            data = file.read()
        if data or before == _environ_end(pid) != _IN_EXEC:
            return data
        time.sleep(0.0002)
    return b""


def _environ_end(pid: int) -> bytes:
    """Where the environment of `pid` ends in its memory; empty for one without memory: it ends, or is the kernel's."""
    fields = stat_fields(pid)
    return fields[48] if fields and fields[20] != b"0" else b""


def _with_descendants(found: set[int], table: dict[int, Process]) -> set[int]:
    while True:
        more = {pid for pid, process in table.items() if process.parent in found and pid not in found}
        if not more:
            return found
        found = found | more


def kill_all(processes: dict[int, int], patience_s: float) -> None:
    """SIGKILL to `processes` (pid to start in ticks); return when they are gone or after `patience_s`."""
    handles = [handle for pid, ticks in processes.items() if (handle := open_handle(pid, ticks)) is not None]
    for handle in handles:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    for handle in handles:
        is_readable(handle, deadline - time.monotonic())
        os.close(handle)


def is_readable(descriptor: int, wait_s: float = 0.0) -> bool:
    """Whether `descriptor` has something to read, or gets it within `wait_s`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, wait_s) * 1000))


def open_handle(pid: int, ticks: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is gone or the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if start_ticks(pid) == ticks:
        return handle
    os.close(handle)
    return None
