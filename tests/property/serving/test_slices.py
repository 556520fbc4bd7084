"""Purses against a reference ledger: whatever is lost, late or killed, never more is used than was granted."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atoll.core.errors import AtollError, RateLimited, Unavailable
from atoll.serving.gateway.holding import DRY_S
from atoll.serving.gateway.slices import BudgetFacts, Purse, Reservation, charges
from property.serving.reference_ledger import PERIOD_S, ReferenceLedger

PATHS = [("team",), ("key", "team"), ("key",), ()]
BUDGETS = {
    "team": BudgetFacts("team", "team", "default", frozenset({"tokens", "money"}), "EUR"),
    "key": BudgetFacts("key", "key", "default", frozenset({"tokens"}), "EUR"),
}
ROUNDS_MAX = 200
amounts = st.integers(1, 60)
nodes = st.integers(0, 2)


class Time:
    def __init__(self) -> None:
        self.now = 0.0


class Node:
    """A gateway: a purse, a journal, and requests that have reserved."""

    def __init__(self, name: str, time: Time) -> None:
        self.name = name
        self.time = time
        self.journal: list[dict[str, int]] = []
        self.recorded: list[tuple[Reservation, dict[str, str], int, int]] = []
        self.results: list[Reservation | AtollError] = []
        self.waited = self.ended = 0
        self.start()

    def start(self) -> None:
        read = lambda: self.time.now  # noqa: E731
        self.purse = Purse(self.name, len(self.journal), now=read, wall=read, chance=lambda: 0.37)
        self.purse.adopt(BUDGETS)

    def kill(self) -> None:
        """kill -9 and a new process: requests under way are found in the flight recorder, here as wholly used."""
        for _, slices, tokens, money in self.recorded:
            self.journal.append(charges(slices, tokens, money))
        self.recorded.clear()
        self.waited = self.ended = 0
        self.start()

    def request(self, path: tuple[str, ...], tokens: int, money: int, limit_s: float = 5.0) -> None:
        found = self.purse.reserve(path, tokens, money, "EUR")
        if found is not None:
            self.take(found, tokens, money)
            return
        self.waited += 1

        def done(result: Reservation | AtollError) -> None:
            self.ended += 1
            self.results.append(result)
            if isinstance(result, Reservation):
                self.take(result, tokens, money)

        self.purse.wait(path, tokens, money, "EUR", done, limit_s)

    def take(self, reservation: Reservation, tokens: int, money: int) -> None:
        self.recorded.append((reservation, reservation.slices, tokens, money))

    def settle(self, index: int, part: float) -> None:
        reservation, slices, tokens, money = self.recorded.pop(index % len(self.recorded))
        used, paid = int(tokens * part), int(money * part)
        told = self.purse.settle(reservation, used, paid)
        assert told == charges(slices, used, paid)
        self.journal.append(told)

    def records(self, after: int) -> list[tuple[int, dict[str, int]]]:
        return list(enumerate(self.journal, 1))[after:]


class Budgets(RuleBasedStateMachine):
    """Three gateways, two budgets, one of them inside the other."""

    @initialize(tokens=st.integers(20, 400), money=st.integers(20, 400), key=st.integers(10, 200))
    def begin(self, tokens: int, money: int, key: int) -> None:
        self.time = Time()
        self.time.now = 3 * PERIOD_S
        allowances = {("team", "tokens"): tokens, ("team", "money"): money, ("key", "tokens"): key}
        self.ledger = ReferenceLedger(allowances)
        self.nodes = [Node(f"gateway-{i}", self.time) for i in range(3)]
        self.late: list[dict[str, Any]] = []

    @rule(node=nodes, path=st.sampled_from(PATHS), tokens=amounts, money=st.integers(0, 60))
    def request(self, node: int, path: tuple[str, ...], tokens: int, money: int) -> None:
        self.nodes[node].request(path, tokens, money)

    @rule(node=nodes, index=st.integers(0, 99), part=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, node: int, index: int, part: float) -> None:
        if self.nodes[node].recorded:
            self.nodes[node].settle(index, part)

    @rule(node=nodes, index=st.integers(0, 99))
    def cancel(self, node: int, index: int) -> None:
        recorded = self.nodes[node].recorded
        if recorded:
            self.nodes[node].purse.cancel(recorded.pop(index % len(recorded))[0])

    @rule(node=nodes, fate=st.sampled_from(["heard", "heard", "heard", "ask lost", "answer lost", "late"]))
    def exchange(self, node: int, fate: str) -> None:
        purse = self.nodes[node].purse
        message = purse.ask()
        if message is None:
            return
        if fate == "heard":
            purse.take(self.ledger.answer(message, self.time.now))
            return
        if fate == "answer lost":
            self.ledger.answer(message, self.time.now)
        elif fate == "late":
            self.late.append(message)
        purse.miss(fate)

    @precondition(lambda self: self.late)
    @rule()
    def late_ask_arrives(self) -> None:
        message = self.late.pop(0)
        if message["incarnation"] == self.ledger.incarnations.get(message["source"], message["incarnation"]):
            self.ledger.answer(message, self.time.now)

    @rule(node=nodes, count=st.integers(1, 5))
    def ship(self, node: int, count: int) -> None:
        sender = self.nodes[node]
        self.ledger.enter(sender.name, sender.records(self.ledger.entered[sender.name])[:count])

    @rule(node=nodes)
    def kill(self, node: int) -> None:
        self.nodes[node].kill()

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 3.0, 20.0, PERIOD_S / 2]))
    def pass_time(self, seconds: float) -> None:
        self.time.now += seconds
        for node in self.nodes:
            node.purse.tick()

    @invariant()
    def nothing_is_overspent(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for account in {lease.account for lease in self.ledger.leases}:
            assert self.ledger.available(account) >= 0

    @invariant()
    def every_wait_ends_once(self) -> None:
        for node in getattr(self, "nodes", ()):
            assert node.waited - node.ended == node.purse.waiting
            for result in node.results:
                assert isinstance(result, (Reservation, RateLimited, Unavailable))

    def teardown(self) -> None:
        """In peace, what is left can be used up by any gateway, to the last token."""
        if not hasattr(self, "ledger"):
            return
        if self.time.now % PERIOD_S > PERIOD_S / 2:
            self.time.now = (self.time.now // PERIOD_S + 1) * PERIOD_S
        self.late.clear()
        for node in self.nodes:
            self._in_peace(lambda node=node: not node.purse.waiting)
            while node.recorded:
                node.settle(0, 1.0)
            node.results.clear()
        self.time.now += DRY_S
        left = lambda: self._left("team", "tokens")  # noqa: E731
        self._in_peace(lambda: not any(self._unshipped(node) for node in self.nodes))
        wanted = min(left(), 7)
        for turn in range(4):
            node = self.nodes[turn % 3]
            count = left() // wanted if wanted else 0
            if not count or turn == 3:
                break
            for _ in range(count if turn == 2 else count // 2):
                node.request(("team",), wanted, 0, limit_s=60.0)
            self._in_peace(lambda node=node: not node.purse.waiting)
            assert all(isinstance(result, Reservation) for result in node.results), node.results
            while node.recorded:
                node.settle(0, 1.0)
        if wanted:
            assert left() < wanted

    def _left(self, budget: str, unit: str) -> int:
        account = (budget, int(self.time.now // PERIOD_S), unit)
        unshipped = sum(
            amount
            for node in self.nodes
            for _, amounts in node.records(self.ledger.entered[node.name])
            for id, amount in amounts.items()
            if self.ledger.leases[int(id) - 1].account == account
        )
        return self.ledger.allowances[budget, unit] - self.ledger.spent[account] - unshipped

    def _unshipped(self, node: Node) -> bool:
        return self.ledger.entered[node.name] < len(node.journal)

    def _in_peace(self, claim: Any) -> None:
        """Everything is heard and shipped, and time passes, until the claim holds."""
        for _ in range(ROUNDS_MAX):
            self.time.now += 0.1
            for node in self.nodes:
                self.ledger.enter(node.name, node.records(self.ledger.entered[node.name]))
                message = node.purse.ask()
                if message is not None:
                    node.purse.take(self.ledger.answer(message, self.time.now))
                node.purse.tick()
            if claim():
                return
        raise AssertionError("stuck")


Budgets.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPursesAgainstTheReference = Budgets.TestCase
