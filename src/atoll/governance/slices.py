"""Leased slices: parts of budgets that gateways may use by themselves, so that nothing is ever overspent.

State based: an ask says what the gateway has seen granted and what it has given back so far, both since the slice
began, and how much more it wants; a repeated ask changes nothing, and a grant whose answer was lost counts towards it.
A slice belongs to one process (incarnation) of one gateway (source), one budget, period and unit. When the next
process begins, the slices of the one before are closed once the ledger has its records, which gateways send in order.
A gateway that never returns keeps its slices until it is forgotten: what it used is not known before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import bindparam, insert, select, update

from atoll.core.errors import Fenced, Invalid
from atoll.core.tables import resources
from atoll.governance.accounts import AMOUNT_END, UNITS, Account, Book, Place, Slice, slices, sources
from atoll.governance.budgets import Limit, limits_of

SEEN_EVERY_S = 30.0
ASKS_MAX = 5000
SCARCE_PART = 4
"""Less left than one part in so many of what is held: gateways shall keep nothing idle."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a gateway says of one slice; amounts since the slice began.

    `need` is the least that helps the requests waiting now: less than that is not granted. 0: anything helps.
    """

    budget: str
    unit: str
    slice: int | None = None
    granted_seen: int = 0
    released: int = 0
    want: int = 0
    need: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The slice as it is; `available` is what is left in the budget for anybody.

    `expires_at` in the past: the budget, its unit or the period is gone, and what is free of the slice is void.
    """

    slice: int | None
    budget: str
    unit: str
    granted: int
    released: int
    expires_at: float | None
    available: int
    scarce: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Who asks: a process of a gateway; everything up to record `begins_after` is of processes before it."""

    source: str
    incarnation: str
    begins_after: int = 0
    asks: Sequence[Ask] = field(default=())


def read_lease(data: Mapping[str, Any]) -> Lease:
    """A lease from its wire form; Invalid names the field."""
    asks = data.get("slices")
    if not isinstance(asks, list) or len(asks) > ASKS_MAX:
        raise Invalid("slices must be a list", field="slices", hint=f"of at most {ASKS_MAX}")
    for name in ("source", "incarnation"):
        value = data.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= 64:
            raise Invalid(f"{name} cannot be {value!r}", field=name, hint="1 to 64 characters")
    begins_after = _amount(data, "begins_after", "")
    return Lease(data["source"], data["incarnation"], begins_after, [_ask(i, ask) for i, ask in enumerate(asks)])


def answer(book: Book, lease: Lease) -> list[Grant]:
    """Take note of what a gateway gave back and grant what it asks for, as far as there is any; in the book's order.

    Fenced when a later process of the gateway has asked already.
    """
    now = book.at
    entered = _take_over(book, lease)
    if lease.begins_after <= entered:
        close_others(book, lease.source, lease.incarnation)
    mine = book.find_slices(
        slices.c.source == lease.source, slices.c.incarnation == lease.incarnation, slices.c.is_open.is_(True)
    )
    limits = read_limits(book, {ask.budget for ask in lease.asks}, now)
    book.load(limit.place for limit in limits.values())
    rivals = _rivals(book, lease)
    return [_answer(book, lease, ask, mine, limits.get((ask.budget, ask.unit)), rivals) for ask in lease.asks]


def read_limits(book: Book, budgets: set[str], now: float) -> dict[tuple[str, str], Limit]:
    """What the specs of these budgets allow at Unix time `now`, by uid and unit, with the accounts funded so far."""
    if not budgets:
        return {}
    found: dict[tuple[str, str], Limit] = {}
    for row in book.connection.execute(_SPECS, {"uids": list(budgets)}):
        for limit in limits_of(row.uid, row.project, row.name, orjson.loads(row.spec), now):
            found[row.uid, limit.place.unit] = limit
    book.load(limit.place for limit in found.values())
    for limit in found.values():
        fund(book, limit)
    return found


def fund(book: Book, limit: Limit) -> Account:
    """The account of a limit, with its allowance as the budget says now."""
    account = book.account(limit.place)
    if account.is_new:
        account.project, account.name, account.currency = limit.project, limit.name, limit.currency
        account.is_changed = True
    book.fund(account, limit.amount)
    return account


def close_others(book: Book, source: str, incarnation: str) -> None:
    """End the slices of the source's earlier processes; the ledger must have all their records."""
    for leased in book.find_slices(
        slices.c.source == source, slices.c.incarnation != incarnation, slices.c.is_open.is_(True)
    ):
        book.close(leased)
    book.connection.execute(update(sources).where(sources.c.source == source).values(is_settled=True))


def expire(book: Book, budget: str, current: Mapping[str, Place]) -> None:
    """End the slices of a budget's periods that are over; `current` is the place now, by unit."""
    for leased in book.find_slices(slices.c.budget == budget, slices.c.is_open.is_(True)):
        if current.get(leased.unit) != leased.place:
            book.close(leased)


def forget(book: Book, source: str) -> int:
    """Give a gateway up: what it held is available again, records it may still bring are charged straight.

    Returns how many slices were open. Its process, should it live, is fenced and has to begin anew.
    """
    found = book.find_slices(slices.c.source == source, slices.c.is_open.is_(True))
    for leased in found:
        book.close(leased)
    values = {"incarnation": "", "is_settled": True}
    book.connection.execute(update(sources).where(sources.c.source == source).values(values))
    return len(found)


def size(ask_want: int, ask_need: int, available: int, has_rivals: bool) -> int:
    """How much to grant: at most what is wanted and available; with rivals half of what is left, unless more is needed.

    Nothing when what is needed is not there: a part of it would help nobody and keep others waiting.
    """
    need = min(ask_need, ask_want)
    if available <= 0 or need > available:
        return 0
    share = max(need, (available + 1) // 2) if has_rivals else available
    return min(ask_want, share)


def _answer(
    book: Book, lease: Lease, ask: Ask, mine: list[Slice], limit: Limit | None, rivals: set[tuple[str, str]]
) -> Grant:
    leased = _named(ask, mine, limit)
    if leased is not None:
        book.release(leased, ask.released - leased.released)
    is_over = ask.slice is not None and (leased is None or limit is None or leased.place != limit.place)
    if limit is None or (is_over and ask.want <= 0):
        return _void(ask, leased, book.at)
    if is_over:
        ask = Ask(ask.budget, ask.unit, want=ask.want, need=ask.need)
        leased = _named(ask, mine, limit)
    account = book.account(limit.place)
    has_rivals = (ask.budget, ask.unit) in rivals
    unseen = max(0, leased.granted - ask.granted_seen) if leased else 0
    want, need = max(0, ask.want - unseen), max(0, ask.need - unseen)
    amount = size(want, need, account.available, has_rivals)
    if leased is None and (amount or ask.want):
        leased = book.open_slice(lease.source, lease.incarnation, limit.place, limit.expires_at)
        mine.append(leased)
    if leased is not None and amount:
        book.grant(leased, amount)
    is_short = amount < max(need, min(want, 1))
    scarce = has_rivals and (is_short or account.available * SCARCE_PART < account.held)
    granted, released = (leased.granted, leased.released) if leased else (0, 0)
    number = leased.id if leased else None
    return Grant(number, ask.budget, ask.unit, granted, released, limit.expires_at, account.available, scarce)


def _named(ask: Ask, mine: list[Slice], limit: Limit | None) -> Slice | None:
    """The slice an ask speaks of: by its number, else the one of the present period."""
    if ask.slice is not None:
        return next((each for each in mine if each.id == ask.slice), None)
    place = limit.place if limit else None
    return next((each for each in mine if each.place == place), None)


def _void(ask: Ask, leased: Slice | None, now: float) -> Grant:
    if leased is None:
        return Grant(ask.slice, ask.budget, ask.unit, ask.granted_seen, ask.released, now, 0, True)
    ended = min(now, leased.expires_at or now)
    return Grant(leased.id, ask.budget, ask.unit, leased.granted, leased.released, ended, 0, True)


def _take_over(book: Book, lease: Lease) -> int:
    """Make the asking process its gateway's present one; returns up to which record the ledger has its journal."""
    row = book.connection.execute(_SOURCE, {"named": lease.source}).first()
    fresh = {"incarnation": lease.incarnation, "begins_after": lease.begins_after, "seen_at": book.at}
    if row is None:
        values = {"source": lease.source, "entered": 0, "is_settled": True, **fresh}
        book.connection.execute(insert(sources), values)
        return 0
    is_same = row.incarnation == lease.incarnation
    if not is_same:
        _refuse_ended(book, lease)
    if not is_same or book.at - row.seen_at > SEEN_EVERY_S:
        settled = {"is_settled": False} if not is_same else {}
        book.connection.execute(update(sources).where(sources.c.source == lease.source).values(fresh | settled))
    # nothing is left to close when the earlier processes were closed before
    return -1 if is_same and row.is_settled else int(row.entered)


def _refuse_ended(book: Book, lease: Lease) -> None:
    known = select(slices.c.id).where(slices.c.source == lease.source, slices.c.incarnation == lease.incarnation)
    if book.connection.execute(known.limit(1)).first() is not None:
        raise Fenced(
            f"process {lease.incarnation} of gateway {lease.source} was closed",
            hint="begin anew under a new incarnation, after the last record written",
        )


def _rivals(book: Book, lease: Lease) -> set[tuple[str, str]]:
    """(budget, unit) pairs that other gateways hold slices of."""
    budgets = list({ask.budget for ask in lease.asks})
    return {(row.budget, row.unit) for row in book.connection.execute(_HELD, {"budgets": budgets, "me": lease.source})}


_SPECS = select(resources.c.uid, resources.c.project, resources.c.name, resources.c.spec).where(
    resources.c.uid.in_(bindparam("uids", expanding=True)),
    resources.c.kind == "Budget",
    resources.c.deleting_at.is_(None),
)
_SOURCE = select(sources).where(sources.c.source == bindparam("named"))
_HELD = (
    select(slices.c.budget, slices.c.unit)
    .where(
        slices.c.budget.in_(bindparam("budgets", expanding=True)),
        slices.c.is_open.is_(True),
        slices.c.source != bindparam("me"),
    )
    .group_by(slices.c.budget, slices.c.unit)
)


def _ask(index: int, data: Any) -> Ask:
    where = f"slices.{index}"
    if not isinstance(data, dict):
        raise Invalid(f"{where} must be an object", field=where)
    budget, unit, number = data.get("budget"), data.get("unit"), data.get("slice")
    if not isinstance(budget, str) or unit not in UNITS:
        raise Invalid(f"{where} has no such budget or unit: {budget!r}, {unit!r}", field=where)
    if isinstance(number, str) and number.isdecimal():
        number = int(number)
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise Invalid(f"{where}.slice cannot be {number!r}", field=f"{where}.slice")
    amounts = {name: _amount(data, name, f"{where}.") for name in ("granted_seen", "released", "want", "need")}
    return Ask(budget, str(unit), number, **amounts)


def _amount(data: Mapping[str, Any], name: str, where: str) -> int:
    value = data.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < AMOUNT_END:
        raise Invalid(f"{where}{name} cannot be {value!r}", field=f"{where}{name}", hint="a whole number from 0")
    return value
