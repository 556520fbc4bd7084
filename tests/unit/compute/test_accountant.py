"""Workloads pay for accelerators while they hold them, and stop before the budget is overspent."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.compute.accountant import LOOK_S, MARGIN_S, SUSPENDED_BY, VANISHED, Accountant
from atoll.compute.resources import TASK, WORKLOAD
from atoll.core.clock import VirtualClock
from atoll.core.reconcile import Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Create, Remove, SetSpec, SetStatus, Store
from atoll.governance.ledger import Ledger
from atoll.governance.meters import Meters
from atoll.governance.resources import BUDGET

TRAIN = Key("Workload", "red", "train")


class Site:
    """A project with a budget and a workload that holds accelerators when told."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.clock = clock
        self.scope = store.everything("test")
        self.ledger, self.meters = Ledger(store.database, clock), Meters(store.database, clock)
        self.accountant = Accountant(self.ledger, self.meters)
        self.world = Writer(store, clock, self.accountant.owns, self.accountant.name, None)
        role = {"command": ["x"], "resources": {"accelerators": 2}}
        self.scope.write([Create("Workload", "red", "train", WORKLOAD.parse_spec({"roles": [role]}))])

    def budget(self, hours: float) -> str:
        self.scope.write([Create("Budget", "red", "gpu", BUDGET.parse_spec({"accelerator_hours": hours}))])
        return self.scope.get("Budget", "gpu", "red").uid

    def starts(self, name: str = "t1") -> None:
        workload = self.workload
        spec = TASK.parse_spec(
            {
                "node": "n",
                "epoch": 1,
                "workload": "train",
                "workload_uid": workload.uid,
                "role": "main",
                "index": 0,
                "rank": 0,
                "world_size": 1,
                "command": ["x"],
                "resources": {"accelerators": 2},
            }
        )
        self.scope.write([Create("Task", "red", name, spec, {"phase": "running"}, owner=workload.uid)])

    def ends(self, name: str = "t1") -> None:
        task = self.scope.get("Task", name, "red")
        self.scope.write([SetStatus(task, {"phase": "succeeded"})])

    def look(self) -> float | None:
        return self.accountant.reconcile(TRAIN, self.world)

    @property
    def workload(self) -> Resource:
        return self.scope.get("Workload", "train", "red")

    def figures(self, uid: str) -> dict[str, Any]:
        (balance,) = self.ledger.balances(uid, "total")
        assert self.ledger.check() == []
        return {"held": balance.held, "spent": balance.spent, "overspent": balance.overspent}


@pytest.fixture
def site(sqlite_store: Store, clock: VirtualClock) -> Site:
    return Site(sqlite_store, clock)


def test_a_workload_pays_from_placement_to_end(site: Site) -> None:
    uid = site.budget(10)
    assert site.look() is None
    site.starts()
    assert site.look() == LOOK_S
    site.clock.advance(90)
    site.look()
    site.clock.advance(10)
    site.ends()
    assert site.look() is None
    assert site.figures(uid) == {"held": 0, "spent": 200_000, "overspent": 0}
    (used,) = site.meters.used("red", 0, 2e6)
    assert (used["workload"], used["accelerator_ms"]) == ("train", 200_000)


def test_a_workload_is_suspended_while_there_is_still_time_to_stop_it(site: Site) -> None:
    uid = site.budget(0.1)  # 180 s of two accelerators
    site.starts()
    elapsed_s = 0.0
    while not site.workload.spec["suspended"]:
        again_s = site.look()
        assert again_s is not None
        if not site.workload.spec["suspended"]:
            site.clock.advance(again_s)
            elapsed_s += again_s
        assert elapsed_s < 181
    assert elapsed_s == pytest.approx(180 - 10 - MARGIN_S)
    assert site.workload.labels[SUSPENDED_BY] == "gpu"
    said = site.scope.events(uids=[site.workload.uid])[-1]
    assert (said.reason, said.message) == ("Suspended", "the accelerator-hours of budget 'gpu' are used up")
    site.clock.advance(12)
    site.ends()
    site.look()
    assert site.figures(uid) == {"held": 0, "spent": 354_000, "overspent": 0}


def test_a_suspended_workload_goes_on_when_there_is_enough_again(site: Site) -> None:
    site.budget(0)
    site.starts()
    site.look()
    assert site.workload.spec["suspended"]
    site.ends()
    assert site.look() == LOOK_S
    assert site.workload.spec["suspended"]
    budget = site.scope.get("Budget", "gpu", "red")
    site.scope.write([SetSpec(budget, budget.spec | {"accelerator_hours": 5})])
    assert site.look() is None
    assert (site.workload.spec["suspended"], site.workload.labels) == (False, {})


def test_a_workload_people_suspended_stays_so(site: Site) -> None:
    site.budget(5)
    site.scope.write([SetSpec(site.workload, site.workload.spec | {"suspended": True})])
    assert site.look() is None
    assert site.workload.spec["suspended"]


def test_the_meter_of_a_workload_that_is_gone_ends(site: Site) -> None:
    uid = site.budget(5)
    site.starts()
    site.look()
    site.clock.advance(5)
    site.scope.write([Remove(site.scope.get("Task", "t1", "red")), Remove(site.workload)])
    site.accountant.reconcile(VANISHED, site.world)
    assert site.meters.running() == []
    assert site.figures(uid) == {"held": 0, "spent": 10_000, "overspent": 0}


def test_what_takes_no_accelerators_is_never_metered(site: Site) -> None:
    role = {"command": ["x"]}
    site.scope.write([Create("Workload", "red", "cpu", WORKLOAD.parse_spec({"roles": [role]}))])
    assert Key("Workload", "red", "cpu") not in list(site.accountant.all_keys(site.world))
    assert site.accountant.reconcile(Key("Workload", "red", "cpu"), site.world) is None
