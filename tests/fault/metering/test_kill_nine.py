"""Random `kill -9` of gateway workers and of the server during load: what was used is on the bill, once, and no more.

The engine is the witness: every request it saw has exactly one usage record, whoever was killed while it ran.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atoll.governance.accounts import accounts
from atoll.governance.balances import Balance
from atoll.governance.records import usage
from fault.metering.fleet import Fleet, Load, serve_tiny
from integration.gateway.control import wait_until
from integration.gateway.engine import Engine

SEED = int(os.environ.get("ATOLL_TEST_SEED", "7"))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine().start()
    engine.event_s = 0.002
    yield engine
    engine.stop()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "home", 2)
    yield fleet
    fleet.close()


def kill_at_random(fleet: Fleet, load: Load, rounds: int) -> Counter[str]:
    chance, killed = random.Random(SEED), Counter[str]()
    for _ in range(rounds):
        load.wait_for(chance.randint(5, 60))
        victims = chance.sample(fleet.names, chance.choice([1, 1, 1, 2]))
        for name in victims:
            fleet.kill(name)
            killed[name] += 1
    load.wait_for(20)
    return killed


def shrink_budget(fleet: Fleet, left: int) -> None:
    """Leave so many tokens at the centre, beyond what gateways hold."""
    with fleet.client() as client:
        balance = next(
            b for b in fleet.ledger().balances(client.get("Budget", "all").uid, "total") if b.unit == "tokens"
        )
        client.put("Budget", "all", {"tokens": balance.spent + balance.held + left, "money": 1000.0})


def check(fleet: Fleet, engine: Engine, load: Load) -> None:
    """All invariants, after everything has come to rest."""
    seen = {headers["x-request-id"] for headers in engine.headers}

    def rows() -> list[tuple[str, str, int, int, int]]:
        columns = (usage.c.request_id, usage.c.status, usage.c.prompt_tokens, usage.c.completion_tokens)
        with fleet.ledger()._database.reading() as connection:
            return [tuple(row) for row in connection.execute(select(*columns, usage.c.cost_micros))]

    wait_until(lambda: seen <= {row[0] for row in rows()}, "every request the engine saw is on the bill", 120)
    wait_until(fleet.has_heard_all, "every gateway is there, to give back what the one before it held", 120)
    fleet.stop()
    entered = rows()
    counts = Counter(row[0] for row in entered)
    assert {name for name, count in counts.items() if count > 1} == set(), "billed twice"
    assert load.answered <= {row[0] for row in entered if row[1] == "ok"}
    words = len(engine.words)
    assert [row for row in entered if row[1] == "ok" and row[3] != words] == []
    # this engine tells no count before its end: a lost request is counted by its events, the first and last wordless
    assert [r for r in entered if r[3] > (words if r[0] in seen else 0)] == [], "more than was given"
    ledger = fleet.ledger()
    assert ledger.check() == []
    assert ledger.count_refused() == 0
    tokens, money = balances(fleet)
    assert (tokens.overspent, money.overspent) == (0, 0)
    assert (tokens.held, money.held) == (0, 0), "a slice was not given back"
    assert tokens.spent == sum(prompt + completion for _, _, prompt, completion, _ in entered) <= tokens.allowed
    assert money.spent == sum(cost for *_, cost in entered)


def balances(fleet: Fleet) -> tuple[Balance, Balance]:
    """Tokens and money of the one budget."""
    ledger = fleet.ledger()
    with ledger._database.reading() as connection:
        (uid,) = set(connection.execute(select(accounts.c.budget)).scalars())
    by_unit = {balance.unit: balance for balance in ledger.balances(uid, "total")}
    return by_unit["tokens"], by_unit["money"]


def test_random_kills_lose_and_double_no_usage_and_overspend_nothing(fleet: Fleet, engine: Engine) -> None:
    serve_tiny(fleet, engine, tokens=60_000, money=1000.0)
    load = Load(fleet, SEED)
    try:
        killed = kill_at_random(fleet, load, 10)
        wait_until(fleet.is_answering, "the server is back", 120)
        shrink_budget(fleet, 500)
        wait_until(lambda: load.refusals["insufficient_quota"] > 4, f"the budget ends: {load.refusals}", 120)
    finally:
        load.stop()
    check(fleet, engine, load)
    print(f"killed {dict(killed)}; {len(load.answered)} answered, {len(engine.headers)} reached the engine")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_kills_lose_and_double_no_usage(fleet: Fleet, engine: Engine) -> None:
    serve_tiny(fleet, engine, tokens=10_000_000, money=1000.0)
    load = Load(fleet, SEED)
    try:
        killed = kill_at_random(fleet, load, 100)
    finally:
        load.stop()
    check(fleet, engine, load)
    print(f"killed {dict(killed)}; {len(load.answered)} answered, {len(engine.headers)} reached the engine")
