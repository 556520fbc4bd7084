"""Accelerator time is reserved ahead and charged as it passes, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.store import Create, Store
from atoll.governance.accounts import ACCELERATOR_MS
from atoll.governance.ledger import Ledger
from atoll.governance.meters import Metered, Meters
from atoll.governance.resources import BUDGET

WORK = Metered("w" * 32, "red", "train")


class Bench:
    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.clock = clock
        self.scope = store.everything("test")
        self.ledger = Ledger(store.database, clock)
        self.meters = Meters(store.database, clock)

    def budget(self, name: str, **spec: Any) -> str:
        self.scope.write([Create("Budget", "red", name, BUDGET.parse_spec(spec))])
        return self.scope.get("Budget", name, "red").uid

    def balance(self, uid: str, period: str = "total") -> tuple[int, int, int, int]:
        (found,) = (b for b in self.ledger.balances(uid, period) if b.unit == ACCELERATOR_MS)
        assert self.ledger.check() == []
        return found.available, found.held, found.spent, found.overspent


@pytest.fixture
def bench(store: Store, clock: VirtualClock) -> Bench:
    return Bench(store, clock)


def test_time_is_reserved_ahead_and_charged_as_it_passes(bench: Bench) -> None:
    uid = bench.budget("b", accelerator_hours=1)
    first = bench.meters.read(WORK, 2, [uid], 600)
    assert (first.covered_s, bench.balance(uid)) == (600, (2_400_000, 1_200_000, 0, 0))
    bench.clock.advance(60)
    assert bench.meters.read(WORK, 2, [uid], 600).covered_s == 600
    assert bench.balance(uid) == (2_280_000, 1_200_000, 120_000, 0)
    bench.clock.advance(10)
    bench.meters.end(WORK.uid)
    assert bench.balance(uid) == (3_460_000, 0, 140_000, 0)
    bench.clock.advance(10)
    bench.meters.end(WORK.uid)
    assert bench.balance(uid)[2] == 140_000
    (used,) = bench.meters.used("red", 0, 2e6)
    assert (used["accelerator_ms"], used["workload"]) == (140_000, "train")


def test_what_is_left_says_how_long_it_lasts_and_the_tightest_budget_counts(bench: Bench) -> None:
    wide, tight = bench.budget("wide", accelerator_hours=1), bench.budget("tight", accelerator_hours=0.1)
    reading = bench.meters.read(WORK, 4, [wide, tight], 600)
    assert (reading.covered_s, reading.budget) == (90.0, "tight")
    bench.clock.advance(80)
    assert bench.meters.read(WORK, 4, [wide, tight], 600).covered_s == 10.0


def test_a_change_of_size_is_charged_from_when_it_was_seen(bench: Bench) -> None:
    uid = bench.budget("b", accelerator_hours=1)
    bench.meters.read(WORK, 1, [uid], 60)
    bench.clock.advance(10)
    bench.meters.read(WORK, 4, [uid], 60)
    bench.clock.advance(10)
    bench.meters.end(WORK.uid)
    assert bench.balance(uid)[2] == 50_000


def test_time_across_the_end_of_a_period_is_charged_to_the_one_it_began_in(bench: Bench) -> None:
    bench.clock.jump(1_793_491_200 + 86_390 - bench.clock.now())
    uid = bench.budget("b", accelerator_hours=1, period="day")
    bench.meters.read(WORK, 1, [uid], 600)
    bench.clock.advance(30)
    bench.meters.read(WORK, 1, [uid], 600)
    assert bench.balance(uid, "2026-11-01") == (3_570_000, 0, 30_000, 0)
    assert bench.balance(uid, "2026-11-02") == (3_000_000, 600_000, 0, 0)


def test_without_budgets_time_is_only_counted(bench: Bench) -> None:
    uid = bench.budget("tokens-only", tokens=5)
    assert bench.meters.read(WORK, 8, [uid], 600).covered_s is None
    bench.clock.advance(5)
    bench.meters.end(WORK.uid)
    assert bench.meters.used("red", 0, 2e6)[0]["accelerator_ms"] == 40_000
    assert bench.meters.running() == []
