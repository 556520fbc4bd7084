"""Nodes judged by their leases, tasks ended in their agents' stead, gangs admitted whole, by the real store."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atoll.compute.controllers import AWAY_REASON, NodeController, TaskController, WorkloadController, node_lease
from atoll.compute.resources import NODE, WORKLOAD
from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.leases import Leases
from atoll.core.reconcile import Loop
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.store import Create, MarkDeleting, SetSpec, SetStatus, Store

TTL_S = 10.0


class Fleet:
    """A small centre: the fleet's controllers over a store, and agents that say what a test lets them say."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store, self.clock = store, clock
        self.scope = store.everything("test")
        self.agents = Leases(store.database, clock)
        self.restart()

    def restart(self) -> None:
        """New controllers that remember nothing."""
        leases = Leases(self.store.database, self.clock)
        controllers = [NodeController(leases, TTL_S), TaskController(), WorkloadController(), Collector()]
        self.loop = Loop(self.store, self.clock, controllers, random.Random(1))

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and the controllers work all the while."""
        end = self.clock.monotonic() + seconds
        while True:
            self.loop.take_changes()
            while self.loop.step():
                self.loop.take_changes()
            wait_s = max(self.loop.next_due_s(), 0.01)
            if self.clock.monotonic() + wait_s > end:
                self.clock.advance(end - self.clock.monotonic())
                return
            self.clock.advance(wait_s)

    def join(self, name: str, cpu: float = 4.0) -> None:
        spec = NODE.parse_spec({"inventory": {"cpu": cpu, "memory_bytes": 1 << 40}})
        self.scope.write([Create("Node", SYSTEM_PROJECT, name, spec, {"phase": "pending"})])
        self.agents.take(node_lease(name), f"agent of {name}")

    def beat(self, name: str) -> None:
        lease = self.agents.read(node_lease(name))
        assert lease is not None
        self.agents.renew(lease)

    def live(self, seconds: float, *names: str) -> None:
        """Let time pass while the agents of `names` show life."""
        for _ in range(round(seconds / 2)):
            for name in names:
                self.beat(name)
            self.run(2.0)

    def submit(self, name: str, **spec: Any) -> None:
        spec = {"roles": [{"command": ["x"], "count": spec.pop("count", 1)}], **spec}
        self.scope.write([Create("Workload", "p", name, WORKLOAD.parse_spec(spec), {"phase": "pending"})])
        self.run()

    def node(self, name: str) -> Resource:
        return self.scope.get("Node", name, SYSTEM_PROJECT)

    def workload(self, name: str) -> Resource:
        return self.scope.get("Workload", name, "p")

    def tasks(self, name: str) -> list[Resource]:
        return sorted(self.scope.children(self.workload(name).uid), key=lambda t: (t.spec["epoch"], t.spec["rank"]))

    def report(self, task: Resource, phase: str, **status: Any) -> None:
        current = self.scope.by_uid(task.uid)
        assert current is not None
        self.scope.write([SetStatus(current, current.status | {"phase": phase, **status})])
        self.run()


@pytest.fixture
def fleet(sqlite_store: Store, clock: VirtualClock) -> Fleet:
    return Fleet(sqlite_store, clock)


def test_a_node_that_shows_life_is_schedulable(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.live(60, "a")
    assert fleet.node("a").phase == "schedulable"


def test_a_node_is_lost_after_two_lease_times_of_silence_and_back_with_its_first_sign(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.run(2 * TTL_S)
    assert fleet.node("a").phase == "schedulable"
    fleet.run(TTL_S)
    node = fleet.node("a")
    assert (node.phase, node.status["reason"]) == ("lost", "silent for more than 20 s")
    assert node.status["silent_s"] > 20
    fleet.beat("a")
    fleet.run(TTL_S / 2)
    assert (fleet.node("a").phase, fleet.node("a").status["silent_s"]) == ("schedulable", 0.0)


def test_a_lost_node_stays_lost_for_controllers_that_start_anew(fleet: Fleet) -> None:
    """Their first look at a lease tells nothing; work must not be placed on a dead machine."""
    fleet.join("a")
    fleet.run(4 * TTL_S)
    fleet.restart()
    fleet.submit("w")
    fleet.run(4 * TTL_S)
    assert fleet.node("a").phase == "lost"
    assert fleet.workload("w").status["reason"] == "no schedulable node"
    assert fleet.tasks("w") == []


def test_a_node_whose_agent_never_took_its_lease_is_lost_too(fleet: Fleet) -> None:
    fleet.scope.write([Create("Node", SYSTEM_PROJECT, "ghost", NODE.parse_spec({}), {"phase": "pending"})])
    fleet.run(4 * TTL_S)
    assert fleet.node("ghost").phase == "lost"


def test_a_wall_clock_that_jumps_loses_no_node(fleet: Fleet, clock: VirtualClock) -> None:
    fleet.join("a")
    for jump in (1e7, -2e7):
        clock.jump(jump)
        fleet.live(10, "a")
        assert fleet.node("a").phase == "schedulable"


def test_tasks_of_a_lost_node_are_lost_and_their_gang_starts_elsewhere(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w", count=2)
    fleet.join("b")
    for task in fleet.tasks("w"):
        fleet.report(task, "running")
    fleet.live(50, "b")
    old, new = fleet.tasks("w")[:2], fleet.tasks("w")[2:]
    assert [t.phase for t in old] == ["lost", "lost"]
    assert old[0].status["reason"] == "node a was lost"
    assert [(t.spec["node"], t.spec["epoch"], t.phase) for t in new] == [("b", 2, "pending")] * 2
    assert fleet.workload("w").status["restarts"] == 1


def away(fleet: Fleet, name: str = "w", **spec: Any) -> Resource:
    """A task that may run on without contact, on node a, which is lost; no other node is there."""
    fleet.join("a")
    fleet.submit(name, on_partition="continue", **spec)
    (task,) = fleet.tasks(name)
    fleet.report(task, "running")
    fleet.run(3 * TTL_S)
    assert fleet.node("a").phase == "lost"
    return fleet.tasks(name)[0]


def test_a_task_that_may_run_on_keeps_its_place_on_a_lost_node_and_says_so(fleet: Fleet) -> None:
    task = away(fleet)
    assert (task.phase, task.status["reason"]) == ("running", AWAY_REASON)
    assert (fleet.workload("w").phase, fleet.workload("w").status["reason"]) == ("running", AWAY_REASON)
    fleet.restart()
    fleet.live(2 * TTL_S, "a")
    (same,) = fleet.tasks("w")
    assert (same.uid, same.phase, same.status["reason"]) == (task.uid, "running", "")
    assert (fleet.workload("w").status["epoch"], fleet.workload("w").status["reason"]) == (1, "")


def test_a_task_that_may_run_on_is_replaced_once_there_is_room_elsewhere(fleet: Fleet) -> None:
    away(fleet)
    fleet.submit("other", priority=9, roles=[{"command": ["x"], "resources": {"cpu": 4.0}}])
    fleet.join("b")
    fleet.live(20, "b")
    assert [t.phase for t in fleet.tasks("w")] == ["running"], "what waits has the first claim"
    fleet.join("c")
    fleet.live(20, "b", "c")
    assert [(t.spec["node"], t.spec["epoch"], t.phase) for t in fleet.tasks("w")] == [
        ("a", 1, "lost"),
        ("c", 2, "pending"),
    ]


def test_a_task_that_may_run_on_is_given_up_when_it_shall_stop_or_its_node_is_removed(fleet: Fleet) -> None:
    away(fleet, "removed")
    fleet.scope.write([MarkDeleting(fleet.node("a"))])
    fleet.run(1.0)
    assert fleet.scope.find("Node", "a", SYSTEM_PROJECT) is None
    assert [t.phase for t in fleet.tasks("removed")] == ["lost"]
    away(fleet, "deleted")
    fleet.scope.write([MarkDeleting(fleet.workload("deleted"))])
    fleet.run(1.0)
    assert fleet.scope.find("Workload", "deleted", "p") is None


def test_a_gang_with_a_lost_rank_is_replaced_where_it_fits_without_what_is_left_of_it(fleet: Fleet) -> None:
    fleet.join("a", cpu=2.0)
    fleet.join("b", cpu=2.0)
    role = {"command": ["x"], "count": 2, "resources": {"cpu": 2.0}}
    fleet.submit("w", roles=[role], on_partition="continue")
    for task in fleet.tasks("w"):
        fleet.report(task, "running")
    fleet.live(3 * TTL_S, "b")
    assert [t.phase for t in fleet.tasks("w")] == ["running", "running"], "two ranks do not fit on b"
    fleet.join("c", cpu=2.0)
    fleet.live(3 * TTL_S, "b", "c")
    assert [(t.spec["node"], t.phase, t.spec["stop"]) for t in fleet.tasks("w")] == [
        ("a", "lost", False),
        ("b", "running", True),
    ]


def test_a_cordoned_node_takes_no_new_tasks_and_keeps_the_old(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("old")
    node = fleet.node("a")
    fleet.scope.write([SetSpec(node, node.spec | {"cordoned": True})])
    fleet.submit("new")
    assert (fleet.node("a").phase, fleet.workload("new").phase) == ("cordoned", "pending")
    assert [t.phase for t in fleet.tasks("old")] == ["pending"]
    node = fleet.node("a")
    fleet.scope.write([SetSpec(node, node.spec | {"cordoned": False})])
    fleet.run()
    assert fleet.workload("new").phase == "starting"


def test_a_deleted_node_goes_when_its_tasks_have_ended(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w")
    (task,) = fleet.tasks("w")
    fleet.report(task, "running")
    fleet.scope.write([MarkDeleting(fleet.node("a"))])
    fleet.live(4, "a")
    assert (fleet.node("a").phase, fleet.node("a").status["reason"]) == ("draining", "1 tasks are ending")
    assert fleet.tasks("w")[0].spec["stop"] is True
    fleet.report(task, "failed", signal=15)
    fleet.run(4)
    assert fleet.scope.find("Node", "a", SYSTEM_PROJECT) is None
    assert fleet.agents.read(node_lease("a")) is None  # an agent still there is told to register again
    assert (fleet.workload("w").phase, fleet.workload("w").status.get("restarts", 0)) == ("pending", 0)


def test_a_deleted_node_that_is_dead_goes_when_it_is_lost(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w")
    fleet.scope.write([MarkDeleting(fleet.node("a"))])
    fleet.run(4 * TTL_S)
    assert fleet.scope.find("Node", "a", SYSTEM_PROJECT) is None
    assert fleet.tasks("w")[0].phase == "lost"


def test_a_gang_is_admitted_whole_with_ranks_through_its_roles(fleet: Fleet) -> None:
    fleet.join("a", 2)
    fleet.join("b", 2)
    roles = [
        {"name": "chief", "command": ["c"], "input": {"x": 1}, "env": {"E": "1"}},
        {"name": "worker", "command": ["w"], "count": 2},
    ]
    fleet.submit("w", roles=roles, stop_grace_s=3, on_partition="continue")
    specs = [t.spec for t in fleet.tasks("w")]
    assert [(s["role"], s["index"], s["rank"], s["world_size"]) for s in specs] == [
        ("chief", 0, 0, 3),
        ("worker", 0, 1, 3),
        ("worker", 1, 2, 3),
    ]
    assert (specs[0]["input"], specs[0]["env"], specs[0]["stop_grace_s"]) == ({"x": 1}, {"E": "1"}, 3)
    assert {s["on_partition"] for s in specs} == {"continue"}
    workload = fleet.workload("w")
    assert (workload.phase, workload.status["epoch"]) == ("starting", 1)
    assert workload.status["nodes"] == [s["node"] for s in specs]


def test_waiting_workloads_say_why_and_start_when_there_is_room(fleet: Fleet) -> None:
    fleet.join("a", 1)
    fleet.submit("first")
    fleet.submit("second")
    assert fleet.workload("second").status["reason"] == (
        "needs 1 cpu, 0.00 GiB; the freest node (a) has 0 cpu, 1024.00 GiB free"
    )
    fleet.report(fleet.tasks("first")[0], "succeeded", exit_code=0, result={"n": 1})
    assert (fleet.workload("first").phase, fleet.workload("first").status["result"]) == ("succeeded", {"n": 1})
    assert fleet.workload("second").phase == "starting"


def test_a_failed_gang_starts_again_when_its_wait_is_over(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w", restart={"backoff_min_s": 4.0})
    fleet.report(fleet.tasks("w")[0], "failed", exit_code=1)
    assert "starting again in 4.0 s" in fleet.workload("w").status["reason"]
    fleet.run(3.9)
    assert len(fleet.tasks("w")) == 1
    fleet.run(0.2)
    assert [t.spec["epoch"] for t in fleet.tasks("w")] == [1, 2]


def test_tasks_of_long_gone_epochs_are_forgotten(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w", restart={"backoff_max_s": 0.5})
    for _ in range(8):
        fleet.report(fleet.tasks("w")[-1], "failed", exit_code=1)
        fleet.live(2, "a")
    assert [t.spec["epoch"] for t in fleet.tasks("w")] == [7, 8, 9]


def test_a_deleted_workload_goes_when_its_tasks_have_ended(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w")
    (task,) = fleet.tasks("w")
    fleet.report(task, "running")
    fleet.scope.write([MarkDeleting(fleet.workload("w"))])
    fleet.live(10, "a")
    assert fleet.tasks("w")[0].spec["stop"] is True
    assert fleet.workload("w").phase == "stopping"
    fleet.report(task, "failed", signal=15)
    fleet.live(2, "a")
    assert fleet.scope.find_all("Workload") == fleet.scope.find_all("Task") == []


def test_a_suspended_workload_stops_and_goes_on_when_resumed(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.submit("w")
    (task,) = fleet.tasks("w")
    fleet.report(task, "running")
    workload = fleet.workload("w")
    fleet.scope.write([SetSpec(workload, workload.spec | {"suspended": True})])
    fleet.run()
    assert fleet.tasks("w")[0].spec["stop"] is True
    fleet.report(task, "failed", signal=15)
    workload = fleet.workload("w")
    assert (workload.phase, workload.status["reason"]) == ("pending", "suspended")
    fleet.scope.write([SetSpec(workload, workload.spec | {"suspended": False})])
    fleet.run()
    assert [t.spec["epoch"] for t in fleet.tasks("w")] == [1, 2]
