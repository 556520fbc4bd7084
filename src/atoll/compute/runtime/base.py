"""What a runtime is: something that starts a task at most once, says how it is, stops it, and forgets it.

A task is one process tree with one uid and one epoch. A runtime holds tasks for an agent that may be killed at any
moment: whatever it must remember is outside the agent's process. It does not know who wants a task, or why.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from atoll.core.errors import Invalid

State = Literal["starting", "running", "stopping", "succeeded", "failed"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "lost"})

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Slot:
    """The place in a workload a task fills: at most one epoch of a slot may be alive on a node."""

    workload_uid: str
    role: str
    index: int


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task as the centre wants it. `resources` holds `cpu` (cores) and `memory_bytes`."""

    uid: str
    epoch: int
    command: tuple[str, ...]
    project: str = ""
    workload: str = ""
    workload_uid: str = ""
    role: str = ""
    index: int = 0
    rank: int = 0
    world_size: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    stop_grace_s: float = 10.0
    on_partition: Literal["continue", "stop"] = "continue"

    def __post_init__(self) -> None:
        for name in ("uid", "workload_uid"):
            _check_name(name, getattr(self, name))
        if not self.command or not all(isinstance(word, str) and "\0" not in word for word in self.command):
            raise Invalid(f"command {self.command!r} of task {self.uid} is not a list of words", field="command")
        for key, value in self.env.items():
            if not key or "=" in key or "\0" in key + value:
                raise Invalid(f"environment variable {key!r} of task {self.uid} cannot be set", field="env")
        cpu = self.resources.get("cpu")
        if cpu is not None and not (isinstance(cpu, int | float) and 0 <= cpu < 1e6):
            raise Invalid(f"cpu {cpu!r} of task {self.uid} is not a number of cores", field="resources.cpu")
        if self.on_partition not in ("continue", "stop"):
            raise Invalid(f"on_partition {self.on_partition!r} is neither continue nor stop", field="on_partition")

    @property
    def slot(self) -> Slot:
        return Slot(self.workload_uid, self.role, self.index)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TaskSpec:
        """The spec in a JSON object (a sync reply, or task.json); fields it does not know are left out."""
        try:
            known = {f.name: value[f.name] for f in dataclasses.fields(cls) if value.get(f.name) is not None}
            known["command"] = tuple(known["command"])
            known["env"] = {str(k): str(v) for k, v in known.get("env", {}).items()}
            for name in ("epoch", "index", "rank", "world_size"):
                known[name] = int(known.get(name, 0 if name != "world_size" else 1))
            known["stop_grace_s"] = float(known.get("stop_grace_s", 10.0))
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(f"task {value.get('uid')!r} cannot be read: {error!r}", field="task") from error

    def to_dict(self) -> dict[str, Any]:
        """The JSON form `from_dict` reads."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task as it is. `pid` is the command's, `started_at` Unix seconds; `reason` is for people."""

    uid: str
    epoch: int
    state: State
    slot: Slot | None = None
    on_partition: str = "continue"
    stop_grace_s: float = 10.0
    pid: int | None = None
    started_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    log_tail: tuple[str, ...] = ()
    progress: Mapping[str, Any] | None = None
    endpoint: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED

    def to_dict(self) -> dict[str, Any]:
        """The form in which the centre is told."""
        slot = self.slot or Slot("", "", 0)
        return {
            "uid": self.uid,
            "epoch": self.epoch,
            "workload_uid": slot.workload_uid,
            "role": slot.role,
            "index": slot.index,
            "state": self.state,
            "pid": self.pid,
            "started_at": self.started_at,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "reason": self.reason,
            "log_tail": list(self.log_tail),
            "progress": self.progress or {},
            "endpoint": self.endpoint or {},
            "result": self.result or {},
        }


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of a task's output: `data` begins at `offset` of a stream that has `size_bytes` so far."""

    data: bytes
    offset: int
    size_bytes: int
    is_ended: bool


class Runtime(Protocol):
    """Holds the tasks of one node. All calls are quick and safe to repeat; only `start` happens at most once."""

    def start(self, spec: TaskSpec) -> None:
        """Start `spec` unless its uid was ever started or refused here. Failing to start is a report, not an error."""

    def refuse(self, spec: TaskSpec, reason: str) -> None:
        """Use up the uid without starting anything: it is reported as failed with `reason`, for ever."""

    def observe(self) -> list[TaskReport]:
        """Every task here, started or refused and not yet forgotten."""

    def stop(self, uid: str, reason: str, grace_s: float | None = None) -> None:
        """Begin to stop the task: SIGTERM, and SIGKILL after its own grace, or after `grace_s` if that is sooner.

        Unknown or ended tasks are left as they are.
        """

    def forget(self, uid: str) -> None:
        """Delete all that is kept of an ended task; raises Conflict while it is alive."""

    def tail(self, uid: str, offset: int, limit_bytes: int) -> LogPiece:
        """At most `limit_bytes` of output from `offset` on (negative: from that far before the end); NotFound."""

    def alarms(self) -> Sequence[int]:
        """File descriptors that become readable when a task ends, for `select`; may be empty."""


def is_name(value: object) -> bool:
    """Whether `value` may name a folder: nothing that could lead out of one."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _check_name(name: str, value: object) -> None:
    is_absent_workload = name == "workload_uid" and value == ""
    if not is_absent_workload and not is_name(value):
        raise Invalid(f"{name} {value!r} cannot name a folder", field=name, hint="letters, digits, . _ and - only")
