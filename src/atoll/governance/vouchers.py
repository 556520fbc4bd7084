"""Money and tokens put into budgets: top-ups by administrators, and vouchers whoever holds the code may redeem once.

A voucher's code is shown once and kept as a hash. A top-up carries an id of the caller's, so that a repeated request
adds nothing. Both go into the budget's present period and end with it; a prepaid budget has period `total`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Float, String, Table, Text, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateError

from atoll.core.clock import Clock, SystemClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, Invalid, NotFound
from atoll.core.resources import Resource
from atoll.core.tables import metadata
from atoll.governance.accounts import AMOUNT_END, MONEY, Book, top_ups
from atoll.governance.budgets import FIELDS, Limit, amount_of, figure_of, limits_of
from atoll.governance.resources import FIGURE_MAX
from atoll.governance.slices import fund

PREFIX = "atoll-voucher-"
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_CODE_LENGTH = 24
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

vouchers = Table(
    "vouchers",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("unit", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", String(8), nullable=False),
    Column("description", Text, nullable=False),
    Column("made_at", Float(53), nullable=False),
    Column("made_by", String(128), nullable=False),
    Column("expires_at", Float(53)),
    Column("redeemed_at", Float(53)),
    Column("redeemed_by", String(128)),
    Column("project", String(128)),
    Column("budget", String(128)),
)


@dataclass(frozen=True, slots=True)
class TopUp:
    """What was added to a budget."""

    id: str
    at: float
    project: str
    budget: str
    period: str
    unit: str
    amount: int
    currency: str
    kind: str
    actor: str
    note: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at,
            "budget": self.budget,
            "period": self.period,
            "unit": FIELDS[self.unit],
            "amount": figure_of(self.unit, self.amount),
            "currency": self.currency,
            "kind": self.kind,
            "by": self.actor,
            "note": self.note,
        }


class Payments:
    """Top-ups and vouchers of one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def top_up(self, budget: Resource, unit: str, amount: int, *, id: str, actor: str, note: str = "") -> TopUp:
        """Add `amount` (whole units) to what the budget has in this period; the same `id` again adds nothing."""
        if not _ID.fullmatch(id):
            raise Invalid(f"id cannot be {id!r}", field="id", hint="1 to 64 letters, digits, '.', '_', ':' or '-'")
        _check_amount(amount)
        with self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), actor)
            known = connection.execute(select(top_ups).where(top_ups.c.id == id)).first()
            if known is not None:
                return _same(_top_up(known), budget, unit, amount)
            made = _add(book, budget, _limit(budget, unit, book.at), amount, id, "top-up", note)
            book.flush()
        return made

    def make_voucher(
        self,
        unit: str,
        amount: int,
        *,
        currency: str = "",
        description: str = "",
        expires_at: float | None = None,
        actor: str,
    ) -> tuple[str, str]:
        """A new voucher: its id and its code, which is shown here only."""
        _check_amount(amount)
        code = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_LENGTH))
        number = f"voucher-{secrets.token_hex(5)}"
        row = {
            "sha256": _hash_of(code),
            "id": number,
            "unit": unit,
            "amount": amount,
            "currency": currency if unit == MONEY else "",
            "description": description,
            "made_at": self._clock.now(),
            "made_by": actor,
            "expires_at": expires_at,
        }
        with self._database.writing(durable=True) as connection:
            connection.execute(insert(vouchers), [row])
        return number, code

    def redeem(self, code: str, budget: Resource, *, actor: str) -> TopUp:
        """Put a voucher into a budget: once, however many try at once.

        NotFound for a code that nobody made, Conflict when it was redeemed or is too old, Invalid when the budget does
        not limit the voucher's unit or counts in another currency; the voucher is then still good.
        """
        digest = _hash_of(code.strip().upper().replace(PREFIX.upper(), PREFIX))
        with self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), actor)
            voucher = _taken(connection, digest, budget, actor, book.at)
            limit = _limit(budget, voucher.unit, book.at)
            if voucher.unit == MONEY and voucher.currency != limit.currency:
                raise Invalid(
                    f"the voucher is of {voucher.currency}, budget {budget.name!r} counts {limit.currency}",
                    field="budget",
                )
            made = _add(book, budget, limit, voucher.amount, voucher.id, "voucher", voucher.description)
            book.flush()
        return made

    def cancel(self, number: str) -> None:
        """Make a voucher that was not redeemed worthless."""
        with self._database.writing(durable=True) as connection:
            unused = vouchers.delete().where(vouchers.c.id == number, vouchers.c.redeemed_at.is_(None))
            if not connection.execute(unused).rowcount:
                raise NotFound(f"there is no voucher {number!r} that could be cancelled")

    def vouchers(self) -> list[dict[str, Any]]:
        """All vouchers, newest first, without their codes."""
        with self._database.reading() as connection:
            return [_shown(row) for row in connection.execute(select(vouchers).order_by(vouchers.c.made_at.desc()))]

    def top_ups(self, project: str, since: float = 0.0, until: float = 1e12) -> list[TopUp]:
        """What was added to a project's budgets in [since, until), oldest first."""
        query = select(top_ups).where(top_ups.c.project == project, top_ups.c.at >= since, top_ups.c.at < until)
        with self._database.reading() as connection:
            return [_top_up(row) for row in connection.execute(query.order_by(top_ups.c.at, top_ups.c.id))]


def _taken(connection: Connection, digest: str, budget: Resource, actor: str, now: float) -> Any:
    """The voucher, marked as redeemed in this transaction."""
    mark = (
        update(vouchers)
        .where(vouchers.c.sha256 == digest, vouchers.c.redeemed_at.is_(None))
        .values(redeemed_at=now, redeemed_by=actor[:128], project=budget.project, budget=budget.name)
    )
    is_first = connection.execute(mark).rowcount == 1
    voucher = connection.execute(select(vouchers).where(vouchers.c.sha256 == digest)).first()
    if voucher is None:
        raise NotFound("there is no voucher with this code", hint="check the code; it begins with " + PREFIX)
    if not is_first:
        raise Conflict(f"voucher {voucher.id} was redeemed already", hint="each voucher counts once")
    if voucher.expires_at is not None and voucher.expires_at <= now:
        raise Conflict(f"voucher {voucher.id} is no longer valid")
    return voucher


def _add(book: Book, budget: Resource, limit: Limit, amount: int, id: str, kind: str, note: str) -> TopUp:
    book.load([limit.place])
    account = fund(book, limit)
    book.top_up(account, amount, kind, id)
    made = TopUp(
        id,
        book.at,
        budget.project,
        budget.name,
        limit.place.period,
        limit.place.unit,
        amount,
        limit.currency,
        kind,
        book.actor[:128],
        note,
    )
    row = {column.name: getattr(made, column.name) for column in top_ups.c if column.name != "name"}
    try:
        book.connection.execute(insert(top_ups), [row | {"budget": budget.uid, "name": budget.name}])
    except DuplicateError as error:
        raise Conflict(f"{kind} {id!r} was made already", hint="choose another id") from error
    return made


def _limit(budget: Resource, unit: str, now: float) -> Limit:
    found = limits_of(budget.uid, budget.project, budget.name, budget.spec, now)
    for limit in found:
        if limit.place.unit == unit:
            return limit
    limited = ", ".join(FIELDS[limit.place.unit] for limit in found) or "nothing"
    raise Invalid(
        f"budget {budget.name!r} does not limit {FIELDS.get(unit, unit)}",
        field="unit",
        hint=f"it limits {limited}; a prepaid budget says 0 and lives from top-ups",
    )


def _same(known: TopUp, budget: Resource, unit: str, amount: int) -> TopUp:
    if (known.budget, known.project, known.unit, known.amount) != (budget.name, budget.project, unit, amount):
        raise Conflict(f"top-up {known.id!r} was made with another amount or budget", hint="choose another id")
    return known


def _check_amount(amount: int) -> None:
    if not 0 < amount < AMOUNT_END:
        raise Invalid(f"amount cannot be {amount}", field="amount", hint="more than 0")


def _hash_of(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _top_up(row: Any) -> TopUp:
    return TopUp(
        row.id,
        row.at,
        row.project,
        row.name,
        row.period,
        row.unit,
        row.amount,
        row.currency,
        row.kind,
        row.actor,
        row.note,
    )


def _shown(row: Any) -> dict[str, Any]:
    names = ("id", "currency", "description", "made_at", "made_by", "expires_at", "redeemed_at", "redeemed_by")
    shown = {name: getattr(row, name) for name in (*names, "project", "budget")}
    return shown | {"unit": FIELDS[row.unit], "amount": figure_of(row.unit, row.amount)}


def amount_from(unit_field: str, value: float) -> tuple[str, int]:
    """Unit and whole amount of a figure people gave: ("money", 12.5) -> ("money", 12500000)."""
    for unit, field in FIELDS.items():
        if unit_field == field:
            if not 0 <= value <= FIGURE_MAX:
                raise Invalid(f"amount cannot be {value:g}", field="amount", hint=f"at most {FIGURE_MAX:g}")
            return unit, amount_of(unit, value)
    raise Invalid(f"unit cannot be {unit_field!r}", field="unit", hint=f"valid: {', '.join(FIELDS.values())}")
