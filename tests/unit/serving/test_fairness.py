"""Who is next among those who wait."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.serving.fairness import BATCH, HIGH, HIGH_RUN_MAX, NORMAL, QUANTUM_TOKENS, FairQueue

Item = tuple[str, int]


def drain(queue: FairQueue[Item]) -> list[Item]:
    served = []
    while (item := queue.pop()) is not None:
        served.append(item)
    return served


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.25, 1.0, 3.0]), min_size=2),
    st.lists(st.integers(1, 5000), min_size=40, max_size=80),
    st.integers(1, 38),
)
def test_projects_that_all_wait_share_tokens_by_weight(weights: dict[str, float], costs: list[int], pops: int) -> None:
    """The bound of deficit round robin: at any moment one quantum and one request of each apart."""
    queue: FairQueue[Item] = FairQueue()
    for project, weight in weights.items():
        for number, tokens in enumerate(costs):
            queue.push((project, number), project, tokens, weight=weight)
    got = dict.fromkeys(weights, 0.0)
    for _ in range(pops):
        item = queue.pop()
        assert item is not None
        got[item[0]] += costs[item[1]] / weights[item[0]]
    for one in weights:
        for other in weights:
            bound = QUANTUM_TOKENS + max(costs) / weights[one] + max(costs) / weights[other]
            assert abs(got[one] - got[other]) <= bound


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10**7), st.sampled_from([HIGH, NORMAL])), max_size=60))
def test_everything_is_served_once_and_in_its_projects_order(pushes: list[tuple[str, int, int]]) -> None:
    queue: FairQueue[Item] = FairQueue()
    for number, (project, tokens, priority) in enumerate(pushes):
        queue.push((f"{project}{priority}", number), project, tokens, priority=priority)
    served = drain(queue)
    assert sorted(number for _, number in served) == list(range(len(pushes)))
    for name in {name for name, _ in served}:
        numbers = [number for other, number in served if other == name]
        assert numbers == sorted(numbers)
    assert len(queue) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 100_000), st.sampled_from([HIGH, NORMAL]), st.integers(100, 4000))
def test_nobody_starves_while_others_keep_coming(tokens: int, priority: int, others_tokens: int) -> None:
    queue: FairQueue[Item] = FairQueue()
    queue.push(("patient", 0), "patient", tokens, priority=priority)
    bound = (HIGH_RUN_MAX + 1) * (tokens // others_tokens + QUANTUM_TOKENS // others_tokens + 4)
    for count in range(bound):
        while len(queue) < 4:
            queue.push(("busy", count * 4 + len(queue)), "busy", others_tokens, priority=HIGH)
            queue.push(("other", -count * 4 - len(queue)), "other", others_tokens, priority=NORMAL)
        if queue.pop() == ("patient", 0):
            return
    raise AssertionError(f"not served within {bound}")


def test_high_goes_first_but_not_for_ever() -> None:
    queue: FairQueue[Item] = FairQueue()
    for number in range(20):
        queue.push(("high", number), "a", 1, priority=HIGH)
        queue.push(("normal", number), "b", 1)
    served = [name for name, _ in drain(queue)]
    assert served[:HIGH_RUN_MAX] == ["high"] * HIGH_RUN_MAX
    assert served[HIGH_RUN_MAX] == "normal"
    assert served[:20].count("normal") == 2


def test_batch_has_what_nobody_else_wants() -> None:
    queue: FairQueue[Item] = FairQueue()
    queue.push(("batch", 0), "a", 1, priority=BATCH)
    queue.push(("normal", 0), "b", 10**6)
    queue.push(("high", 0), "c", 10**6, priority=HIGH)
    assert [name for name, _ in drain(queue)] == ["high", "normal", "batch"]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_who_leaves_is_not_served(stays: list[bool]) -> None:
    queue: FairQueue[Item] = FairQueue()
    for number in range(len(stays)):
        queue.push(("x", number), f"p{number % 3}", 100)
    for number, stay in enumerate(stays):
        if not stay:
            queue.remove(("x", number))
    assert Counter(drain(queue)) == Counter(("x", number) for number, stay in enumerate(stays) if stay)


def test_places_are_told_in_about_the_order_of_service() -> None:
    queue: FairQueue[Item] = FairQueue()
    for number in range(3):
        queue.push(("a", number), "a", 100)
    queue.push(("b", 0), "b", 100)
    queue.push(("high", 0), "c", 100, priority=HIGH)
    assert queue.order() == [("high", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 2)]
    assert queue.best_class == HIGH
