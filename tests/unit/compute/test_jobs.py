"""Runs that are one workload: begun once, followed, finished once, failed with the reason."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atoll.compute import resources
from atoll.compute.jobs import CANCEL, JobController, NotYet, engine_workload, workload_name
from atoll.core.clock import VirtualClock
from atoll.core.errors import Invalid, Unavailable
from atoll.core.reconcile import Loop, Writer
from atoll.core.resources import Resource
from atoll.core.store import Create, MarkDeleting, Remove, SetSpec, SetStatus, Store, Write

assert resources.WORKLOAD


class Bakery(JobController):
    """Bakes one loaf a run."""

    name = "bakery"
    owns = "Bake"
    trouble: Exception | None = None
    loaf = "loaf"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.trouble is not None:
            raise self.trouble
        return engine_workload("bakery.oven", {"flour": run.spec["flour"]}, cpu=2.0, priority=3), {"oven": "hot"}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        return {"weight": workload.status["result"]["weight"]}, [Create("Loaf", run.project, self.loaf, {})]


class Shop:
    def __init__(self, store: Store) -> None:
        self.store, self.scope, self.bakery = store, store.everything("test"), Bakery()
        self.loop = Loop(store, store.clock, [self.bakery], random.Random(1))
        self.scope.write([Create("Bake", "p", "one", {"flour": 1}, {"phase": "pending"})])

    def run(self) -> Resource:
        self.loop.take_changes()
        while self.loop.step():
            self.loop.take_changes()
        return self.bake

    @property
    def bake(self) -> Resource:
        return self.scope.get("Bake", "one", "p")

    def workload(self) -> Resource:
        return next(w for w in self.scope.find_all("Workload") if w.name == workload_name(self.bake))

    def report(self, phase: str, **status: Any) -> Resource:
        workload = self.workload()
        self.scope.write([SetStatus(workload, workload.status | {"phase": phase, **status})])
        return self.run()


@pytest.fixture
def shop(sqlite_store: Store) -> Shop:
    return Shop(sqlite_store)


def test_a_run_makes_one_workload_and_remembers_what_it_chose(shop: Shop) -> None:
    bake = shop.run()
    (workload,) = shop.scope.find_all("Workload")
    assert (workload.name, workload.owner) == ("bake-one", bake.uid)
    assert workload.spec["roles"][0]["command"] == ["{python}", "-m", "bakery.oven"]
    assert workload.spec["roles"][0]["input"] == {"flour": 1}
    assert (workload.spec["roles"][0]["resources"]["cpu"], workload.spec["priority"]) == (2.0, 3)
    assert (bake.phase, bake.status["reason"], bake.status["oven"]) == ("pending", "waiting for a place", "hot")


def test_a_run_shows_how_its_workload_goes(shop: Shop) -> None:
    shop.run()
    assert shop.report("pending", reason="needs 9 cpu").status["reason"] == "needs 9 cpu"
    bake = shop.report("running", epoch=1, reason="", progress={"done": 4})
    assert (bake.phase, bake.status["progress"]) == ("running", {"done": 4})
    bake = shop.report("pending", epoch=1, reason="starting again in 4.0 s")
    assert (bake.phase, bake.status["reason"]) == ("running", "starting again in 4.0 s")


def test_a_run_whose_workload_succeeded_is_finished_once(shop: Shop) -> None:
    shop.run()
    bake = shop.report("succeeded", result={"weight": 7}, progress={"done": 9})
    assert (bake.phase, bake.status["weight"], bake.status["progress"]) == ("succeeded", 7, {"done": 9})
    shop.loop.resync()
    shop.run()
    assert len(shop.scope.find_all("Loaf")) == 1


def test_a_run_whose_workload_failed_says_why(shop: Shop) -> None:
    shop.run()
    bake = shop.report("failed", reason="main[0] exited with code 1: burnt")
    assert (bake.phase, bake.status["reason"]) == ("failed", "main[0] exited with code 1: burnt")


def test_a_run_waits_for_what_is_on_its_way(shop: Shop, clock: VirtualClock) -> None:
    shop.bakery.trouble = NotYet("waiting for flour")
    assert shop.run().status["reason"] == "waiting for flour"
    shop.bakery.trouble = None
    clock.advance(1.0)
    shop.run()
    assert shop.workload()


def test_a_wrong_run_fails_for_good_and_an_unlucky_one_is_tried_again(shop: Shop, clock: VirtualClock) -> None:
    shop.bakery.trouble = Unavailable("the mill is away")
    assert shop.run().phase == "pending"
    shop.bakery.trouble = Invalid("no such flour")
    clock.advance(1.0)
    bake = shop.run()
    assert (bake.phase, bake.status["reason"]) == ("failed", "no such flour")
    assert shop.scope.find_all("Workload") == []


def test_a_name_taken_meanwhile_is_a_conflict_not_a_failure(shop: Shop, clock: VirtualClock) -> None:
    """Two runs that end at the same moment may choose the same next version; the second chooses again."""
    shop.run()
    shop.scope.write([Create("Loaf", "p", "loaf", {})])
    assert shop.report("succeeded", result={"weight": 7}).phase == "pending"
    shop.bakery.loaf = "loaf.v2"
    clock.advance(60)
    assert shop.run().phase == "succeeded"


def test_a_result_without_what_is_needed_fails_the_run_in_words(shop: Shop) -> None:
    shop.run()
    bake = shop.report("succeeded", result={})
    assert (bake.phase, bake.status["reason"]) == (
        "failed",
        "Workload/p/bake-one left no 'weight' in its result (its engine erred)",
    )


def test_a_changed_run_is_a_new_workload_and_the_old_one_goes(shop: Shop) -> None:
    shop.run()
    shop.report("succeeded", result={"weight": 7})
    shop.scope.write([SetSpec(shop.bake, {"flour": 2})])
    bake = shop.run()
    assert (bake.phase, shop.workload().name) == ("pending", "bake-one-g2")
    assert shop.workload().spec["roles"][0]["input"] == {"flour": 2}
    assert [w.name for w in shop.scope.find_all("Workload") if w.is_deleting] == ["bake-one"]


def test_a_run_made_again_waits_for_the_workload_of_the_one_before(shop: Shop, clock: VirtualClock) -> None:
    shop.run()
    old = shop.workload()
    shop.scope.write([MarkDeleting(old)])
    shop.scope.write([Remove(shop.bake)])
    shop.scope.write([Create("Bake", "p", "one", {"flour": 3}, {"phase": "pending"})])
    assert shop.run().status["reason"] == "waiting for the end of another workload called 'bake-one'"
    left = shop.scope.by_uid(old.uid)
    assert left is not None
    shop.scope.write([Remove(left)])
    clock.advance(1.0)
    shop.run()
    assert shop.workload().spec["roles"][0]["input"] == {"flour": 3}


def test_a_run_being_deleted_is_left_alone(shop: Shop) -> None:
    shop.scope.write([MarkDeleting(shop.bake)])
    shop.run()
    assert shop.scope.find_all("Workload") == []


def test_a_workloads_name_fits_however_long_the_runs(shop: Shop) -> None:
    long = "n" * 128
    shop.scope.write([Create("Bake", "p", long, {"flour": 1}, {"phase": "pending"})])
    shop.run()
    assert len(workload_name(shop.scope.get("Bake", long, "p"))) <= 128
    assert len(shop.scope.find_all("Workload")) == 2


def test_a_run_that_is_asked_to_end_takes_its_workload_along(shop: Shop) -> None:
    shop.run()
    shop.report("running", epoch=1)
    bake = shop.bake
    shop.scope.write([SetSpec(bake, bake.spec, {CANCEL: "1.0"})])
    bake = shop.run()
    assert (bake.phase, bake.status["reason"]) == ("failed", "cancelled")
    assert shop.workload().is_deleting
