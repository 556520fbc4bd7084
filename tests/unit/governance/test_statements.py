"""Statements: months, sums by whatever, and what running came to."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.governance.budgets import month_bounds
from atoll.governance.ledger import Ledger
from atoll.governance.meters import Metered, Meters
from atoll.governance.statements import Rate, Statement, Statements
from atoll.governance.vouchers import Payments

BEGIN, END = month_bounds("2026-11")
PRICE = {"input_per_million": 1.0, "output_per_million": 2.0}


def record(seq: int, currency: str = "EUR", **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "ts": BEGIN + seq,
        **dict.fromkeys(("request_id", "project", "key_id", "model", "replica"), "x"),
        "deployment": "d1",
        "prompt_tokens": 1_000_000,
        "completion_tokens": 500_000,
        "cached_tokens": 0,
        "endpoint": "chat",
        "status": "ok",
        "http_status": 200,
        "duration_s": 900.0,
        "price": PRICE | {"currency": currency},
        **fields,
    }


class Office:
    def __init__(self, database: Database, clock: VirtualClock) -> None:
        clock.jump(BEGIN - clock.now())
        self.clock = clock
        self.ledger, self.meters = Ledger(database, clock), Meters(database, clock)
        self.statements = Statements(database, self.ledger, Payments(database, clock), self.meters)

    def make(self, rates: dict[str, Rate] | None = None) -> Statement:
        return self.statements.make("x", "2026-11", now=END, rates=rates, names={"d1": "shop"})


@pytest.fixture
def office(database: Database, clock: VirtualClock) -> Office:
    return Office(database, clock)


def test_currencies_are_never_added_together(office: Office) -> None:
    office.ledger.enter("g", [record(1), record(2, "USD"), record(3, key_id="y")])
    made = office.make()
    assert [(s.currency, s.requests, s.cost_micros) for s in made.totals] == [
        ("EUR", 2, 4_000_000),
        ("USD", 1, 2_000_000),
    ]
    assert [(s.name, s.currency) for s in made.by("key")] == [("x", "EUR"), ("x", "USD"), ("y", "EUR")]


def test_the_cost_of_a_local_model_is_derived_from_its_accelerators(office: Office) -> None:
    replicas = [Metered(f"{n}" * 32, "x", f"shop-{n}", "d1", "tiny.v1", slots=4) for n in range(2)]
    training = Metered("t" * 32, "x", "train")
    for workload in (*replicas, training):
        office.meters.read(workload, 1, [], 600)
    office.clock.advance(3600)
    for workload in (*replicas, training):
        office.meters.end(workload.uid)
    office.ledger.enter("g", [record(n) for n in range(1, 9)])
    shop, train = office.make({"tiny": Rate(3.0, "EUR")}).served
    assert (shop.deployment, shop.model, shop.currency) == ("shop", "tiny.v1", "EUR")
    assert (shop.derived.accelerator_hours, shop.derived.cost_micros) == (2.0, 6_000_000)
    assert shop.derived.utilisation == 8 * 900 / (2 * 3600 * 4)
    assert shop.derived.tokens == 12_000_000
    assert shop.derived.per_million == pytest.approx(0.5)
    assert (train.workload, train.derived.accelerator_hours, train.derived.per_million) == ("train", 1.0, None)
    page = office.make({"tiny": Rate(3.0, "EUR")}).to_html()
    assert "6.0000 EUR" in page and "25 %" in page


def test_a_month_without_anything_says_so(office: Office) -> None:
    made = office.make()
    assert (made.totals, made.to_csv().count("\n")) == ([], 1)
    assert "Nothing was used in this month." in made.to_html()
