"""What the accounts say, read without the ledger's lock: balances of budgets, and a check of the whole book."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from atoll.governance.accounts import accounts, postings, slices
from atoll.governance.budgets import FIELDS, figure_of


@dataclass(frozen=True, slots=True)
class Balance:
    """One unit of a budget in one period, in whole amounts; `overspent` is what was used and is not covered."""

    budget: str
    project: str
    name: str
    period: str
    unit: str
    currency: str
    allowed: int
    available: int
    held: int
    spent: int
    overspent: int

    def figures(self) -> dict[str, float]:
        """The amounts as people read them."""
        return {name: figure_of(self.unit, getattr(self, name)) for name in ("allowed", "spent", "held", "available")}

    def to_dict(self) -> dict[str, Any]:
        return {
            "budget": self.name,
            "period": self.period,
            "unit": FIELDS[self.unit],
            "currency": self.currency,
            **self.figures(),
            "overspent": figure_of(self.unit, self.overspent),
        }


def balances_of(connection: Connection, budget: str, period: str) -> list[Balance]:
    """The balances of one budget in one period."""
    return _read(connection, accounts.c.budget == budget, accounts.c.period == period)


def balances_in(connection: Connection, project: str, since_day: str, until_day: str, month: str) -> list[Balance]:
    """The balances of a project's budgets in the periods of a month: the month, its days, and `total`."""
    days = and_(accounts.c.period >= since_day, accounts.c.period < until_day)
    label = or_(accounts.c.period.in_(("total", month)), days)
    return _read(connection, accounts.c.project == project, label)


def check(connection: Connection) -> list[str]:
    """What is wrong with the book, in words; empty when it balances.

    Accounts add up to 0 and to their postings; what is held is what the open slices have left.
    """
    wrong = []
    free = func.sum(slices.c.granted - slices.c.released - slices.c.settled)
    place = (slices.c.budget, slices.c.period, slices.c.unit)
    held = {tuple(row[:3]): int(row[3]) for row in connection.execute(select(*place, free).group_by(*place))}
    moved = _moved(connection)
    for row in connection.execute(select(accounts)):
        at = (row.budget, row.period, row.unit)
        if row.funding + row.available + row.held + row.spent + row.overdraft:
            wrong.append(f"{at} does not balance")
        if min(row.available, row.held, row.spent) < 0:
            wrong.append(f"{at} is below 0")
        if held.get(at, 0) != row.held:
            wrong.append(f"{at} holds {row.held}, its slices {held.get(at, 0)}")
        for name in ("funding", "available", "held", "spent", "overdraft"):
            if moved.get((*at, name), 0) != getattr(row, name):
                wrong.append(f"{at} has {getattr(row, name)} {name}, its postings say {moved.get((*at, name), 0)}")
    return wrong


def _moved(connection: Connection) -> dict[tuple[str, ...], int]:
    of = postings.c
    sums: dict[tuple[str, ...], int] = {}
    for column, sign in ((of.debit, -1), (of.credit, 1)):
        groups = (of.budget, of.period, of.unit, column)
        for row in connection.execute(select(*groups, func.sum(of.amount)).group_by(*groups)):
            key = tuple(row[:4])
            sums[key] = sums.get(key, 0) + sign * int(row[4])
    return sums


def _read(connection: Connection, *where: Any) -> list[Balance]:
    query = select(accounts).where(*where).order_by(accounts.c.name, accounts.c.period, accounts.c.unit)
    return _balances(connection.execute(query))


def _balances(rows: Iterable[Row[Any]]) -> list[Balance]:
    return [
        Balance(
            row.budget,
            row.project,
            row.name,
            row.period,
            row.unit,
            row.currency,
            -row.funding,
            row.available,
            row.held,
            row.spent,
            -row.overdraft,
        )
        for row in rows
    ]
