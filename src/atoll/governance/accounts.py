"""Double entry for budgets: five accounts per budget, period and unit, and the moves between them.

    funding ─allowance, top-up, voucher─▶ available ─grant─▶ held ─settle─▶ spent
       ▲                                  │   ▲              │               ▲
       └───────────── withdraw ───────────┘   └── release ───┘               │
                                          └────────────── charge ────────────┤
                                                       overdraft ─overspend──┘   (and available ─cover─▶ overdraft)

Their sum is 0, and `available`, `held` and `spent` are never below 0; the database checks both at every write. What was
used beyond what there was is overspend: it makes `overdraft` negative and is covered from what becomes available.
Amounts are whole: tokens, micro-units of money, accelerator-milliseconds. Who holds a `Book` holds the ledger's lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Float,
    Index,
    String,
    Table,
    Text,
    bindparam,
    insert,
    select,
    update,
)

from atoll.core.tables import counters, metadata

TOKENS, MONEY, ACCELERATOR_MS = "tokens", "money", "accelerator_ms"
UNITS = (TOKENS, MONEY, ACCELERATOR_MS)
AMOUNT_END = 1 << 53

accounts = Table(
    "accounts",
    metadata,
    Column("budget", String(40), primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("unit", String(16), primary_key=True),
    Column("project", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("currency", String(8), nullable=False),
    Column("funding", BigInteger, nullable=False),
    Column("available", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("overdraft", BigInteger, nullable=False),
    Column("allowance", BigInteger, nullable=False),
    CheckConstraint("funding + available + held + spent + overdraft = 0", name="accounts_balance"),
    CheckConstraint("available >= 0 AND held >= 0 AND spent >= 0 AND overdraft <= 0", name="accounts_in_range"),
    Index("accounts_of", "project", "period"),
)

postings = Table(
    "postings",
    metadata,
    Column("entry", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("budget", String(40), nullable=False),
    Column("period", String(16), nullable=False),
    Column("unit", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("debit", String(16), nullable=False),
    Column("credit", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("slice", BigInteger),
    Column("actor", String(128), nullable=False),
    Column("note", Text, nullable=False),
    CheckConstraint("amount > 0", name="postings_amount"),
    Index("postings_of", "budget", "period"),
)

slices = Table(
    "slices",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("source", String(64), nullable=False),
    Column("incarnation", String(64), nullable=False),
    Column("budget", String(40), nullable=False),
    Column("period", String(16), nullable=False),
    Column("unit", String(16), nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("released", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("opened_at", Float(53), nullable=False),
    Column("expires_at", Float(53)),
    Index("slices_of_source", "source", "is_open"),
    CheckConstraint("granted >= released + settled", name="slices_in_range"),
    Index("slices_of_budget", "budget", "is_open"),
)

sources = Table(
    "sources",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("incarnation", String(64), nullable=False),
    Column("begins_after", BigInteger, nullable=False),
    Column("entered", BigInteger, nullable=False),
    Column("is_settled", Boolean, nullable=False),
    Column("seen_at", Float(53), nullable=False),
)
"""Gateways: which process writes under each name now, and up to which record the ledger has its journal."""

top_ups = Table(
    "top_ups",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("project", String(128), nullable=False),
    Column("budget", String(40), nullable=False),
    Column("name", String(128), nullable=False),
    Column("period", String(16), nullable=False),
    Column("unit", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("note", Text, nullable=False),
    Index("top_ups_of", "project", "at"),
)

COUNTER = "ledger"
SLICE_COUNTER = "slices"
_LOCK = select(counters.c.value).where(counters.c.name == COUNTER).with_for_update()
_TAKE = (
    update(counters)
    .where(counters.c.name == bindparam("counter"))
    .values(value=counters.c.value + bindparam("count"))
    .returning(counters.c.value)
)


class Place(NamedTuple):
    """Which accounts: one budget in one period and one unit."""

    budget: str
    period: str
    unit: str


@dataclass(slots=True)
class Account:
    """The five accounts of one place; `allowance` is what its budget's spec has put in."""

    place: Place
    project: str = ""
    name: str = ""
    currency: str = ""
    funding: int = 0
    available: int = 0
    held: int = 0
    spent: int = 0
    overdraft: int = 0
    allowance: int = 0
    is_new: bool = False
    is_changed: bool = False

    @property
    def allowed(self) -> int:
        """Allowance and top-ups so far."""
        return -self.funding


@dataclass(slots=True)
class Slice:
    """A part of a budget that one process of one gateway may use by itself."""

    id: int
    source: str
    incarnation: str
    budget: str
    period: str
    unit: str
    granted: int = 0
    released: int = 0
    settled: int = 0
    charged: int = 0
    is_open: bool = True
    opened_at: float = 0.0
    expires_at: float | None = None
    is_new: bool = False
    is_changed: bool = False

    @property
    def place(self) -> Place:
        return Place(self.budget, self.period, self.unit)

    @property
    def free(self) -> int:
        """Granted and neither settled nor given back."""
        return self.granted - self.released - self.settled


@dataclass(slots=True)
class Book:
    """The ledger inside one transaction: what it touches is read once, and written once by `flush`."""

    connection: Connection
    at: float
    actor: str = ""
    _accounts: dict[Place, Account] = field(default_factory=dict)
    _slices: dict[int, Slice] = field(default_factory=dict)
    _postings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def locked(cls, connection: Connection, at: float, actor: str = "") -> Book:
        """The book, once nobody else writes in it (SQLite has one writer by itself)."""
        connection.execute(_LOCK)
        return cls(connection, at, actor)

    # reading

    def load(self, places: Iterable[Place]) -> None:
        """Read the accounts that are not read yet; those that do not exist are empty."""
        missing = {place for place in places if place not in self._accounts}
        if not missing:
            return
        budgets, periods = {place.budget for place in missing}, {place.period for place in missing}
        for row in self.connection.execute(_READ_ACCOUNTS, {"budgets": list(budgets), "periods": list(periods)}):
            account = _account(row)
            self._accounts.setdefault(account.place, account)
        for place in missing:
            self._accounts.setdefault(place, Account(place, is_new=True))

    def account(self, place: Place) -> Account:
        """The account; `load` it before."""
        return self._accounts[place]

    def find_slices(self, *where: Any) -> list[Slice]:
        """Slices that match, as this book sees them, with their accounts loaded."""
        found = []
        for row in self.connection.execute(select(slices).where(*where).order_by(slices.c.id)):
            found.append(self._slices.setdefault(row.id, Slice(*row)))
        self.load(each.place for each in found)
        return found

    def open_slice(self, source: str, incarnation: str, place: Place, expires_at: float | None) -> Slice:
        """A new slice with nothing in it."""
        number = take(self.connection, SLICE_COUNTER, 1)
        made = Slice(number, source, incarnation, *place, opened_at=self.at, expires_at=expires_at, is_new=True)
        self._slices[number] = made
        return made

    # moving

    def fund(self, account: Account, allowance: int) -> None:
        """Bring the allowance to what the budget says; what is held or spent already cannot be taken back."""
        more = allowance - account.allowance
        if more < 0:
            more = -min(-more, account.available)
        account.allowance += more
        if more > 0:
            self._move(account, "allowance", "funding", "available", more)
            self._cover(account)
        elif more < 0:
            self._move(account, "withdraw", "available", "funding", -more)

    def top_up(self, account: Account, amount: int, kind: str, note: str = "") -> None:
        """Add to what there is."""
        self._move(account, kind, "funding", "available", amount, note=note)
        self._cover(account)

    def grant(self, leased: Slice, amount: int) -> None:
        """Put `amount` of what is available into the slice."""
        leased.granted += amount
        leased.is_changed = True
        self._move(self.account(leased.place), "grant", "available", "held", amount, leased.id)

    def release(self, leased: Slice, amount: int) -> None:
        """Take `amount` back from the slice."""
        amount = min(amount, leased.free)
        if amount <= 0:
            return
        leased.released += amount
        leased.is_changed = True
        account = self.account(leased.place)
        self._move(account, "release", "held", "available", amount, leased.id)
        self._cover(account)

    def settle(self, leased: Slice, amount: int, note: str = "") -> None:
        """What was used: from the slice; beyond it or after its end from what is available; beyond that overspent."""
        account = self.account(leased.place)
        from_slice = min(amount, leased.free) if leased.is_open else 0
        if from_slice:
            leased.settled += from_slice
            leased.is_changed = True
            self._move(account, "settle", "held", "spent", from_slice, leased.id, note)
        if amount > from_slice:
            leased.charged += amount - from_slice
            leased.is_changed = True
            self._charge(account, amount - from_slice, leased.id, note)

    def close(self, leased: Slice) -> None:
        """End the slice; what it did not use is available again."""
        self.release(leased, leased.free)
        leased.is_open = False
        leased.is_changed = True

    def _charge(self, account: Account, amount: int, leased: int, note: str) -> None:
        straight = min(amount, account.available)
        if straight:
            self._move(account, "charge", "available", "spent", straight, leased, note)
        if amount > straight:
            self._move(account, "overspend", "overdraft", "spent", amount - straight, leased, note)

    def _cover(self, account: Account) -> None:
        covered = min(account.available, -account.overdraft)
        if covered > 0:
            self._move(account, "cover", "available", "overdraft", covered)

    def _move(
        self,
        account: Account,
        kind: str,
        debit: str,
        credit: str,
        amount: int,
        leased: int | None = None,
        note: str = "",
    ) -> None:
        assert amount > 0, (kind, amount)
        setattr(account, debit, getattr(account, debit) - amount)
        setattr(account, credit, getattr(account, credit) + amount)
        assert account.available >= 0 and account.held >= 0 and account.overdraft <= 0, account
        account.is_changed = True
        self._postings.append(
            {
                "at": self.at,
                **account.place._asdict(),
                "kind": kind,
                "debit": debit,
                "credit": credit,
                "amount": amount,
                "slice": leased,
                "actor": self.actor,
                "note": note,
            }
        )

    # writing

    def flush(self) -> None:
        """Write what changed; at most five statements, none when nothing did."""
        if self._postings:
            entry = take(self.connection, COUNTER, 1)
            rows = [row | {"entry": entry, "line": line} for line, row in enumerate(self._postings)]
            self.connection.execute(insert(postings), rows)
        changed = [account for account in self._accounts.values() if account.is_changed]
        self._write(insert(accounts), [_account_row(a) for a in changed if a.is_new])
        self._write(_UPDATE_ACCOUNT, [_account_guard(a) for a in changed if not a.is_new])
        leased = list(self._slices.values())
        self._write(insert(slices), [_slice_row(s) for s in leased if s.is_new])
        self._write(_UPDATE_SLICE, [_slice_guard(s) for s in leased if s.is_changed and not s.is_new])

    def _write(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.connection.execute(statement, rows)


def take(connection: Connection, counter: str, count: int) -> int:
    """The last of `count` fresh numbers."""
    return int(connection.execute(_TAKE, {"counter": counter, "count": count}).scalar_one())


_BALANCES = ("funding", "available", "held", "spent", "overdraft", "allowance")
_COUNTS = ("granted", "released", "settled", "charged", "is_open")
_UPDATE_ACCOUNT = (
    update(accounts)
    .where(
        accounts.c.budget == bindparam("at_budget"),
        accounts.c.period == bindparam("at_period"),
        accounts.c.unit == bindparam("at_unit"),
    )
    .values({name: bindparam(f"new_{name}") for name in _BALANCES})
)
_READ_ACCOUNTS = select(accounts).where(
    accounts.c.budget.in_(bindparam("budgets", expanding=True)),
    accounts.c.period.in_(bindparam("periods", expanding=True)),
)
_UPDATE_SLICE = (
    update(slices).where(slices.c.id == bindparam("at_id")).values({name: bindparam(f"new_{name}") for name in _COUNTS})
)


def _account(row: Any) -> Account:
    budget, period, unit, *rest = row
    return Account(Place(budget, period, unit), *rest)


def _account_row(account: Account) -> dict[str, Any]:
    named = {"project": account.project, "name": account.name, "currency": account.currency}
    return {**account.place._asdict(), **named, **{name: getattr(account, name) for name in _BALANCES}}


def _account_guard(account: Account) -> dict[str, Any]:
    new = {name: getattr(account, name) for name in _BALANCES}
    place = account.place
    where = {"at_budget": place.budget, "at_period": place.period, "at_unit": place.unit}
    return where | {f"new_{name}": value for name, value in new.items()}


def _slice_row(leased: Slice) -> dict[str, Any]:
    return {column.name: getattr(leased, column.name) for column in slices.c}


def _slice_guard(leased: Slice) -> dict[str, Any]:
    return {"at_id": leased.id, **{f"new_{name}": getattr(leased, name) for name in _COUNTS}}
