"""Placing waiting workloads: whole gangs, by priority and age, with reasons that hold numbers."""

from __future__ import annotations

from atoll.compute.scheduler import Machine, Need, Plan, Waiting, plan

GIB = 1 << 30


def need(cpu: float = 1.0, gib: float = 0, accelerators: int = 0) -> Need:
    return Need(cpu, int(gib * GIB), accelerators)


def machine(name: str, cpu: float = 4.0, gib: float = 8, accelerators: int = 0) -> Machine:
    return Machine(name, cpu, int(gib * GIB), accelerators, need(cpu, gib, accelerators))


def waiting(uid: str, *needs: Need, priority: int = 0, created_at: float = 0.0) -> Waiting:
    return Waiting(uid, priority, created_at, needs or (need(),))


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    machines = [machine("a", 2), machine("b", 2)]
    assert plan([waiting("w", *[need()] * 4)], machines).placed == {"w": ("a", "a", "b", "b")}
    decided = plan([waiting("w", *[need()] * 5)], machines)
    assert decided.placed == {}
    assert decided.reasons == {"w": "needs 5 x 1 cpu, 0.00 GiB; the freest node (a) has 2 cpu, 8.00 GiB free"}


def test_what_does_not_fit_leaves_its_room_to_the_next() -> None:
    decided = plan([waiting("big", need(9)), waiting("small")], [machine("a")])
    assert decided.placed == {"small": ("a",)}
    assert decided.reasons["big"] == (
        "needs 9 cpu, 0.00 GiB; no node is that large, the largest (a) has 4 cpu, 8.00 GiB"
    )


def test_higher_priority_goes_first_then_the_older() -> None:
    queue = [
        waiting("young", created_at=2),
        waiting("old", created_at=1),
        waiting("urgent", priority=1, created_at=3),
    ]
    assert list(plan(queue, [machine("a")]).placed) == ["urgent", "old", "young"]
    assert list(plan(queue, [machine("a", 1)]).placed) == ["urgent"]


def test_accelerators_are_not_wasted_on_who_needs_none() -> None:
    machines = [machine("gpu", accelerators=8), machine("plain")]
    decided = plan([waiting("w"), waiting("g", need(accelerators=8), created_at=1)], machines)
    assert decided.placed == {"w": ("plain",), "g": ("gpu",)}
    assert "8 accelerators" in plan([waiting("g", need(accelerators=9))], machines).reasons["g"]


def test_memory_is_counted_as_cores_are() -> None:
    decided = plan([waiting("w", need(gib=5), need(gib=5))], [machine("a")])
    assert decided.reasons["w"] == "needs 2 x 1 cpu, 5.00 GiB; the freest node (a) has 4 cpu, 8.00 GiB free"


def test_without_a_node_that_is_the_reason() -> None:
    assert plan([waiting("w")], []) == Plan({}, {"w": "no schedulable node"})


def test_tenths_of_cores_add_up() -> None:
    assert len(plan([waiting(f"w{n}", need(0.1)) for n in range(11)], [machine("a", 1)]).placed) == 10


def test_planning_changes_nothing_it_was_given() -> None:
    machines = [machine("a")]
    first = plan([waiting("w")], machines)
    assert machines == [machine("a")]
    assert plan([waiting("w")], machines) == first
