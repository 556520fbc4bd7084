"""Leased slices: nothing is overspent, nothing is lost, whatever answer gets lost and whoever dies."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Fenced, Invalid
from atoll.core.store import Create, MarkDeleting, Remove, SetSpec, Store
from atoll.governance.accounts import UNITS
from atoll.governance.balances import Balance
from atoll.governance.budgets import period_at
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import Ask, Grant, Lease, read_lease, size

MONTH = 1_793_491_200.0  # 2026-11-01


def record(seq: int, slices: dict[int, int] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "ts": 100.0 + seq,
        **dict.fromkeys(("request_id", "project", "key_id", "model", "deployment", "replica"), "x"),
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens"), 1),
        "endpoint": "chat",
        "status": "ok",
        "http_status": 200,
        "duration_s": 0.5,
        "slices": {str(number): amount for number, amount in (slices or {}).items()},
        **fields,
    }


class Bench:
    """A ledger with budgets, asked as gateways do."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store = store
        self.scope = store.everything("test")
        self.clock = clock
        self.ledger = Ledger(store.database, clock)

    def budget(self, name: str = "b", **spec: Any) -> str:
        self.scope.write([Create("Budget", "red", name, BUDGET.parse_spec(spec))])
        return self.scope.get("Budget", name, "red").uid

    def respec(self, name: str = "b", **spec: Any) -> None:
        budget = self.scope.get("Budget", name, "red")
        self.scope.write([SetSpec(budget, budget.spec | spec)])

    def remove(self, name: str = "b") -> None:
        self.scope.write([MarkDeleting(self.scope.get("Budget", name, "red"))])
        self.scope.write([Remove(self.scope.get("Budget", name, "red"))])

    def ask(self, budget: str, source: str = "g1", incarnation: str = "i1", after: int = 0, **fields: Any) -> Grant:
        ask = Ask(budget, fields.pop("unit", "tokens"), **fields)
        (granted,) = self.ledger.lease(Lease(source, incarnation, after, [ask]))
        self.holds()
        return granted

    def enter(self, source: str, *records: dict[str, Any]) -> None:
        self.ledger.enter(source, list(records))
        self.holds()

    def balance(self, budget: str, unit: str = "tokens", period: str = "total") -> Balance:
        return next(b for b in self.ledger.balances(budget, period) if b.unit == unit)

    def holds(self) -> None:
        assert self.ledger.check() == []


@pytest.fixture
def bench(store: Store, clock: VirtualClock) -> Bench:
    return Bench(store, clock)


def amounts(balance: Balance) -> tuple[int, int, int, int, int]:
    return balance.allowed, balance.available, balance.held, balance.spent, balance.overspent


def test_a_grant_moves_what_is_available_and_never_more(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    first = bench.ask(budget, want=60)
    assert (first.granted, first.available, first.expires_at) == (60, 40, None)
    more = bench.ask(budget, slice=first.slice, granted_seen=60, want=60)
    assert (more.slice, more.granted, more.available) == (first.slice, 100, 0)
    assert bench.ask(budget, slice=first.slice, granted_seen=100, want=1).granted == 100
    assert amounts(bench.balance(budget)) == (100, 0, 100, 0, 0)


def test_asking_again_after_a_lost_answer_grants_once(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    first = bench.ask(budget, want=30)
    assert bench.ask(budget, want=30) == first
    assert bench.ask(budget, slice=first.slice, granted_seen=0, want=30) == first
    assert bench.ask(budget, slice=first.slice, granted_seen=0, want=50).granted == 50
    assert bench.ask(budget, slice=first.slice, granted_seen=50, released=20).released == 20
    again = bench.ask(budget, slice=first.slice, granted_seen=50, released=20)
    assert (again.granted, again.released, again.available) == (50, 20, 70)


def test_usage_settles_its_slice_once_however_often_it_is_sent(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=50).slice
    assert number is not None
    batch = [record(1, {number: 7}), record(2, {number: 8}), record(3)]
    bench.enter("g1", *batch)
    bench.enter("g1", *batch)
    bench.enter("g1", *batch[1:], record(4, {number: 1}), record(4, {number: 1}))
    assert amounts(bench.balance(budget)) == (100, 50, 34, 16, 0)


def test_what_was_used_can_not_be_given_back(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=50).slice
    assert number is not None
    bench.enter("g1", record(1, {number: 40}))
    assert bench.ask(budget, slice=number, granted_seen=50, released=50).released == 10
    assert amounts(bench.balance(budget)) == (100, 60, 0, 40, 0)


def test_the_next_process_frees_the_slices_of_the_last_once_its_records_are_here(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=60).slice
    assert number is not None
    late = bench.ask(budget, incarnation="i2", after=2, want=100)
    assert late.granted == 40
    bench.enter("g1", record(1, {number: 10}))
    assert bench.balance(budget).held == 90
    bench.enter("g1", record(2, {number: 5}))
    assert amounts(bench.balance(budget)) == (100, 45, 40, 15, 0)
    at_once = bench.ask(budget, incarnation="i3", after=2, want=100)
    assert (at_once.granted, at_once.available) == (85, 0)


def test_a_process_whose_successor_asked_is_fenced(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    bench.ask(budget, want=10)
    bench.ask(budget, incarnation="i2", after=0, want=10)
    with pytest.raises(Fenced, match="process i1 of gateway g1 was closed"):
        bench.ask(budget, want=10)
    bench.holds()


def test_a_record_of_a_closed_slice_is_charged_straight_and_beyond_that_overspent(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=60).slice
    assert number is not None
    assert bench.ledger.forget("g1") == 1
    bench.holds()
    taken = bench.ask(budget, "g2", want=90)
    assert (taken.granted, taken.available) == (90, 10)
    bench.enter("g1", record(1, {number: 25}))
    assert amounts(bench.balance(budget)) == (100, 0, 90, 25, 15)
    bench.ask(budget, "g2", slice=taken.slice, granted_seen=90, released=40)
    assert amounts(bench.balance(budget)) == (100, 25, 50, 25, 0)


def test_a_forgotten_gateway_that_lives_has_to_begin_anew(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    bench.ask(budget, want=60)
    bench.ledger.forget("g1")
    with pytest.raises(Fenced):
        bench.ask(budget, want=1)
    assert bench.ask(budget, incarnation="i2", want=100).granted == 100


def test_a_period_ends_and_what_it_did_not_use_is_void(bench: Bench) -> None:
    bench.clock.jump(MONTH + 86_000 - bench.clock.now())
    budget = bench.budget(tokens=100, period="day")
    old = bench.ask(budget, want=80)
    assert old.expires_at == MONTH + 86_400
    bench.clock.advance(500)
    said = bench.ask(budget, slice=old.slice, granted_seen=80, released=30)
    assert said.expires_at is not None and said.expires_at <= bench.clock.now()
    new = bench.ask(budget, slice=old.slice, granted_seen=80, released=30, want=100)
    assert (new.slice != old.slice, new.granted, new.available) == (True, 100, 0)
    bench.ledger.tend(budget)
    assert old.slice is not None
    bench.enter("g1", record(1, {old.slice: 50}))
    assert amounts(bench.balance(budget, period="2026-11-01")) == (100, 50, 0, 50, 0)
    assert amounts(bench.balance(budget, period="2026-11-02")) == (100, 0, 100, 0, 0)
    again = bench.ask(budget, slice=old.slice, granted_seen=80, released=30, want=5)
    assert (again.slice, again.granted) == (new.slice, 100)


def test_months_end_in_utc(bench: Bench) -> None:
    assert period_at("month", MONTH - 0.5) == ("2026-10", MONTH)
    assert period_at("month", MONTH + 40 * 86_400) == ("2026-12", MONTH + 61 * 86_400)
    assert period_at("day", MONTH) == ("2026-11-01", MONTH + 86_400)
    assert period_at("total", MONTH) == ("total", None)


def test_a_raised_allowance_counts_at_once_and_a_lowered_one_takes_what_is_free(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=70).slice
    bench.respec(tokens=200)
    assert bench.ask(budget, slice=number, granted_seen=70).available == 130
    bench.respec(tokens=20)
    assert bench.ask(budget, slice=number, granted_seen=70, want=10).granted == 70
    assert amounts(bench.balance(budget)) == (70, 0, 70, 0, 0)
    bench.ask(budget, slice=number, granted_seen=70, released=60)
    bench.ledger.tend(budget)
    assert amounts(bench.balance(budget)) == (20, 10, 10, 0, 0)


def test_a_unit_that_is_not_limited_or_a_budget_that_is_gone_grants_nothing(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    gone = bench.ask(budget, unit="money", want=5)
    assert (gone.slice, gone.granted, gone.expires_at) == (None, 0, bench.clock.now())
    held = bench.ask(budget, want=50)
    bench.remove()
    said = bench.ask(budget, slice=held.slice, granted_seen=50, want=5)
    assert (said.granted, said.available, said.expires_at) == (50, 0, bench.clock.now())
    assert held.slice is not None
    bench.enter("g1", record(1, {held.slice: 50}))
    bench.ledger.tend(budget)
    assert amounts(bench.balance(budget)) == (100, 50, 0, 50, 0)


def test_units_of_a_budget_are_counted_apart(bench: Bench) -> None:
    budget = bench.budget(tokens=100, money=0.5, accelerator_hours=1)
    granted = [bench.ask(budget, unit=unit, want=1 << 40).granted for unit in UNITS]
    assert granted == [100, 500_000, 3_600_000]


def test_what_is_left_is_not_stranded_with_one_of_several(bench: Bench) -> None:
    budget = bench.budget(tokens=1000)
    bench.ask(budget, "g1", want=100)
    second = bench.ask(budget, "g2", want=900)
    assert (second.granted, second.available) == (450, 450)
    needs = bench.ask(budget, "g2", slice=second.slice, granted_seen=450, want=450, need=400)
    assert needs.granted == 850
    short = bench.ask(budget, "g1", slice=1, granted_seen=100, want=200, need=60)
    assert (short.granted, short.scarce) == (100, True)


@pytest.mark.parametrize(
    ("want", "need", "available", "has_rivals", "expected"),
    [
        (10, 0, 100, False, 10),
        (100, 0, 10, False, 10),
        (100, 20, 10, False, 0),
        (100, 0, 10, True, 5),
        (100, 8, 10, True, 8),
        (3, 8, 10, True, 3),
        (1, 0, 1, True, 1),
        (5, 0, 0, False, 0),
        (0, 0, 5, False, 0),
    ],
)
def test_a_slice_is_as_large_as_helps(want: int, need: int, available: int, has_rivals: bool, expected: int) -> None:
    assert size(want, need, available, has_rivals) == expected


def test_an_unknown_slice_charges_nobody_and_is_reported(bench: Bench) -> None:
    bench.enter("g1", record(1, {999: 5}))
    assert bench.ledger.statement("x")[0].requests == 1
    assert "slice 999 is not known" in bench.ledger.refused()[0]["reason"]


def test_what_no_check_foresaw_is_put_aside_alone(bench: Bench) -> None:
    """An account so full that an amount overflows: the record is kept, those beside it are entered."""
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=60).slice
    assert number is not None
    with bench.store.database.writing() as connection:
        full = (1 << 63) - (1 << 40)
        connection.exec_driver_sql(f"UPDATE accounts SET spent = {full}, overdraft = -{full}")
    batch = [record(1, {number: 5}), record(2, {number: 1 << 47}), record(3, {number: 6})]
    assert bench.ledger.enter("g1", batch) == 3
    assert bench.ledger.enter("g1", batch) == 3
    assert bench.ledger.statement("x")[0].requests == 2
    assert bench.ledger.count_refused() == 1
    assert bench.balance(budget).held == 60 - 11


def test_slices_of_a_deleted_budget_are_closed(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    number = bench.ask(budget, want=60).slice
    assert number is not None
    bench.ledger.close_vanished()
    assert bench.balance(budget).held == 60
    bench.remove()
    bench.ledger.close_vanished()
    assert amounts(bench.balance(budget)) == (100, 100, 0, 0, 0)
    bench.enter("g1", record(1, {number: 10}))
    assert amounts(bench.balance(budget)) == (100, 90, 0, 10, 0)


def test_a_repeated_ask_writes_nothing(bench: Bench) -> None:
    budget = bench.budget(tokens=100)
    first = bench.ask(budget, want=10)
    before = bench.ledger._database.data_version_poll()
    before.changed()
    bench.ask(budget, slice=first.slice, granted_seen=10)
    assert not before.changed()
    before.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("incarnation", 7),
        ("begins_after", -1),
        ("slices", {}),
        ("slices.0", 7),
        ("slices.0.want", 1.5),
        ("slices.0.granted_seen", True),
        ("slices.0.slice", "x"),
        ("slices.0", {"budget": "b", "unit": "beans"}),
    ],
)
def test_a_malformed_ask_is_refused_by_field(field: str, value: object) -> None:
    body: dict[str, Any] = {
        "source": "g",
        "incarnation": "i",
        "begins_after": 0,
        "slices": [{"budget": "b", "unit": "tokens"}],
    }
    assert read_lease(body).asks == [Ask("b", "tokens")]
    if field == "slices.0":
        body["slices"] = [value]
    elif field.startswith("slices."):
        body["slices"][0][field.rpartition(".")[2]] = value
    else:
        body[field] = value
    with pytest.raises(Invalid) as raised:
        read_lease(body)
    assert raised.value.field == field


def test_four_gateways_at_once_never_overspend_a_tiny_quota(
    url: str, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    """10,000 requests of 1 token against 3,000: exactly 3,000 are served, by whichever gateways got them."""
    bench = Bench(Store(opened(url), clock), clock)
    budget = bench.budget(tokens=3000)
    databases = [opened(url) for _ in range(4)]
    served, errors = [0] * 4, []

    def gateway(number: int) -> None:
        ledger, rng, source = Ledger(databases[number], clock), random.Random(number), f"g{number}"
        granted = used = seq = 0
        leased: int | None = None
        try:
            for _ in range(2500):
                if used == granted:
                    ask = Ask(budget, "tokens", leased, granted, 0, rng.randint(1, 40), 1)
                    (answer,) = ledger.lease(Lease(source, "i", 0, [ask]))
                    leased, granted = answer.slice, answer.granted
                if used < granted and leased is not None:
                    used += 1
                    seq += 1
                    if seq % 10 == 0:
                        ledger.enter(source, [record(n, {leased: 1}) for n in range(seq - 9, seq + 1)])
            rest = [record(n, {leased or 0: 1}) for n in range(seq - seq % 10 + 1, seq + 1)]
            ledger.enter(source, rest)
            served[number] = used
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=gateway, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert errors == []
    assert sum(served) <= 3000
    balance = bench.balance(budget)
    assert (balance.spent, balance.overspent) == (sum(served), 0)
    assert balance.available + balance.held == 3000 - sum(served)
    bench.holds()
