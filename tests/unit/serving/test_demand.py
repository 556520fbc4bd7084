"""Load reports: summed over gateways, averaged over time, forgotten when a gateway falls silent."""

from __future__ import annotations

import pytest

from atoll.core.database import Database
from atoll.serving.autoscale import Load
from atoll.serving.demand import AVERAGE_S, SILENT_S, Demand

NOW = 1e9


@pytest.fixture
def demand(database: Database) -> Demand:
    return Demand(database)


def test_of_what_nobody_spoke_of_there_is_no_load(demand: Demand) -> None:
    assert demand.of("t", NOW, 2) == Load(ready=2)
    assert demand.hosts(NOW) == 0


def test_gateways_add_up_and_the_worst_wait_counts(demand: Demand) -> None:
    demand.report("g1", "h1", {"t": {"outstanding": 2, "queued": 1, "ttft_p95_s": 0.5}}, NOW)
    demand.report("g2", "h1", {"t": {"outstanding": 3, "ttft_p95_s": 2.0}, "u": {"outstanding": 9}}, NOW)
    load = demand.of("t", NOW)
    assert (load.outstanding, load.queued, load.busy, load.ttft_p95_s) == (5, 1, 6, 2.0)
    assert demand.hosts(NOW) == 1


def test_the_average_follows_slowly_and_forgets_slowly(demand: Demand) -> None:
    demand.report("g", "h", {"t": {"outstanding": 10}}, NOW)
    assert demand.of("t", NOW).average == 0.0
    for second in range(1, int(AVERAGE_S) + 1):
        demand.report("g", "h", {"t": {"outstanding": 10}}, NOW + second)
    assert demand.of("t", NOW + AVERAGE_S).average == pytest.approx(10 * (1 - 1 / 2.71828), rel=0.01)
    demand.report("g", "h", {}, NOW + AVERAGE_S)
    assert demand.of("t", NOW + AVERAGE_S + 10).average < 6.32 * 0.62


def test_a_report_says_at_which_targets_requests_began_to_wait(demand: Demand) -> None:
    assert demand.report("g", "h", {"t": {"queued": 1}, "u": {"outstanding": 1}}, NOW) == ["t"]
    assert demand.report("g", "h", {"t": {"queued": 2}}, NOW + 1) == []
    assert demand.report("g", "h", {"t": {"queued": 0}}, NOW + 2) == []
    assert demand.report("g", "h", {"t": {"queued": 1}}, NOW + 3) == ["t"]
    assert demand.report("g", "h", {"t": {"queued": 1}}, NOW + 4 + SILENT_S) == ["t"], "it was silent in between"


def test_idle_is_the_time_since_the_last_sign_of_any_request(demand: Demand) -> None:
    demand.report("g", "h", {"t": {"started_total": 5}}, NOW)
    demand.report("g", "h", {"t": {"started_total": 5}}, NOW + 30)
    assert demand.of("t", NOW + 40).idle_s == 40
    demand.report("g", "h", {"t": {"started_total": 6}}, NOW + 50)
    assert demand.of("t", NOW + 51).idle_s == 1
    demand.report("g", "h", {"t": {"started_total": 0}}, NOW + 60)
    assert demand.of("t", NOW + 61).idle_s == 1, "a gateway that began anew may have seen requests"
    assert demand.of("t", NOW + 1000).idle_s == 940, "also when it is not heard any more"


def test_a_silent_gateway_does_not_count(demand: Demand) -> None:
    demand.report("g", "h", {"t": {"outstanding": 4, "queued": 4, "ttft_p95_s": 9.0}}, NOW)
    later = NOW + SILENT_S + 1
    assert (demand.of("t", later).busy, demand.of("t", later).ttft_p95_s, demand.hosts(later)) == (0, None, 0)


def test_what_a_gateway_does_not_speak_of_has_nothing_in_flight(demand: Demand) -> None:
    demand.report("g", "h", {"t": {"outstanding": 4}}, NOW)
    demand.report("g", "h", {}, NOW + 1)
    assert demand.of("t", NOW + 1).busy == 0
