"""The purses of four gateways over the real ledger: what gateways do with slices fits what the centre lends.

Told time, no sockets: each message goes to the ledger as the route would hand it over, and may get lost on both ways.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import AtollError
from atoll.core.store import Create, SetSpec, Store
from atoll.governance.ledger import Ledger
from atoll.governance.resources import BUDGET
from atoll.governance.slices import read_lease
from atoll.serving.gateway.slices import BudgetFacts, Purse, Reservation

from .test_money import record


class Gateway:
    """A purse, its journal, and the requests it holds; the purse dies with the process, the journal does not."""

    def __init__(self, house: House, source: str) -> None:
        self.house, self.source = house, source
        self.journal: list[dict[str, Any]] = []
        self.shipped = 0
        self.served = self.refused = 0
        self.start()

    def start(self) -> None:
        clock = self.house.clock
        self.open: list[Reservation] = []
        self.waiting = 0
        self.purse = Purse(
            self.source,
            len(self.journal),
            written=lambda: len(self.journal),
            now=clock.monotonic,
            wall=clock.now,
            chance=self.house.rng.random,
        )
        self.purse.adopt(self.house.facts)

    def begin(self, tokens: int) -> None:
        path = tuple(self.house.facts)
        reserved = self.purse.reserve(path, tokens, 0, "")
        if reserved is not None:
            self.open.append(reserved)
            return
        self.waiting += 1
        self.purse.wait(path, tokens, 0, "", self.done, limit_s=5.0)

    def done(self, result: Reservation | AtollError) -> None:
        self.waiting -= 1
        if isinstance(result, AtollError):
            self.refused += 1
        else:
            self.open.append(result)

    def finish(self, part: float) -> None:
        if not self.open:
            return
        reservation = self.open.pop(0)
        bound = min((amount for _, _, amount in reservation._lines), default=0)
        amounts = self.purse.settle(reservation, max(1, int(bound * part)), 0)
        taken = {number: amount for number, amount in amounts.items() if amount}
        self.journal.append(record(len(self.journal) + 1, taken, completion_tokens=sum(taken.values())))
        self.served += 1

    def talk(self, *, loses_ask: bool = False, loses_answer: bool = False) -> None:
        message = self.purse.ask()
        if message is None:
            return
        if loses_ask:
            self.purse.miss("lost")
            return
        answer = {"slices": [asdict(granted) for granted in self.house.ledger.lease(read_lease(message))]}
        if loses_answer:
            self.purse.miss("lost")
        else:
            self.purse.take(answer)

    def ship(self, *, loses_answer: bool = False) -> None:
        batch = self.journal[self.shipped :]
        if batch:
            self.house.ledger.enter(self.source, batch)
            if not loses_answer:
                self.shipped = len(self.journal)


class House:
    """A ledger with budgets on the way up, and gateways."""

    def __init__(self, seed: int, *limits: int) -> None:
        self.rng, self.clock = random.Random(seed), VirtualClock(1_793_491_200.0)
        self.database = Database("sqlite://")
        self.database.migrate()
        self.ledger = Ledger(self.database, self.clock)
        self.scope = Store(self.database, self.clock).everything("test")
        self.facts: dict[str, BudgetFacts] = {}
        for number, tokens in enumerate(limits):
            self.scope.write([Create("Budget", "red", f"b{number}", BUDGET.parse_spec({"tokens": tokens}))])
            uid = self.scope.get("Budget", f"b{number}", "red").uid
            self.facts[uid] = BudgetFacts(uid, f"b{number}", "red", frozenset({"tokens"}))
        self.gateways = [Gateway(self, f"g{n}") for n in range(4)]

    def spent(self, name: str = "b0") -> tuple[int, int, int]:
        """Spent, overspent, and what is still available or held."""
        uid = self.scope.get("Budget", name, "red").uid
        self.ledger.tend(uid)
        (balance,) = self.ledger.balances(uid, "total")
        assert self.ledger.check() == []
        return balance.spent, balance.overspent, balance.available + balance.held


@pytest.fixture
def houses() -> Iterator[Any]:
    made: list[House] = []

    def make(seed: int, *limits: int) -> House:
        made.append(House(seed, *limits))
        return made[-1]

    yield make
    for house in made:
        house.database.close()


@pytest.mark.parametrize("seed", range(3))
def test_four_gateways_spend_a_tiny_quota_to_the_end_and_never_beyond(houses: Any, seed: int) -> None:
    """Requests of 1 to 20 tokens until nobody is served any more: less than one request's worth is left."""
    house = houses(seed, 5000, 6000)
    for turn in itertools.count():
        for gateway in house.gateways:
            for _ in range(house.rng.randint(0, 3)):
                gateway.begin(house.rng.randint(1, 20))
            for _ in range(4):
                gateway.finish(1.0)
            gateway.talk()
            gateway.purse.tick()
            if house.rng.random() < 0.2:
                gateway.ship()
        house.clock.advance(0.11)
        if turn > 60 and sum(g.refused for g in house.gateways) > 200:
            break
        assert turn < 5000
    for _ in range(400):
        for gateway in house.gateways:
            gateway.finish(1.0)
            gateway.talk()
            gateway.purse.tick()
        house.clock.advance(0.11)
    for gateway in house.gateways:
        gateway.ship()
    spent, overspent, left = house.spent()
    assert (spent + left, overspent) == (5000, 0)
    assert left < 20
    assert spent == sum(r["completion_tokens"] for g in house.gateways for r in g.journal) // 2


@pytest.mark.parametrize("seed", range(6))
def test_lost_messages_and_killed_gateways_overspend_nothing(houses: Any, seed: int) -> None:
    house = houses(seed, 3000)
    rng = house.rng
    for turn in range(400):
        gateway = rng.choice(house.gateways)
        for _ in range(rng.randint(0, 5)):
            gateway.begin(rng.randint(1, 60))
        for _ in range(rng.randint(0, 5)):
            gateway.finish(rng.random())
        gateway.talk(loses_ask=rng.random() < 0.2, loses_answer=rng.random() < 0.3)
        if rng.random() < 0.3:
            gateway.ship(loses_answer=rng.random() < 0.3)
        if rng.random() < 0.05:
            gateway.start()
        if turn == 200:
            budget = house.scope.get("Budget", "b0", "red")
            house.scope.write([SetSpec(budget, budget.spec | {"tokens": 3500})])
        house.clock.advance(rng.random())
        gateway.purse.tick()
        assert house.spent()[1] == 0
    for gateway in house.gateways:
        gateway.start()
        gateway.ship()
        gateway.talk()
    spent, overspent, left = house.spent()
    assert (spent + left, overspent) == (3500, 0)
    assert spent == sum(r["completion_tokens"] for g in house.gateways for r in g.journal)
