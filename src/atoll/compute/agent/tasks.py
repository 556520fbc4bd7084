"""What to do about the tasks of this node: a pure plan from what is wanted and what is, and its execution.

Fencing: of one slot (workload, role, index) at most one epoch lives here. A newer epoch starts when every older one
has ended; an older epoch than one known here never starts. The plan looks only at this node: that an epoch has ended
on another node is the centre's to know.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.compute.runtime.base import Runtime, Slot, TaskReport, TaskSpec, is_name
from atoll.core.errors import AtollError, Invalid

log = logging.getLogger(__name__)

UNREADABLE = ("unreadable",)
FORGOTTEN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task the centre has for this node; `problem` is set when its spec cannot be run."""

    spec: TaskSpec
    stop: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Refuse:
    spec: TaskSpec
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    uid: str


Action = Start | Refuse | Stop | Forget


def wanted(value: Mapping[str, Any]) -> Wanted | None:
    """The task in one entry of a sync reply; None when not even its uid can be used."""
    stop = bool(value.get("stop"))
    try:
        return Wanted(TaskSpec.from_dict(value), stop, str(value.get("problem") or ""))
    except Invalid as error:
        problem = str(error)
    try:
        return Wanted(TaskSpec(value["uid"], int(value.get("epoch", 0)), UNREADABLE), stop, problem)
    except (Invalid, KeyError, TypeError, ValueError):
        log.error("the centre wants a task that cannot be named: %s", problem)
        return None


def plan(
    tasks: Sequence[Wanted],
    observed: Sequence[TaskReport],
    *,
    forget: Set[str] = frozenset(),
    reported: Set[str] = frozenset(),
    forgotten: Set[str] = frozenset(),
) -> list[Action]:
    """What brings `observed` closer to `tasks`, the full set wanted here.

    A living task that is not wanted is stopped once it is among `reported`: before that the centre cannot know it.
    `forget` names what may be deleted when it has ended; `forgotten` what was, and must never start again.
    """
    here = {report.uid: report for report in observed}
    fresh = [w for w in tasks if w.spec.uid not in here and w.spec.uid not in forgotten]
    stops = {**_unwanted(tasks, observed, forget | reported), **_replaced(tasks, observed)}
    return [
        *(Stop(uid, reason) for uid, reason in stops.items()),
        *_first_moves(fresh, tasks, observed),
        *(Forget(uid) for uid in sorted(forget & here.keys()) if here[uid].is_ended),
    ]


def _unwanted(tasks: Sequence[Wanted], observed: Sequence[TaskReport], known: Set[str]) -> dict[str, str]:
    stop_by_uid = {w.spec.uid: w.stop for w in tasks}
    reasons = {}
    for report in observed:
        if report.is_ended:
            continue
        if stop_by_uid.get(report.uid):
            reasons[report.uid] = "asked to stop"
        elif report.uid not in stop_by_uid and report.uid in known:
            reasons[report.uid] = "no longer wanted on this node"
    return reasons


def _replaced(tasks: Sequence[Wanted], observed: Sequence[TaskReport]) -> dict[str, str]:
    newest = _newest((w.spec.slot, w.spec.epoch) for w in tasks if not w.stop and not w.problem)
    return {
        report.uid: f"replaced by epoch {newest[report.slot]}"
        for report in observed
        if not report.is_ended and report.slot is not None and report.epoch < newest.get(report.slot, report.epoch)
    }


def _first_moves(fresh: Sequence[Wanted], tasks: Sequence[Wanted], observed: Sequence[TaskReport]) -> list[Action]:
    """Start, refuse, or leave waiting each task that is not here yet; oldest epoch first."""
    living = {report.slot for report in observed if not report.is_ended and report.slot is not None}
    known = [(w.spec.slot, w.spec.epoch) for w in tasks if not w.stop and not w.problem]
    newest = _newest(known + [(r.slot, r.epoch) for r in observed if r.slot is not None and not r.is_ended])
    taken = {(r.slot, r.epoch) for r in observed if r.slot is not None and not r.is_ended}
    moves: list[Action] = []
    for task in sorted(fresh, key=lambda w: (w.spec.epoch, w.spec.uid)):
        spec, slot = task.spec, _fenced_slot(task.spec)
        reason = _refusal(task, newest, taken)
        if reason:
            moves.append(Refuse(spec, reason))
        elif slot is None or slot not in living:
            moves.append(Start(spec))
            living.add(spec.slot)
    return moves


def _refusal(task: Wanted, newest: Mapping[Slot, int], taken: Set[tuple[Slot, int]]) -> str:
    spec, slot = task.spec, _fenced_slot(task.spec)
    if task.problem:
        return f"cannot start: {task.problem}"
    if task.stop:
        return "stopped before it was started"
    if slot is None:
        return ""
    if (slot, spec.epoch) in taken:
        return f"another task has the place of epoch {spec.epoch}"
    later = newest.get(slot, spec.epoch)
    return f"fenced: epoch {later} is known here, {spec.epoch} is older" if later > spec.epoch else ""


def _fenced_slot(spec: TaskSpec) -> Slot | None:
    """A task of no workload has no earlier self to fence."""
    return spec.slot if spec.workload_uid else None


def _newest(epochs: Iterable[tuple[Slot, int]]) -> dict[Slot, int]:
    newest: dict[Slot, int] = {}
    for slot, epoch in epochs:
        if slot.workload_uid:
            newest[slot] = max(epoch, newest.get(slot, epoch))
    return newest


class Executor:
    """Carries plans out on a runtime. An action that fails is logged and comes again with the next plan."""

    def __init__(self, runtime: Runtime, home: Path) -> None:
        self._runtime = runtime
        self._work = home / "work"
        self._forgotten: dict[str, None] = {}

    @property
    def forgotten(self) -> Set[str]:
        """Uids whose directories were deleted, the latest FORGOTTEN_MAX of them."""
        return self._forgotten.keys()

    def apply(self, actions: Sequence[Action]) -> None:
        """Do all of `actions` that can be done."""
        for action in actions:
            try:
                self._apply_one(action)
            except (AtollError, OSError) as error:
                log.warning("%s: %s", _words(action), error)
            except Exception:  # one odd task must not keep the others from being looked after
                log.exception("%s", _words(action))

    def _apply_one(self, action: Action) -> None:
        if not isinstance(action, Stop):
            log.info("%s", _words(action))
        match action:
            case Start(spec):
                self._runtime.start(spec)
            case Refuse(spec, reason):
                self._runtime.refuse(spec, reason)
            case Stop(uid, reason):
                self._runtime.stop(uid, reason)
            case Forget(uid):
                self._runtime.forget(uid)
                self._forgotten[uid] = None
                while len(self._forgotten) > FORGOTTEN_MAX:
                    del self._forgotten[next(iter(self._forgotten))]

    def works(self) -> list[str]:
        """The uids of workloads (of tasks without one, their own) that have a work directory here; from any thread."""
        return sorted(filter(is_name, os.listdir(self._work))) if self._work.is_dir() else []

    def forget_workloads(self, uids: Set[str], observed: Sequence[TaskReport]) -> set[str]:
        """Delete the work directories of `uids` that have no living task here; return those that had to stay."""
        living = {r.slot.workload_uid or r.uid for r in observed if r.slot and not r.is_ended}
        for uid in filter(is_name, uids - living):
            log.info("forget the work of workload %s", uid)
            shutil.rmtree(self._work / uid, ignore_errors=True)
        return set(uids & living)


def _words(action: Action) -> str:
    match action:
        case Start(spec):
            return f"start {spec.uid} ({spec.role}[{spec.index}] of {spec.workload or '-'}, epoch {spec.epoch})"
        case Refuse(spec, reason):
            return f"refuse {spec.uid}: {reason}"
        case Stop(uid, reason):
            return f"stop {uid}: {reason}"
        case Forget(uid):
            return f"forget {uid}"
