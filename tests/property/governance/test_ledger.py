"""Several gateways over one ledger: crashes, lost answers, repeated batches, period ends, top-ups, changed budgets.

At every moment the book balances, nothing is below 0, nothing is overspent, and what is spent is what was entered.
At the end, when every journal has arrived, nothing is held and nothing was lost or counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.store import Create, SetSpec, Store
from atoll.governance.accounts import TOKENS
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import Ask, Grant, Lease
from atoll.governance.vouchers import Payments

GATEWAYS = st.integers(0, 2)
BUDGETS = st.integers(0, 1)
AMOUNTS = st.integers(0, 60)


@dataclass
class Held:
    """What a process remembers of a slice."""

    slice: int
    expires_at: float | None
    granted: int = 0
    released: int = 0
    used: int = 0

    @property
    def free(self) -> int:
        return self.granted - self.released - self.used


@dataclass
class Gateway:
    """A gateway: its journal survives, what it knows of slices dies with the process."""

    source: str
    journal: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: int = 0
    process: int = 0
    begins_after: int = 0
    held: dict[int, Held] = field(default_factory=dict)

    def crash(self) -> None:
        self.process += 1
        self.begins_after = len(self.journal)
        self.held = {}

    def use(self, slice: int, amount: int, at: float) -> None:
        described = dict.fromkeys(("request_id", "project", "key_id", "model", "deployment", "replica"), "x")
        counted = dict.fromkeys(("prompt_tokens", "cached_tokens"), 0) | {"completion_tokens": amount}
        said = {"endpoint": "chat", "status": "ok", "http_status": 200, "duration_s": 0.1, "ts": at}
        number = len(self.journal) + 1
        self.journal.append({"seq": number, **described, **counted, **said, "slices": {str(slice): amount}})


class Gateways(RuleBasedStateMachine):
    """Rules are what happens to gateways, budgets and time."""

    url: str
    opened: Callable[[str], Database]
    emptied: Callable[[Database], None]

    @initialize(total=st.integers(0, 80), daily=st.integers(0, 80))
    def begin(self, total: int, daily: int) -> None:
        self.clock = VirtualClock(1_793_491_200.0)
        database = self.opened(self.url)
        self.emptied(database)
        self.store = Store(database, self.clock)
        self.scope = self.store.everything("test")
        self.ledger, self.payments = Ledger(database, self.clock), Payments(database, self.clock)
        for name, spec in (("total", {"tokens": total}), ("daily", {"tokens": daily, "period": "day"})):
            self.scope.write([Create("Budget", "red", name, BUDGET.parse_spec(spec))])
        self.budgets = [self.scope.get("Budget", name, "red").uid for name in ("total", "daily")]
        self.gateways = [Gateway(f"g{n}") for n in range(3)]
        self.entered: set[tuple[str, int]] = set()
        self.top_ups = 0

    @rule(gateway=GATEWAYS, budget=BUDGETS, want=AMOUNTS, need=AMOUNTS, is_lost=st.booleans())
    def ask(self, gateway: int, budget: int, want: int, need: int, is_lost: bool) -> None:
        asking = self.gateways[gateway]
        held = asking.held.get(budget)
        number, seen, released = (held.slice, held.granted, held.released) if held else (None, 0, 0)
        ask = Ask(self.budgets[budget], TOKENS, number, seen, released, want, min(need, want))
        (answer,) = self.lease(asking, ask)
        if not is_lost and answer.slice is not None:
            self.adopt(asking, budget, answer)

    def lease(self, asking: Gateway, *asks: Ask) -> list[Grant]:
        return self.ledger.lease(Lease(asking.source, f"p{asking.process}", asking.begins_after, asks))

    def adopt(self, asking: Gateway, budget: int, answer: Grant) -> None:
        assert answer.slice is not None
        held = asking.held.get(budget)
        if answer.expires_at is not None and answer.expires_at <= self.clock.now():
            asking.held.pop(budget, None)
            return
        if held is None or held.slice != answer.slice:
            # what an earlier asking for this slice was given is not used: it was never heard of
            held = asking.held[budget] = Held(answer.slice, answer.expires_at)
        assert answer.granted >= held.granted
        held.granted = answer.granted

    @rule(gateway=GATEWAYS, budget=BUDGETS, amount=AMOUNTS)
    def use(self, gateway: int, budget: int, amount: int) -> None:
        using = self.gateways[gateway]
        held = using.held.get(budget)
        if held is None or (held.expires_at is not None and self.clock.now() >= held.expires_at):
            return
        amount = min(amount, held.free)
        if amount:
            held.used += amount
            using.use(held.slice, amount, self.clock.now())

    @rule(gateway=GATEWAYS, budget=BUDGETS, want=st.integers(20, 100))
    def work(self, gateway: int, budget: int, want: int) -> None:
        """Take and use as much as there is, which is what finds a unit that two could use."""
        self.ask(gateway, budget, want, 0, False)
        self.use(gateway, budget, want)

    @rule(gateway=GATEWAYS, budget=BUDGETS)
    def die_working(self, gateway: int, budget: int) -> None:
        """Killed with records that are not shipped; the next process asks before they are."""
        self.work(gateway, budget, 30)
        self.gateways[gateway].crash()
        self.ask(gateway, budget, 1, 0, False)

    @rule(gateway=GATEWAYS, budget=BUDGETS, amount=AMOUNTS)
    def give_back(self, gateway: int, budget: int, amount: int) -> None:
        held = self.gateways[gateway].held.get(budget)
        if held is not None:
            held.released += min(amount, held.free)

    @rule(gateway=GATEWAYS, count=st.integers(1, 6), again=st.integers(0, 4), is_lost=st.booleans())
    def ship(self, gateway: int, count: int, again: int, is_lost: bool) -> None:
        shipping = self.gateways[gateway]
        begin = max(0, shipping.acknowledged - again)
        batch = shipping.journal[begin : shipping.acknowledged + count]
        if batch:
            assert self.ledger.enter(shipping.source, batch) == batch[-1]["seq"]
            self.entered |= {(shipping.source, record["seq"]) for record in batch}
            if not is_lost:
                shipping.acknowledged = max(shipping.acknowledged, batch[-1]["seq"])

    @rule(gateway=GATEWAYS)
    def crash(self, gateway: int) -> None:
        self.gateways[gateway].crash()

    @rule(gateway=GATEWAYS)
    def end_for_ever(self, gateway: int) -> None:
        """Its disk could be read once more; then it is forgotten, and its name begins again."""
        ended = self.gateways[gateway]
        self.arrive(ended)
        ended.crash()
        self.ledger.forget(ended.source)

    @rule(hours=st.sampled_from([0.1, 7.0, 25.0]))
    def pass_time(self, hours: float) -> None:
        self.clock.advance(hours * 3600)

    @rule(budget=BUDGETS)
    def tend(self, budget: int) -> None:
        self.ledger.tend(self.budgets[budget])

    @rule(name=st.sampled_from(["total", "daily"]), tokens=st.integers(0, 100))
    def respec(self, name: str, tokens: int) -> None:
        budget = self.scope.get("Budget", name, "red")
        if budget.spec["tokens"] != tokens:
            self.scope.write([SetSpec(budget, budget.spec | {"tokens": tokens})])

    @rule(name=st.sampled_from(["total", "daily"]), amount=st.integers(1, 50), is_repeated=st.booleans())
    def top_up(self, name: str, amount: int, is_repeated: bool) -> None:
        budget = self.scope.get("Budget", name, "red")
        self.top_ups += 1
        for _ in range(1 + is_repeated):
            self.payments.top_up(budget, TOKENS, amount, id=f"t{self.top_ups}", actor="test")

    @invariant()
    def balances(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.check() == []
            assert self.spent() == (self.recorded(self.entered), 0)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for gateway in self.gateways:
            self.arrive(gateway)
            gateway.crash()
            self.lease(gateway)
        assert self.ledger.check() == []
        everything = {(g.source, record["seq"]) for g in self.gateways for record in g.journal}
        assert self.spent() == (self.recorded(everything), 0)
        with self.store.database.reading() as connection:
            assert connection.exec_driver_sql("SELECT sum(held) FROM accounts").scalar() in (0, None)

    def arrive(self, gateway: Gateway) -> None:
        if gateway.journal:
            self.ledger.enter(gateway.source, gateway.journal)
            self.entered |= {(gateway.source, record["seq"]) for record in gateway.journal}

    def recorded(self, numbers: set[tuple[str, int]]) -> int:
        return sum(
            record["completion_tokens"]
            for g in self.gateways
            for record in g.journal
            if (g.source, record["seq"]) in numbers
        )

    def spent(self) -> tuple[int, int]:
        """Spent and overspent of all accounts."""
        with self.store.database.reading() as connection:
            found = connection.exec_driver_sql("SELECT sum(spent), sum(overdraft) FROM accounts").one()
        return int(found[0] or 0), -int(found[1] or 0)


def _empty(database: Database) -> None:
    with database.writing() as connection:
        for table in ("accounts", "postings", "slices", "sources", "top_ups", "usage", "key_uses", "resources"):
            connection.exec_driver_sql(f"DELETE FROM {table}")


def _run(url: str, database: Database, examples: int, steps: int) -> None:
    machine = type(
        "Machine",
        (Gateways,),
        {"url": url, "opened": staticmethod(lambda _: database), "emptied": staticmethod(_empty)},
    )
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks, derandomize=True
    )
    run_state_machine_as_test(machine, settings=limits)


@pytest.fixture
def in_memory() -> Iterator[Database]:
    database = Database("sqlite://")
    database.migrate()
    yield database
    database.close()


def test_gateways_over_sqlite_overspend_lose_and_double_nothing(in_memory: Database) -> None:
    _run("sqlite://", in_memory, examples=80, steps=50)


def test_gateways_over_postgresql_overspend_lose_and_double_nothing(
    postgres_cluster: Any, opened: Callable[[str], Database]
) -> None:
    url = postgres_cluster.make()
    _run(url, opened(url), examples=12, steps=40)
