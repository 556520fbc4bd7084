"""The ledger: usage as gateways saw it, and the slices of budgets they used; durable, each record counted once.

A record is named by the gateway that saw it and its number there; sending it twice changes nothing. Its row, and what
it takes from its slices, go in by one transaction. A gateway's journal arrives in order, so the highest number says
up to where the ledger has it. A record that cannot be entered is kept among the refused, counted and acknowledged, so
that it never holds up those behind it. Costs are whole micro-units, computed once at entry from the record's price.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    String,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from atoll.core.clock import Clock, SystemClock
from atoll.core.database import Database
from atoll.core.errors import Invalid
from atoll.core.tables import metadata, resources
from atoll.governance import slices
from atoll.governance.accounts import Book, sources
from atoll.governance.accounts import slices as leased
from atoll.governance.balances import Balance, balances_of, check
from atoll.governance.records import Entry, Refused, read_records, refusal, usage
from atoll.governance.slices import Grant, Lease

log = logging.getLogger(__name__)

__all__ = ["Gateway", "Ledger", "Line", "usage"]

SOURCE_MAX = 64
USAGE_REFUSED = Counter("atoll_usage_refused", "Usage records that could not be entered and were put aside.")
DAY_S = 86_400

key_uses = Table(
    "key_uses",
    metadata,
    Column("key_id", String(128), primary_key=True),
    Column("at", Float(53), nullable=False),
)

refused_usage = Table(
    "refused_usage",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("reason", Text, nullable=False),
    Column("record", Text, nullable=False),
)

_GROUPS: dict[str, ColumnElement[Any]] = {
    "key": usage.c.key_id,
    "model": usage.c.model,
    "user": func.coalesce(usage.c.end_user, ""),
    "deployment": usage.c.deployment,
}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a statement; groups not asked for are empty."""

    key: str
    model: str
    currency: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_micros: int
    day: str = ""
    user: str = ""
    deployment: str = ""
    duration_ms: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "model": self.model,
            "day": self.day,
            "user": self.user,
            "deployment": self.deployment,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "cost": self.cost_micros / 1e6,
            "currency": self.currency,
        }


@dataclass(frozen=True, slots=True)
class Gateway:
    """One journal the ledger knows, and what its slices hold."""

    source: str
    entered: int
    seen_at: float
    slices: int


class Ledger:
    """Usage and leases of one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._turn = threading.Lock()
        """Threads of this process queue here, not at the database's own lock, which is polled."""

    # usage

    def enter(self, source: str, records: Sequence[Any]) -> int:
        """Enter records of gateway `source`; those entered before are passed over. Returns the highest number seen.

        Durable when it returns. A record that cannot be entered is put among the refused, with the reason.
        """
        if not 0 < len(source) <= SOURCE_MAX:
            raise Invalid(f"source cannot be {source!r}", field="source", hint=f"1 to {SOURCE_MAX} characters")
        if not records:
            return 0
        try:
            return self._enter(source, records)
        except _REFUSALS as error:
            if len(records) == 1:
                why = getattr(error, "orig", None) or error
                log.error("a usage record of %s is put aside: %s", source, why)
                return self._enter(source, records, f"the database refuses it: {why}")
        return max([self.enter(source, [record]) for record in records])  # so that one does not hold up the others

    def _enter(self, source: str, records: Sequence[Any], refuse: str = "") -> int:
        with self._turn, self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), source)
            begun = connection.execute(_SOURCE, {"named": source}).first()
            entered = begun.entered if begun else 0
            entries, refused = read_records(source, records, entered, refuse)
            fresh = _unknown(connection, source, entries, entered)
            refused += self._settle(book, fresh)
            self._write(connection, book.at, fresh, refused)
            highest = max([*(e.seq for e in entries), *(r.seq for r in refused)], default=0)
            self._advance(book, source, begun, max(highest, entered))
            book.flush()
        USAGE_REFUSED.inc(len(refused))
        return highest

    def _settle(self, book: Book, entries: Sequence[Entry]) -> list[Refused]:
        """Charge the slices that new records used; each slice once, with the sum. Unknown slices are reported."""
        sums: dict[int, int] = {}
        for entry in entries:
            for number, amount in entry.slices.items():
                sums[number] = sums.get(number, 0) + amount
        if not sums:
            return []
        note = f"records {entries[0].seq} to {entries[-1].seq}"
        known = {each.id: each for each in book.find_slices(leased.c.id.in_(list(sums)))}
        for number, amount in sums.items():
            if number in known and amount:
                book.settle(known[number], amount, note)
        return [
            refusal(
                book.actor, entry.seq, entry.row["slices"], f"entered, but slice {number} is not known: not charged"
            )
            for entry in entries
            for number in entry.slices
            if number not in known
        ]

    def _write(self, connection: Connection, at: float, entries: Sequence[Entry], refused: Sequence[Refused]) -> None:
        dialect = sqlite if self._database.is_sqlite else postgresql
        if entries:
            connection.execute(insert(usage), [entry.row for entry in entries])
            uses: dict[str, float] = {}
            for entry in entries:
                key_id = entry.row["key_id"]
                uses[key_id] = max(uses.get(key_id, 0.0), entry.row["at"])
            use = dialect.insert(key_uses)
            use = use.on_conflict_do_update(
                index_elements=["key_id"], set_={"at": use.excluded.at}, where=key_uses.c.at < use.excluded.at
            )
            connection.execute(use, [{"key_id": key_id, "at": last} for key_id, last in uses.items()])
        if refused:
            keep = dialect.insert(refused_usage).on_conflict_do_nothing(index_elements=["source", "digest"])
            connection.execute(keep, [each.row(at) for each in refused])

    def _advance(self, book: Book, source: str, begun: Any, entered: int) -> None:
        """Note how far the journal is entered; slices of processes that ended are closed when all of theirs is."""
        if begun is None:
            values = {"source": source, "incarnation": "", "begins_after": 0, "is_settled": True}
            book.connection.execute(insert(sources), values | {"entered": entered, "seen_at": book.at})
            return
        if entered != begun.entered:
            book.connection.execute(_ENTERED, {"named": source, "up_to": entered, "now": book.at})
        if not begun.is_settled and begun.begins_after <= entered:
            slices.close_others(book, source, begun.incarnation)

    # leases

    def lease(self, lease: Lease) -> list[Grant]:
        """Answer a gateway's asks, see governance.slices. Durable when something may have been granted."""
        wants = any(ask.want for ask in lease.asks)
        with self._turn, self._database.writing(durable=wants) as connection:
            book = Book.locked(connection, self._clock.now(), lease.source)
            granted = slices.answer(book, lease)
            book.flush()
        return granted

    def tend(self, budget: str) -> None:
        """Bring a budget's accounts to its present spec and period; slices of periods that are over are closed."""
        with self._turn, self._database.writing() as connection:
            book = Book.locked(connection, self._clock.now(), "centre")
            limits = slices.read_limits(book, {budget}, book.at)
            slices.expire(book, budget, {limit.place.unit: limit.place for limit in limits.values()})
            book.flush()

    def close_vanished(self) -> None:
        """Close the slices of budgets that are gone; records they still bring are charged to the old accounts."""
        living = select(resources.c.uid).where(resources.c.kind == "Budget")
        with self._turn, self._database.writing() as connection:
            book = Book.locked(connection, self._clock.now(), "centre")
            for each in book.find_slices(leased.c.is_open.is_(True), leased.c.budget.not_in(living)):
                book.close(each)
            book.flush()

    def forget(self, source: str, actor: str = "") -> int:
        """Give up a gateway that will not come back; what it held is available again. Returns how many slices."""
        with self._turn, self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), actor)
            closed = slices.forget(book, source)
            book.flush()
        return closed

    def balances(self, budget: str, period: str) -> list[Balance]:
        """What a budget has, holds and spent in a period, by unit."""
        with self._database.reading() as connection:
            return balances_of(connection, budget, period)

    def check(self) -> list[str]:
        """What is wrong with the book, in words; nothing, unless someone else wrote in it."""
        with self._database.reading() as connection:
            return check(connection)

    def gateways(self) -> list[Gateway]:
        """Every journal heard of, by name, with how many slices are open."""
        held = (
            select(leased.c.source, func.count().label("open"))
            .where(leased.c.is_open.is_(True))
            .group_by(leased.c.source)
            .subquery()
        )
        query = select(sources, func.coalesce(held.c.open, 0).label("open"))
        query = query.outerjoin(held, held.c.source == sources.c.source).order_by(sources.c.source)
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return [Gateway(row.source, row.entered, row.seen_at, row.open) for row in found]

    # what was entered

    def statement(
        self, project: str, *, since: float = 0.0, until: float = float("inf"), by: Sequence[str] = ("key", "model")
    ) -> list[Line]:
        """Sums per group in [since, until) Unix time; a group not in `by` is summed over. `day` is of UTC."""
        valid = [*_GROUPS, "day"]
        for name in by:
            if name not in valid:
                raise Invalid(f"cannot group usage by {name!r}", field="by", hint=f"valid: {', '.join(valid)}")
        groups = [self._day() if name == "day" else _GROUPS[name] for name in by]
        sums = [func.sum(usage.c[name]) for name in (*_TOKENS, "cost_micros")]
        where = [usage.c.project == project, usage.c.at >= since]
        if until != float("inf"):
            where.append(usage.c.at < until)
        query = select(*groups, usage.c.currency, func.count(), *sums, func.sum(usage.c.duration_s)).where(and_(*where))
        query = query.group_by(*groups, usage.c.currency).order_by(*groups, usage.c.currency)
        with self._database.reading() as connection:
            return [_line(by, tuple(row)) for row in connection.execute(query)]

    def _day(self) -> ColumnElement[Any]:
        """Days since 1970; SQLite's cast cuts where PostgreSQL's rounds."""
        days = usage.c.at / DAY_S
        return cast(days, Integer) if self._database.is_sqlite else func.floor(days)

    def requests(self, project: str, request_id: str, limit: int = 20) -> list[dict[str, Any]]:
        """What was recorded of a request, newest first; a client may have used the same id more than once."""
        query = select(usage).where(usage.c.request_id == request_id, usage.c.project == project)
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(usage.c.at.desc()).limit(limit))
            return [dict(row._mapping) for row in found]

    def last_used(self, key_ids: Iterable[str]) -> dict[str, float]:
        """Unix time of each key's last recorded request; keys never used are left out."""
        query = select(key_uses).where(key_uses.c.key_id.in_(list(key_ids)))
        with self._database.reading() as connection:
            return {row.key_id: row.at for row in connection.execute(query)}

    def refused(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest refused records with their reasons."""
        query = select(refused_usage).order_by(refused_usage.c.at.desc()).limit(limit)
        with self._database.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def count_refused(self) -> int:
        """How many records were ever refused."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(refused_usage)).scalar_one())


_REFUSALS = (StatementError, OverflowError, UnicodeError)
"""What a database raises about values; one that does not answer is Unavailable by then."""

_SOURCE = select(sources).where(sources.c.source == bindparam("named"))
_ENTERED = (
    update(sources)
    .where(sources.c.source == bindparam("named"))
    .values(entered=bindparam("up_to"), seen_at=bindparam("now"))
)
_KNOWN = select(usage.c.seq).where(
    usage.c.source == bindparam("named"), usage.c.seq >= bindparam("first"), usage.c.seq <= bindparam("last")
)


def _unknown(connection: Connection, source: str, entries: Sequence[Entry], entered: int) -> list[Entry]:
    """Those of `entries` that are not in the ledger; under its lock, so this stays true."""
    repeated = [entry.seq for entry in entries if entry.seq <= entered]
    known: set[int] = set()
    if repeated:
        span: Mapping[str, Any] = {"named": source, "first": min(repeated), "last": max(repeated)}
        known = set(connection.execute(_KNOWN, span).scalars())
    return [entry for entry in entries if entry.seq not in known]


def _line(by: Sequence[str], row: tuple[Any, ...]) -> Line:
    groups = dict(zip(by, row, strict=False))
    currency, requests, prompt, completion, cached, micros, duration_s = row[len(by) :]
    return Line(
        groups.get("key", ""),
        groups.get("model", ""),
        currency,
        int(requests),
        int(prompt or 0),
        int(completion or 0),
        int(cached or 0),
        int(micros or 0),
        _date(groups["day"]) if "day" in groups else "",
        groups.get("user", ""),
        groups.get("deployment", ""),
        round((duration_s or 0.0) * 1000),
    )


def _date(day: int) -> str:
    return datetime.fromtimestamp(int(day) * DAY_S, UTC).strftime("%Y-%m-%d")
