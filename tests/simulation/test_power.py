"""The simulation can fail: each promise the world rests on, broken on purpose, is found out.

The first are the machine's side of the contract, each promise in the smallest history that needs it; the others break
the product's own code in a few random histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from atoll.compute import controllers, gang, scheduler
from atoll.compute.runtime import shim
from atoll.core import collect, reconcile
from simulation.world import Rules, World, check

SERVICE = [{"name": "main", "command": ["stubborn"], "resources": {"cpu": 1.0}}]
"""It runs for ever, and uses up whatever grace it is given."""


@contextmanager
def service_on_two_machines(rules: Rules) -> Iterator[World]:
    """A world without random faults where one task runs on one of two machines."""
    world = World(1, rules, sizes=[2.0, 2.0], mishaps=False)
    for machine in world.machines.values():
        machine.start_agent()
    world.submit("service", SERVICE)
    world.live(10.0)
    yield world
    world.centre.database.close()


def host(world: World) -> Any:
    return next(m for m in world.machines.values() if m.living)


def an_agent_that_stays_dead(world: World) -> None:
    host(world).kill_agent()
    world.live(80.0)


def an_agent_that_restarts_twice_while_cut_off(world: World) -> None:
    machine = host(world)
    machine.cut_until = world.time + 90.0
    for _ in range(2):
        world.live(14.0)
        machine.kill_agent()
        machine.start_agent()
    world.live(70.0)


def orders_that_arrive_when_they_are_old(world: World) -> None:
    """An answer with a fresh order sleeps for a minute, in which the order was given to another machine."""
    machine = next(m for m in world.machines.values() if not m.living)
    other = host(world)
    world.submit("service", [SERVICE[0] | {"resources": {"cpu": 2.0}}])
    world.centre.run()
    assert machine.agent is not None
    answer = world.centre.sync(machine.name, machine.agent.id, [])
    assert [t["workload"] for t in answer["tasks"]] == ["work-1"]
    agent, sent_at, mark = machine.agent, world.time, machine.agent.accepted
    machine.cut_until = world.time + 60.0
    world._delete("work-0")
    world.live(60.0)
    assert "work-1" in [p.spec.workload for p in other.living]
    machine._heed(agent, [], answer, sent_at, mark)
    world.live(1.0)


def answers_that_are_held_back(world: World) -> None:
    """The network takes requests at once and lets their answers trickle in, each a little less than a lease later."""
    machine = host(world)
    agent, sent_at = machine.agent, world.time
    assert agent is not None
    answer = world.centre.sync(machine.name, agent.id, [])
    for _ in range(5):
        machine.cut_until = world.time + 14.0
        world.live(14.0)
        machine.cut_until = world.time
        machine._heed(agent, [], answer, sent_at, agent.accepted)


def a_machine_that_sleeps(world: World) -> None:
    host(world).pause(60.0)
    world.live(80.0)


def a_long_grace_that_began_before_contact_was_lost(world: World) -> None:
    """Its task was asked to stop and has minutes left."""
    machine = host(world)
    (process,) = machine.living
    machine._stop(process.spec.uid, "asked to stop", 600.0)
    machine.cut_until = world.time + 300.0
    world.live(60.0)


@pytest.mark.parametrize(
    ("story", "broken"),
    [
        (an_agent_that_stays_dead, Rules(shims_fence=False)),
        (an_agent_that_restarts_twice_while_cut_off, Rules(agents_remember_contact=False)),
        (orders_that_arrive_when_they_are_old, Rules(orders_expire=False)),
        (answers_that_are_held_back, Rules(contact_counts_from_the_request=False)),
        (a_machine_that_sleeps, Rules(clocks_count_sleep=False)),
        (a_long_grace_that_began_before_contact_was_lost, Rules(graces_are_cut=False)),
    ],
)
def test_a_task_is_doubled_only_where_the_contract_is_broken(story: Callable[[World], None], broken: Rules) -> None:
    with service_on_two_machines(Rules()) as world:
        story(world)
    with (
        pytest.raises(AssertionError, match=r"(started|goes on) on .* while epoch \d lives"),
        service_on_two_machines(broken) as world,
    ):
        story(world)


def test_a_lease_renewed_after_its_end_doubles_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that wakes up may hear of the centre before its shims have looked at the clock."""
    monkeypatch.setattr(shim, "renewed", lambda known_s, at_s, _: max(known_s, at_s))
    doubled = pytest.raises(AssertionError, match="after a pause while epoch 2 lives")
    with doubled, service_on_two_machines(Rules()) as world:
        a_machine_that_sleeps(world)


def without_the_stop(decide: Callable[..., gang.Decision]) -> Callable[..., gang.Decision]:
    return lambda *arguments: replace(decide(*arguments), stop=())


def without_waiting(follow: Callable[..., gang.Decision]) -> Callable[..., gang.Decision]:
    return lambda workload, status, current, living, now: follow(workload, status, current, (), now)


BREAKS: list[tuple[str, Any, str, Callable[[Any], Any]]] = [
    ("tasks that are not asked to stop", gang, "_wind_down", without_the_stop),
    ("a gang that restarts beside its last ranks", gang, "_follow", without_waiting),
    ("a node given up before its agent gave up its tasks", controllers, "LOST_AFTER_TTLS", lambda _: 0.5),
    ("shims that kill too late", shim, "KILL_AFTER_TTLS", lambda _: 4.0),
    ("a gang of which one rank is made", controllers, "_tasks", lambda make: lambda *given: make(*given)[:1]),
    ("a scheduler that does not count", scheduler.Machine, "fits", lambda _: lambda machine, need: True),
    ("controllers without a fence", reconcile.Writer, "write", lambda _: lambda self, *ops: self.scope.write(ops)),
    ("a collector that holds nothing back", collect, "_is_held", lambda _: lambda resource: False),
]


@pytest.mark.parametrize(("owner", "name", "breaking"), [b[1:] for b in BREAKS], ids=[b[0] for b in BREAKS])
def test_the_simulation_finds(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, breaking: Any) -> None:
    monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))
    with pytest.raises(AssertionError, match=r"see it again: python tests/simulation/replay\.py"):
        for seed in range(30):
            check(seed)
