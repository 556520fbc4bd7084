"""Whatever waits and whatever is there: never over capacity, gangs whole, and a reason for who waits."""

from __future__ import annotations

import re
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from atoll.compute.scheduler import Machine, Need, Waiting, plan

needs = st.builds(Need, st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), st.integers(0, 8), st.integers(0, 2))
queues = st.lists(
    st.builds(
        Waiting,
        uid=st.uuids().map(str),
        priority=st.integers(-1, 1),
        created_at=st.floats(0, 10),
        needs=st.lists(needs, min_size=1, max_size=5).map(tuple),
    ),
    max_size=12,
    unique_by=lambda w: w.uid,
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Machine]:
    machines = []
    for number in range(draw(st.integers(0, 5))):
        has = draw(st.builds(Need, st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 16), st.integers(0, 4)))
        used = draw(st.sampled_from([0.0, 0.5, 1.0, 1.5]))
        free = Need(has.cpu * (1 - used), round(has.memory_bytes * (1 - used)), round(has.accelerators * (1 - used)))
        machines.append(Machine(f"m{number}", has.cpu, has.memory_bytes, has.accelerators, free))
    return machines


@given(queues, fleets())
def test_a_plan_never_gives_away_more_than_is_free(queue: list[Waiting], fleet: list[Machine]) -> None:
    placed = plan(queue, fleet).placed
    given_away: dict[str, list[Need]] = defaultdict(list)
    for workload in queue:
        for need, node in zip(workload.needs, placed.get(workload.uid, ()), strict=False):
            given_away[node].append(need)
    for machine in fleet:
        if not given_away[machine.name]:
            continue
        assert sum(n.cpu for n in given_away[machine.name]) <= machine.free.cpu + 1e-6
        assert sum(n.memory_bytes for n in given_away[machine.name]) <= machine.free.memory_bytes
        assert sum(n.accelerators for n in given_away[machine.name]) <= machine.free.accelerators


@given(queues, fleets())
def test_each_is_placed_whole_or_told_why_not_with_numbers(queue: list[Waiting], fleet: list[Machine]) -> None:
    decided = plan(queue, fleet)
    assert decided.placed.keys() ^ decided.reasons.keys() == {w.uid for w in queue}
    assert not decided.placed.keys() & decided.reasons.keys()
    names = {machine.name for machine in fleet}
    for workload in queue:
        if workload.uid in decided.placed:
            assert len(decided.placed[workload.uid]) == len(workload.needs)
            assert set(decided.placed[workload.uid]) <= names
        else:
            reason = decided.reasons[workload.uid]
            assert re.search(r"needs .*\d cpu.*; .*\d cpu", reason) or (not fleet and reason == "no schedulable node")


@given(queues, fleets(), st.randoms())
def test_the_same_world_gives_the_same_plan_in_any_order(queue: list[Waiting], fleet: list[Machine], rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(queue)
    rng.shuffle(shuffled)
    assert plan(shuffled, fleet) == plan(queue, fleet)


@given(queues, fleets())
def test_who_goes_first_is_never_worse_off_for_those_behind(queue: list[Waiting], fleet: list[Machine]) -> None:
    in_order = sorted(queue, key=lambda w: (-w.priority, w.created_at, w.uid))
    for count in range(len(in_order)):
        alone = plan(in_order[: count + 1], fleet)
        assert in_order[count].uid in alone.placed or in_order[count].uid not in plan(queue, fleet).placed
