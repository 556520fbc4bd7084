"""Which target and which replica take a request."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.router import (
    CIRCUIT_FIRST_S,
    CIRCUIT_LONGEST_S,
    LOAD_FACTOR,
    PrefixTable,
    beginnings,
    choose,
    circuit_break_s,
    load_bound,
    reopens_in_s,
    spread,
    stick,
    usable,
)


@dataclass(eq=False)
class Place:
    id: str = ""
    outstanding: int = 0
    weight: float = 1.0
    slots: int = 1000
    broken_until: float = 0.0
    seen: list[bytes] = field(default_factory=list)


def fleet(count: int, **fields: int) -> list[Place]:
    return [Place(f"r-{i}", **fields) for i in range(count)]


places = st.lists(
    st.builds(
        Place,
        st.uuids().map(str),
        st.integers(0, 5),
        st.sampled_from([0.5, 1.0, 2.0]),
        st.integers(1, 6),
        st.sampled_from([0.0, 5.0, 15.0]),
    ),
    max_size=6,
)


# replicas


@given(places, st.integers(0, 100), st.data())
def test_choice_is_the_least_loaded_of_those_left(replicas: list[Place], turn: int, data: st.DataObject) -> None:
    tried = data.draw(st.lists(st.sampled_from(replicas), unique_by=id)) if replicas else []
    left = usable(replicas, 10.0, tried)
    free = [r for r in left if r.outstanding < r.slots]
    choice = choose(left, turn)
    assert all(r.broken_until <= 10.0 and r not in tried for r in left)
    if not free:
        assert choice is None
    else:
        assert choice is not None and choice.replica in free
        assert choice.replica.outstanding / choice.replica.weight == min(r.outstanding / r.weight for r in free)


@given(places, st.integers(0, 100), st.binary(max_size=4), st.floats(0, 1), st.data())
def test_affinity_never_takes_a_full_replica_nor_one_past_the_bound(
    replicas: list[Place], turn: int, session: bytes, share: float, data: st.DataObject
) -> None:
    holders = data.draw(st.lists(st.sampled_from(replicas), unique_by=id)) if replicas else []
    choice = choose(replicas, turn, holders=holders, share=share, session=session)
    free = [r for r in replicas if r.outstanding < r.slots]
    assert (choice is None) == (not free)
    if choice is not None and choice.replica.outstanding / choice.replica.weight > min(
        r.outstanding / r.weight for r in free
    ):
        assert (choice.replica.outstanding + 1) / choice.replica.weight <= load_bound(replicas)


def test_equals_take_turns() -> None:
    replicas = [Place(), Place(), Place(outstanding=1), Place()]
    counts = Counter(replicas.index(choice.replica) for turn in range(9) if (choice := choose(replicas, turn)))
    assert counts == {0: 3, 1: 3, 3: 3}


def test_heavier_replica_takes_more() -> None:
    replicas = [Place(weight=3.0), Place(weight=1.0)]
    for turn in range(40):
        choice = choose(replicas, turn)
        assert choice is not None
        choice.replica.outstanding += 1
    assert [r.outstanding for r in replicas] == [30, 10]


def test_session_stays_and_moves_only_with_its_replica() -> None:
    replicas = fleet(5)
    sessions = [f"session-{i}".encode() for i in range(200)]
    home = {s: choice.replica for s in sessions if (choice := choose(replicas, 0, session=s))}
    assert len({r.id for r in home.values()}) == 5
    left = replicas[1:]
    for turn, session in enumerate(sessions):
        choice = choose(left, turn, session=session)
        assert choice is not None
        assert home[session] is replicas[0] or choice.replica is home[session]


def test_busy_home_of_a_session_is_left_at_the_bound() -> None:
    replicas = fleet(4)
    for turn in range(100):
        choice = choose(replicas, turn, session=b"everybody")
        assert choice is not None
        assert choice.replica.outstanding + 1 <= LOAD_FACTOR * (turn + 1) / 4 + 1
        choice.replica.outstanding += 1


# targets


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.integers(0, 10_000))
def test_targets_share_any_stretch_of_requests_by_weight(weights: list[float], start: int) -> None:
    counts = Counter(spread(weights, turn) for turn in range(start, start + 1000))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - 1000 * weight / sum(weights)) <= 15


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=5).filter(any), st.integers(0, 10**9))
def test_target_of_weight_zero_gets_nothing(weights: list[float], turn: int) -> None:
    assert weights[spread(weights, turn)] > 0
    assert weights[stick(weights, b"%d" % turn)] > 0


def test_sessions_share_by_weight_and_stay() -> None:
    sessions = [random.Random(i).randbytes(8) for i in range(4000)]
    counts = Counter(stick([0.9, 0.1], session) for session in sessions)
    assert 320 <= counts[1] <= 480
    assert all(stick([0.9, 0.1], s) == stick([0.9, 0.1], s) for s in sessions)


# circuit breaks


def test_circuit_break_doubles_up_to_a_bound() -> None:
    assert circuit_break_s(1) == CIRCUIT_FIRST_S
    assert circuit_break_s(2) == 2 * CIRCUIT_FIRST_S
    assert circuit_break_s(500) == CIRCUIT_LONGEST_S


def test_reopening_is_that_of_the_first_replica() -> None:
    assert reopens_in_s([Place(broken_until=12.0), Place(broken_until=11.5)], 10.0) == 1.5
    assert reopens_in_s([Place(broken_until=12.0), Place()], 10.0) == 0.0
    assert reopens_in_s([], 10.0) == 0.0


# prefixes


@given(st.binary(max_size=4000), st.binary(max_size=2000))
def test_prompt_that_goes_on_shares_most_of_the_first(first: bytes, more: bytes) -> None:
    shorter, longer = beginnings(first), beginnings(first + more)
    assert longer[: len(shorter)] == shorter
    if len(first) >= 128:
        assert shorter[-1].size >= 0.79 * len(first)


def test_other_weights_share_no_beginning() -> None:
    text = b"the same words " * 50
    assert not {b.mark for b in beginnings(text, 1)} & {b.mark for b in beginnings(text, 2)}


def test_table_finds_the_longest_beginning_and_forgets_the_oldest() -> None:
    first, second = fleet(2)
    table: PrefixTable[Place] = PrefixTable(marks_max=40)
    system = b"s" * 1000
    table.note(beginnings(system + b"a" * 3000), first)
    table.note(beginnings(system + b"b" * 3000), second)
    holders, size = table.find(beginnings(system + b"a" * 3000 + b"more"), [first, second])
    assert holders == [first] and size > 3000
    holders, size = table.find(beginnings(system + b"c" * 3000), [first, second])
    assert holders == [second, first] and 700 < size <= 1000
    assert table.find(beginnings(system + b"a" * 3000), [second])[0] == [second]
    for number in range(50):
        table.note(beginnings(b"%d" % number * 500), first)
    assert len(table) <= 40
    assert table.find(beginnings(system + b"b" * 3000), [first, second]) == ([], 0)


def converse(replicas: list[Place], *, has_affinity: bool, chance: random.Random) -> float:
    """Multi-turn conversations, some at a time, over replicas that keep 8 prompts each: the part found in caches."""
    table: PrefixTable[Place] = PrefixTable()
    talks = [b"system %d " % (i % 3) * 30 + chance.randbytes(400) for i in range(60)]
    running: list[tuple[int, Place]] = []
    found = asked = 0
    turns = [i for i in range(60) for _ in range(5)]
    chance.shuffle(turns)
    for turn, i in enumerate(turns):
        if len(running) >= 6:
            _, done = running.pop(chance.randrange(len(running)))
            done.outstanding -= 1
        prompt = beginnings(talks[i])
        holders, size = table.find(prompt, replicas) if has_affinity else ([], 0)
        choice = choose(replicas, turn, holders=holders, share=size / len(talks[i]))
        assert choice is not None
        replica = choice.replica
        replica.outstanding += 1
        assert replica.outstanding <= LOAD_FACTOR * sum(r.outstanding for r in replicas) / len(replicas) + 1
        running.append((i, replica))
        table.note(prompt, replica)
        common = max((len_common(talks[i], seen) for seen in replica.seen), default=0)
        found, asked = found + common, asked + len(talks[i])
        talks[i] += chance.randbytes(200)
        replica.seen = [*replica.seen[-23:], talks[i]]
    return found / asked


def len_common(one: bytes, other: bytes) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_conversations_find_their_beginnings_within_the_load_bound() -> None:
    with_it = converse(fleet(3), has_affinity=True, chance=random.Random(5))
    without = converse(fleet(3), has_affinity=False, chance=random.Random(5))
    assert with_it > 0.65 and with_it > without + 0.15, (with_it, without)
