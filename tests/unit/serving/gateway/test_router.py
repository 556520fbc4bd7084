"""The choice of a replica."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.router import CIRCUIT_FIRST_S, CIRCUIT_LONGEST_S, choose, circuit_break_s, reopens_in_s


@dataclass(eq=False)
class Place:
    outstanding: int = 0
    weight: float = 1.0
    broken_until: float = 0.0


places = st.lists(
    st.builds(Place, st.integers(0, 5), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 5.0, 15.0])), max_size=6
)


@given(places, st.integers(0, 100), st.data())
def test_choice_is_the_least_loaded_of_those_left(replicas: list[Place], turn: int, data: st.DataObject) -> None:
    tried = data.draw(st.lists(st.sampled_from(replicas), unique_by=id)) if replicas else []
    left = [r for r in replicas if r.broken_until <= 10.0 and r not in tried]
    chosen = choose(replicas, 10.0, turn, tried)
    if not left:
        assert chosen is None
    else:
        assert chosen in left
        assert chosen.outstanding / chosen.weight == min(r.outstanding / r.weight for r in left)


def test_equals_take_turns() -> None:
    replicas = [Place(), Place(), Place(outstanding=1), Place()]
    counts = Counter(replicas.index(chosen) for turn in range(9) if (chosen := choose(replicas, 0.0, turn)))
    assert counts == {0: 3, 1: 3, 3: 3}


def test_heavier_replica_takes_more() -> None:
    replicas = [Place(weight=3.0), Place(weight=1.0)]
    for turn in range(40):
        chosen = choose(replicas, 0.0, turn)
        assert chosen is not None
        chosen.outstanding += 1
    assert [r.outstanding for r in replicas] == [30, 10]


def test_circuit_break_doubles_up_to_a_bound() -> None:
    assert circuit_break_s(1) == CIRCUIT_FIRST_S
    assert circuit_break_s(2) == 2 * CIRCUIT_FIRST_S
    assert circuit_break_s(500) == CIRCUIT_LONGEST_S


def test_reopening_is_that_of_the_first_replica() -> None:
    assert reopens_in_s([Place(broken_until=12.0), Place(broken_until=11.5)], 10.0) == 1.5
    assert reopens_in_s([Place(broken_until=12.0), Place()], 10.0) == 0.0
    assert reopens_in_s([], 10.0) == 0.0
