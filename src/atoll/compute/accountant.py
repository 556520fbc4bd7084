"""Charges accelerator time of workloads to budgets, and stops workloads before a budget is overspent.

While tasks of a workload hold accelerators, their time is reserved ahead from every budget on the way up and charged as
it passes. When what is reserved lasts only as long as stopping takes, the workload is suspended and labelled, and goes
on by itself once there is enough again. Wall clocks are used, as people are charged by them; the seconds between a
task's placement and the next look are charged, but were not reserved.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.compute.gang import SUSPENDED_BY
from atoll.compute.resources import TASK_ENDED
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import SYSTEM_PROJECT, Key, Resource
from atoll.core.store import Change, SetSpec
from atoll.governance.accounts import ACCELERATOR_MS
from atoll.governance.budgets import BudgetTree, period_at
from atoll.governance.ledger import Ledger
from atoll.governance.meters import Metered, Meters

VANISHED = Key("Workload", SYSTEM_PROJECT, "vanished")
"""The one key under which meters of workloads that are gone are ended."""

AHEAD_S = 600.0
LOOK_S = 60.0
MARGIN_S = 5.0
"""Beyond a workload's own grace: a task that is told to stop hears of it at its node's next sync."""


class Accountant(Controller):
    """Runs a meter for each workload that holds accelerators."""

    name = "accountant"
    owns = "*accelerators"
    watches = ("Task", "Workload", "Budget")

    def __init__(self, ledger: Ledger, meters: Meters) -> None:
        self._ledger = ledger
        self._meters = meters

    def all_keys(self, world: Writer) -> Iterable[Key]:
        return [VANISHED, *(w.key for w in world.scope.find_all("Workload") if wants_accelerators(w))]

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.kind == "Budget":
            return self.all_keys(world) if change.action in ("created", "spec") else []
        if change.action == "status" and change.kind == "Workload":
            return []  # what counts is whether its tasks run, and they tell themselves
        resource = world.read(change.key)
        if resource is None:
            return [VANISHED]
        if resource.kind == "Task":
            is_news = change.action != "status" or resource.phase in TASK_ENDED  # progress changes nothing here
            is_mine = is_news and resource.spec["resources"]["accelerators"] > 0
            return [Key("Workload", resource.project, resource.spec["workload"])] if is_mine else []
        return [resource.key] if wants_accelerators(resource) else []

    def reconcile(self, key: Key, world: Writer) -> float | None:
        workload = None if key == VANISHED else world.read(key)
        if workload is None:
            self._end_vanished(world)
            return None
        if not wants_accelerators(workload):
            return None
        tasks = world.scope.find_all("Task", owner=workload.uid)
        taken = sum(t.spec["resources"]["accelerators"] for t in tasks if t.phase not in TASK_ENDED)
        if not taken:
            self._meters.end(workload.uid)
            return self._resume(workload, world)
        return self._charge(workload, taken, world)

    def _charge(self, workload: Resource, taken: int, world: Writer) -> float:
        reading = self._meters.read(metered(workload, world), taken, _path(workload, world), AHEAD_S)
        if reading.covered_s is None:
            return LOOK_S
        left_s: float = reading.covered_s - workload.spec["stop_grace_s"] - MARGIN_S
        if left_s <= 0 and not workload.spec["suspended"]:
            labels = workload.labels | {SUSPENDED_BY: reading.budget}
            why = f"the accelerator-hours of budget {reading.budget!r} are used up"
            world.write(SetSpec(workload, workload.spec | {"suspended": True}, labels, "Suspended", why))
        return min(LOOK_S, max(1.0, left_s))

    def _resume(self, workload: Resource, world: Writer) -> float | None:
        """Let a workload go on that was suspended here, once its budgets pay for stopping it again and more."""
        if SUSPENDED_BY not in workload.labels or workload.is_deleting:
            return None
        labels = {name: value for name, value in workload.labels.items() if name != SUSPENDED_BY}
        if not workload.spec["suspended"]:
            world.write(SetSpec(workload, workload.spec, labels, reason=""))
            return None
        needed_s = LOOK_S + workload.spec["stop_grace_s"] + MARGIN_S
        if self._affords(workload, round(needed_s * 1000) * accelerators_of(workload), world):
            why = "there are accelerator-hours again"
            world.write(SetSpec(workload, workload.spec | {"suspended": False}, labels, "Resumed", why))
            return None
        return LOOK_S

    def _affords(self, workload: Resource, needed_ms: int, world: Writer) -> bool:
        for uid in _path(workload, world):
            budget = world.scope.by_uid(uid)
            if budget is None or budget.spec["accelerator_hours"] is None:
                continue
            self._ledger.tend(uid)
            found = self._ledger.balances(uid, period_at(budget.spec["period"], world.clock.now())[0])
            if any(b.unit == ACCELERATOR_MS and b.available < needed_ms for b in found):
                return False
        return True

    def _end_vanished(self, world: Writer) -> None:
        for uid in self._meters.running():
            if world.scope.by_uid(uid) is None:
                self._meters.end(uid)


def accelerators_of(workload: Resource) -> int:
    """How many accelerators a workload takes when it runs."""
    return sum(role["count"] * role["resources"]["accelerators"] for role in workload.spec["roles"])


def wants_accelerators(workload: Resource) -> bool:
    """Whether there is anything to charge."""
    return accelerators_of(workload) > 0


def metered(workload: Resource, world: Writer) -> Metered:
    """The workload as its meter keeps it; what serves a model names its deployment by what owns its owner."""
    owner = world.scope.by_uid(workload.owner) if workload.owner else None
    if owner is None or "deployment" not in owner.spec:
        return Metered(workload.uid, workload.project, workload.name)
    slots = int(owner.spec.get("input", {}).get("slots") or 1)
    model = str(owner.spec.get("version", ""))
    return Metered(workload.uid, workload.project, workload.name, owner.owner or "", model, slots)


def _path(workload: Resource, world: Writer) -> list[str]:
    return BudgetTree(world.scope.find_all("Budget"), world.scope.find_all("Project")).path(workload.project)
