"""Top-ups and vouchers count exactly once, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, Invalid, NotFound
from atoll.core.resources import Resource
from atoll.core.store import Create, Store
from atoll.governance.accounts import MONEY, TOKENS
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.vouchers import Payments, amount_from, vouchers


class Bench:
    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.clock, self.database = clock, store.database
        self.scope = store.everything("test")
        self.ledger, self.payments = Ledger(store.database, clock), Payments(store.database, clock)

    def budget(self, name: str = "b", **spec: Any) -> Resource:
        self.scope.write([Create("Budget", "red", name, BUDGET.parse_spec(spec))])
        return self.scope.get("Budget", name, "red")

    def available(self, budget: Resource, unit: str = MONEY) -> int:
        assert self.ledger.check() == []
        return next((b.available for b in self.ledger.balances(budget.uid, "total") if b.unit == unit), 0)


@pytest.fixture
def bench(store: Store, clock: VirtualClock) -> Bench:
    return Bench(store, clock)


def test_a_top_up_is_known_by_its_id(bench: Bench) -> None:
    budget = bench.budget(money=1, tokens=0)
    made = bench.payments.top_up(budget, MONEY, 500, id="a", actor="me")
    assert bench.payments.top_up(budget, MONEY, 500, id="a", actor="someone else") == made
    assert bench.available(budget) == 1_000_500
    with pytest.raises(Conflict, match="another amount or budget"):
        bench.payments.top_up(budget, TOKENS, 500, id="a", actor="me")
    for id in ("", "a b", "x" * 65):
        with pytest.raises(Invalid, match="id cannot be"):
            bench.payments.top_up(budget, MONEY, 500, id=id, actor="me")
    with pytest.raises(Invalid, match="amount cannot be"):
        bench.payments.top_up(budget, MONEY, 0, id="b", actor="me")


def test_a_voucher_is_kept_as_a_hash_and_ends_in_time(bench: Bench) -> None:
    budget = bench.budget(money=0)
    number, code = bench.payments.make_voucher(MONEY, 7, currency="EUR", expires_at=bench.clock.now() + 60, actor="me")
    with bench.database.reading() as connection:
        assert code not in str(connection.execute(vouchers.select()).all())
    bench.clock.advance(61)
    with pytest.raises(Conflict, match="no longer valid"):
        bench.payments.redeem(code, budget, actor="you")
    assert bench.available(budget) == 0
    assert bench.payments.vouchers()[0]["redeemed_at"] is None
    bench.payments.cancel(number)
    with pytest.raises(NotFound, match="no voucher with this code"):
        bench.payments.redeem(code, budget, actor="you")


def test_a_redeemed_voucher_can_not_be_cancelled(bench: Bench) -> None:
    budget = bench.budget(tokens=0)
    number, code = bench.payments.make_voucher(TOKENS, 7, actor="me")
    bench.payments.redeem(f"  {code.lower()}\n", budget, actor="you")
    with pytest.raises(NotFound):
        bench.payments.cancel(number)
    assert bench.available(budget, TOKENS) == 7


def test_many_who_redeem_at_once_get_it_once(url: str, opened: Callable[[str], Database], clock: VirtualClock) -> None:
    bench = Bench(Store(opened(url), clock), clock)
    budgets = [bench.budget(f"b{n}", money=0) for n in range(4)]
    codes = [bench.payments.make_voucher(MONEY, 1000, currency="EUR", actor="me")[1] for _ in range(10)]
    databases = [opened(url) for _ in range(4)]
    won: list[str] = []
    errors: list[BaseException] = []

    def redeem(number: int) -> None:
        payments = Payments(databases[number], clock)
        for code in codes:
            try:
                payments.redeem(code, budgets[number], actor="x")
                won.append(code)
            except Conflict:
                pass
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=redeem, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(won) == sorted(codes)
    assert sum(bench.available(budget) for budget in budgets) == 10_000


def test_figures_of_people_become_whole_amounts() -> None:
    assert amount_from("money", 12.5) == (MONEY, 12_500_000)
    assert amount_from("tokens", 10) == (TOKENS, 10)
    with pytest.raises(Invalid, match="unit cannot be 'beans'"):
        amount_from("beans", 1)
