"""The life of a workload as a pure decision: from its tasks as reported to its next status.

    pending ─admitted─▶ starting ─all run─▶ running ─all ended well─▶ succeeded
       ▲                    │                  │
       └──── back-off ◀─ stopping ◀─ one ended badly, suspended ──▶ failed (limit reached, or a permanent error)

A gang is started and stopped whole. The decision reads nothing but its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.compute.resources import TASK_ENDED, WORKLOAD_ENDED
from atoll.core.resources import Resource
from atoll.core.task import PERMANENT_FAILURE

SUSPENDED_BY = "atoll.suspended-by"
"""Label of a workload that was suspended for want of accelerator-hours; its value names the budget."""

SOON_S = 0.001
"""What is left of a back-off below this is rounding, and over."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The workload's next status and the tasks to stop; `reason` and `message` become its event."""

    status: dict[str, Any]
    stop: tuple[Resource, ...] = ()
    reason: str = ""
    message: str = ""


def decide(workload: Resource, tasks: Sequence[Resource], now: float) -> Decision:
    """What to do about `workload`, given all its tasks of all epochs, at Unix time `now`."""
    status = dict(workload.status)
    current = sorted((t for t in tasks if t.spec["epoch"] == status.get("epoch", 0)), key=lambda t: int(t.spec["rank"]))
    living = tuple(t for t in tasks if t.phase not in TASK_ENDED)
    if workload.is_deleting or workload.spec["suspended"]:
        return _wind_down(workload, status, living)
    if workload.phase in WORKLOAD_ENDED:
        return Decision(status)
    if not current or workload.phase == "pending":
        return Decision(status | {"phase": "pending"})
    return _follow(workload, status, current, living, now)


def _wind_down(workload: Resource, status: dict[str, Any], living: tuple[Resource, ...]) -> Decision:
    to_stop = tuple(t for t in living if not t.spec["stop"])
    if living:
        return Decision(status | {"phase": "stopping", "reason": f"{len(living)} tasks are ending"}, to_stop)
    if workload.is_deleting or workload.phase in WORKLOAD_ENDED:
        return Decision(status)
    return Decision(status | {"phase": "pending", "reason": _suspension(workload), "endpoint": {}})


def _suspension(workload: Resource) -> str:
    budget = workload.labels.get(SUSPENDED_BY)
    return f"suspended: the accelerator-hours of budget {budget!r} are used up" if budget else "suspended"


def backoff_left_s(workload: Resource, now: float) -> float:
    """Seconds until a failed gang may start again.

    Never more than its longest back-off, so that a wall clock set back does not hold it.
    """
    left_s = float(workload.status.get("retry_at", 0.0)) - now
    return left_s if SOON_S < left_s <= workload.spec["restart"]["backoff_max_s"] else 0.0


def _follow(
    workload: Resource, status: dict[str, Any], current: list[Resource], living: tuple[Resource, ...], now: float
) -> Decision:
    first = current[0]
    status |= {"progress": first.status.get("progress", {}), "endpoint": first.status.get("endpoint", {})}
    culprit = _culprit(current, workload.spec["restart"]["policy"])
    if culprit is not None:
        to_stop = tuple(t for t in living if not t.spec["stop"])
        if living:
            return Decision(status | {"phase": "stopping", "reason": _why(culprit), "endpoint": {}}, to_stop)
        return _after_end(workload, status, culprit, now)
    if all(t.phase == "succeeded" for t in current):
        done = {"phase": "succeeded", "reason": "", "result": first.status.get("result", {}), "ended_at": now}
        return Decision(status | done, reason="Succeeded")
    running = sum(t.phase in ("running", "succeeded") for t in current)
    status["started_at"] = status.get("started_at") or now
    if running == len(current):
        doubt = next((said for t in current if t.phase == "running" and (said := t.status.get("reason"))), "")
        is_news = workload.phase != "running"
        return Decision(status | {"phase": "running", "reason": doubt}, reason="Running" if is_news else "")
    return Decision(status | {"phase": "starting", "reason": f"{running} of {len(current)} tasks run"})


def _culprit(current: list[Resource], policy: str) -> Resource | None:
    """The task whose end ends the gang, or None: one that failed for good, else one that nobody had asked to stop."""
    bad = {"failed", "lost"} | ({"succeeded"} if policy == "always" else set())
    ended = (t for t in current if t.phase in bad)
    return min(ended, key=lambda t: (not _is_permanent(t), t.spec["stop"]), default=None)


def _is_permanent(task: Resource) -> bool:
    return task.status.get("exit_code") == PERMANENT_FAILURE


def _after_end(workload: Resource, status: dict[str, Any], culprit: Resource, now: float) -> Decision:
    if culprit.spec["stop"] and not _is_permanent(culprit):
        again = {"phase": "pending", "reason": "was stopped; starting again", "endpoint": {}}
        return Decision(status | again, reason="Restarting", message="its tasks were asked to stop")
    return _after_failure(workload, status, culprit, now)


def _after_failure(workload: Resource, status: dict[str, Any], failed: Resource, now: float) -> Decision:
    restart = workload.spec["restart"]
    why = _why(failed)
    error = failed.status.get("result", {}).get("error", {})
    status |= {"endpoint": {}, "log_tail": failed.status.get("log_tail", []), "error": error}
    restarts = 0 if _ran_stably(failed, restart["stable_s"], now) else status.get("restarts", 0)
    is_endless = restart["policy"] == "always" and restart["limit"] == 0
    is_over = restarts >= restart["limit"] and not is_endless
    if _is_permanent(failed) or restart["policy"] == "never" or is_over:
        tries = f" after {restarts} restarts" if is_over and restarts else ""
        return Decision(
            status | {"phase": "failed", "reason": why + tries, "ended_at": now}, reason="Failed", message=why
        )
    wait_s = min(restart["backoff_max_s"], restart["backoff_min_s"] * 2.0 ** min(restarts, 30))
    status |= {
        "phase": "pending",
        "reason": f"{why}; starting again in {wait_s:.1f} s",
        "restarts": restarts + 1,
        "restarts_total": status.get("restarts_total", 0) + 1,
        "retry_at": now + wait_s,
    }
    return Decision(status, reason="Restarting", message=why)


def _ran_stably(task: Resource, stable_s: float, now: float) -> bool:
    started_at = task.status.get("started_at")
    return started_at is not None and now - started_at >= stable_s


def _why(task: Resource) -> str:
    """One line: which task, how it ended, the last thing it said."""
    error = task.status.get("result", {}).get("error", {})
    if error:
        hint = f" ({error['hint']})" if error.get("hint") else ""
        return f"{error.get('message', 'failed')}{hint}"
    tail = task.status.get("log_tail", [])
    said = f": {tail[-1]}" if tail else ""
    return f"{task.spec['role']}[{task.spec['index']}] {task.status.get('reason') or task.phase}{said}"
