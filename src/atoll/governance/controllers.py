"""The controller of budgets: accounts follow the spec, periods end, status shows the figures.

Costs nothing at rest: a budget is looked at when it changes, while something of it is held, when its period ends, and
at each resync.
"""

from __future__ import annotations

from typing import Any

from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import SetStatus
from atoll.governance.balances import Balance
from atoll.governance.budgets import FIELDS, period_at, units_of
from atoll.governance.ledger import Ledger

LOOK_S = 10.0
"""Between two looks at a budget of which something is held."""


class BudgetController(Controller):
    """Keeps the accounts and the status of each budget."""

    name = "budgets"
    owns = "Budget"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def reconcile(self, key: Key, world: Writer) -> float | None:
        budget = world.read(key)
        if budget is None:
            self._ledger.close_vanished()
            return None
        self._ledger.tend(budget.uid)
        label, ends_at = period_at(budget.spec["period"], world.clock.now())
        found = self._ledger.balances(budget.uid, label)
        status = status_of(budget, label, found)
        if status != budget.status:
            event = status["phase"].capitalize() if status["phase"] != budget.phase else ""
            world.write(SetStatus(budget, status, event, status["reason"]))
        if budget.is_deleting:
            return None
        soon = [LOOK_S] if any(balance.held for balance in found) else []
        return min([*soon, *([] if ends_at is None else [max(1.0, ends_at - world.clock.now())])], default=None)


def status_of(budget: Resource, period: str, found: list[Balance]) -> dict[str, Any]:
    """ready, or exhausted when some unit has nothing left that could be reserved and nothing held."""
    figures = {FIELDS[b.unit]: b.figures() for b in found if b.unit in units_of(budget.spec)}
    empty = [field for field, each in figures.items() if each["available"] <= 0 and each["held"] <= 0]
    said = [f"{figures[field]['spent']:g} of {figures[field]['allowed']:g} {field} spent" for field in empty]
    return {
        "phase": "exhausted" if empty else "ready",
        "reason": "; ".join(said),
        "observed_generation": budget.generation,
        "period": period,
        "figures": figures,
    }
