"""How many replicas for which load: every rule by itself, then whole days replayed on simulated replicas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.serving.autoscale import Decision, Load, State, Targets, decide
from scaling import ORIGINS, Replay, Trace, alibaba, generated

SPEC = Targets(min=0, max=8, concurrency=4.0, queue=1.0, idle_s=300.0, scale_down_s=60.0)
SLOTS = 5
NOW = 1_000_000.0


def load(average: float = 0.0, **fields: object) -> Load:
    told = {"outstanding": int(average), "average": average, "ready": 1, "idle_s": 0.0 if average else 10.0}
    return Load(**(told | fields))  # type: ignore[arg-type]


def state(wanted: int, **fields: object) -> State:
    return State(wanted, NOW - 1000, **fields)  # type: ignore[arg-type]


def after(load: Load, wanted: int, spec: Targets = SPEC) -> Decision:
    return decide(spec, SLOTS, load, NOW, state(wanted))


def test_a_deployment_begins_with_the_replicas_it_is_given() -> None:
    assert State.from_dict({}, 1, NOW) == State(1, NOW)
    kept = state(3, wishes=((NOW, 3), (NOW + 6, 1)))
    assert State.from_dict(kept.to_dict(), 1, NOW) == kept


def test_asleep_it_stays_until_a_request_waits_and_then_wakes_at_once() -> None:
    assert after(load(0.0, ready=0), 0).wanted == 0
    woken = after(load(0.0, queued=1, ready=0), 0)
    assert (woken.wanted, woken.reason) == (1, "1 request came while it was asleep")
    assert woken.state.awake_at == NOW
    assert after(load(0.0, queued=40, ready=0), 0).wanted == 8


def test_more_requests_than_aimed_at_ask_for_more_replicas() -> None:
    up = after(load(11.0), 1)
    assert (up.wanted, up.reason) == (3, "11.0 requests at a time, 4 aimed at for each replica")


def test_without_a_concurrency_it_aims_at_four_fifths_of_the_slots() -> None:
    assert after(load(12.0), 1, replace(SPEC, concurrency=None)).wanted == 3


def test_a_tenth_more_than_aimed_at_changes_nothing() -> None:
    assert after(load(8.7), 2).wanted == 2
    assert after(load(8.9), 2).wanted == 3


def test_waiting_requests_ask_for_more_before_the_average_has_risen() -> None:
    up = after(load(3.0, queued=9, outstanding=5), 1)
    assert (up.wanted, up.reason) == (4, "9 requests waiting, 5 in work")
    assert after(load(3.0, queued=1, outstanding=5), 1).wanted == 1


def test_a_queue_that_waits_for_starting_replicas_asks_for_no_more() -> None:
    assert after(load(3.0, queued=9, outstanding=5, ready=1), 4).wanted == 4


def test_a_late_first_token_asks_for_at_most_twice_as_many() -> None:
    spec = replace(SPEC, ttft_s=1.0)
    up = after(load(4.0, ttft_p95_s=9.0, ready=2), 2, spec)
    assert (up.wanted, up.reason) == (4, "first token after 9.0 s, 1 s aimed at")
    assert after(load(4.0, ttft_p95_s=1.4, ready=2), 2, spec).wanted == 3
    assert after(load(4.0, ttft_p95_s=9.0, ready=2), 4, spec).wanted == 4, "those that start are waited for"


def test_never_more_than_max_nor_fewer_than_min() -> None:
    assert after(load(500.0), 1).wanted == 8
    assert decide(replace(SPEC, min=2), SLOTS, load(0.0, idle_s=9999.0), NOW, state(2)).wanted == 2
    assert after(load(1.0), 20).wanted == 8


def test_it_sleeps_after_idle_s_without_a_request_and_not_before() -> None:
    assert after(load(0.0, idle_s=299.0), 1).wanted == 1
    asleep = after(load(0.0, idle_s=300.0), 1)
    assert (asleep.wanted, asleep.reason) == (0, "no request for 300 s")
    assert decide(SPEC, SLOTS, load(0.0, idle_s=None), NOW, State(1, NOW - 10)).wanted == 1
    assert decide(SPEC, SLOTS, load(0.0, idle_s=9999.0), NOW, State(1, NOW - 10)).wanted == 1, "just woken"


def test_fewer_replicas_only_after_scale_down_s_of_fewer_wishes() -> None:
    present, wanted = state(4), []
    for second in range(0, 200, 2):
        decision = decide(SPEC, SLOTS, load(3.0), NOW + second, present)
        present = decision.state
        wanted.append((second, decision.wanted))
    first_lower = next(second for second, count in wanted if count < 4)
    assert 60 <= first_lower <= 68
    assert wanted[-1][1] == 1


def test_a_wish_for_more_in_between_keeps_as_many_as_it_asked_for() -> None:
    present = state(6)
    for second in range(0, 66, 2):
        present = decide(SPEC, SLOTS, load(14.0 if second == 30 else 3.0), NOW + second, present).state
    assert present.wanted == 4


def test_a_steady_load_leaves_the_memory_as_it_is() -> None:
    kept = state(2)
    assert decide(SPEC, SLOTS, load(7.0), NOW, kept).state == replace(kept, wishes=())
    lower = decide(SPEC, SLOTS, load(3.0), NOW + 1, kept).state
    assert decide(SPEC, SLOTS, load(3.0), NOW + 2, lower).state == lower, "within a tenth of scale_down_s"


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_replayed_day_neither_flaps_nor_starves_nor_wastes(origin: str) -> None:
    trace = alibaba() if origin == "alibaba" else generated(origin)
    if trace is None:
        pytest.skip("the recorded trace is not on this machine")
    replay = Replay(trace, Targets(min=0, max=trace.most, idle_s=300.0, scale_down_s=60.0), slots=4, start_s=20.0)
    result = replay.run()
    assert result.fewest_between_turns_s >= 60.0, "it goes down only scale_down_s after it went up"
    assert result.turns_per_hour <= 8.0
    assert result.waited_p95_s <= 20.0 / 2
    assert result.waited_longest_s <= 20.0 + 3.0, "nobody waits longer than for one start"
    assert result.replica_s <= 1.75 * result.oracle_s
    assert result.replica_s <= 0.3 * result.always_max_s


def test_a_trace_of_nothing_sleeps_all_day() -> None:
    result = Replay(Trace("nothing", (), 2, 7200.0), SPEC, slots=4, start_s=20.0).run()
    assert result.replica_s <= 301.0
