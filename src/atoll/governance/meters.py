"""Accelerator time of workloads: reserved ahead, charged as it passes, kept per workload and day.

A workload that runs is a source of slices like a gateway: each budget on its way up lends it the time to come. Its
time is charged from the last look to this one, by wall clock, so a look that comes late charges all of it. Knows
nothing of tasks: whoever calls says how many accelerators are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, String, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.core.clock import Clock, SystemClock
from atoll.core.database import Database
from atoll.core.tables import metadata
from atoll.governance import slices as leases
from atoll.governance.accounts import ACCELERATOR_MS, Book, Slice, slices
from atoll.governance.budgets import Limit

accelerator_usage = Table(
    "accelerator_usage",
    metadata,
    Column("workload", String(40), primary_key=True),
    Column("day", String(16), primary_key=True),
    Column("project", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("deployment", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("slots", BigInteger, nullable=False),
    Column("accelerator_ms", BigInteger, nullable=False),
    Column("wall_ms", BigInteger, nullable=False),
    Index("accelerator_usage_of", "project", "day"),
)

meters = Table(
    "meters",
    metadata,
    Column("workload", String(40), primary_key=True),
    Column("project", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("deployment", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("slots", BigInteger, nullable=False),
    Column("accelerators", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
)
"""Workloads whose time is being charged: how many accelerators they take, and up to when it was charged."""

INCARNATION = "1"
_FACTS = ("workload", "project", "name", "deployment", "model", "slots")


@dataclass(frozen=True, slots=True)
class Metered:
    """A workload as a meter sees it; `slots` is how many requests it serves at a time, 0 when it serves none."""

    uid: str
    project: str
    name: str
    deployment: str = ""
    model: str = ""
    slots: int = 0

    @property
    def source(self) -> str:
        return source_of(self.uid)


def source_of(uid: str) -> str:
    """The name under which a workload holds slices."""
    return f"workload/{uid}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How long the reserved time lasts at the present rate (None: no budget limits it), and which budget ends first."""

    covered_s: float | None
    budget: str = ""


class Meters:
    """The meters of one database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def read(self, workload: Metered, accelerators: int, budgets: Sequence[str], ahead_s: float) -> Reading:
        """Charge what passed since the last reading and reserve the next `ahead_s` seconds, as far as there are any.

        The first reading begins the meter; the time up to the next one counts with its `accelerators`. `budgets` are
        the uids on the way up.
        """
        with self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), workload.source)
            self._charge(book, workload.uid)
            reading = _reserve(book, workload, accelerators, budgets, ahead_s)
            self._keep(book, workload, accelerators)
            book.flush()
        return reading

    def end(self, uid: str) -> None:
        """Charge up to now and give back what is left; nothing when no meter of this workload runs."""
        if uid not in self.running():
            return
        with self._database.writing(durable=True) as connection:
            book = Book.locked(connection, self._clock.now(), source_of(uid))
            self._charge(book, uid)
            for leased in _open(book, uid):
                book.close(leased)
            connection.execute(delete(meters).where(meters.c.workload == uid))
            book.flush()

    def running(self) -> list[str]:
        """Uids of the workloads whose meters run."""
        with self._database.reading() as connection:
            return list(connection.execute(select(meters.c.workload).order_by(meters.c.workload)).scalars())

    def used(self, project: str, since: float, until: float) -> list[dict[str, Any]]:
        """Accelerator time by workload name, deployment and model of the days in [since, until)."""
        of = accelerator_usage.c
        names = (of.name, of.deployment, of.model)
        query = select(
            *names,
            func.sum(of.accelerator_ms).label("accelerator_ms"),
            func.sum(of.wall_ms * of.slots).label("slot_ms"),
        ).where(of.project == project, of.day >= _day(since), of.day < _day(until))
        with self._database.reading() as connection:
            rows = connection.execute(query.group_by(*names).order_by(*names)).all()
        return [
            {
                "workload": row.name,
                "deployment": row.deployment,
                "model": row.model,
                "accelerator_ms": int(row.accelerator_ms),
                "slot_ms": int(row.slot_ms),
            }
            for row in rows
        ]

    def _charge(self, book: Book, uid: str) -> None:
        row = book.connection.execute(select(meters).where(meters.c.workload == uid)).first()
        wall_ms = 0 if row is None else max(0, round((book.at - row.at) * 1000))
        if row is None or not wall_ms:
            return
        used_ms = wall_ms * int(row.accelerators)
        for leased in _open(book, uid) if used_ms else []:
            book.settle(leased, used_ms)
        facts = {name: getattr(row, name) for name in _FACTS}
        counted = {"day": _day(book.at), "accelerator_ms": used_ms, "wall_ms": wall_ms}
        add = self._dialect.insert(accelerator_usage)
        sums = {name: accelerator_usage.c[name] + add.excluded[name] for name in ("accelerator_ms", "wall_ms")}
        add = add.on_conflict_do_update(index_elements=["workload", "day"], set_=sums)
        book.connection.execute(add, [facts | counted])

    def _keep(self, book: Book, workload: Metered, accelerators: int) -> None:
        facts = {name: getattr(workload, name) for name in _FACTS if name != "workload"}
        row = {"workload": workload.uid, **facts, "accelerators": accelerators, "at": book.at}
        keep = self._dialect.insert(meters)
        keep = keep.on_conflict_do_update(
            index_elements=["workload"], set_={name: keep.excluded[name] for name in row if name != "workload"}
        )
        book.connection.execute(keep, [row])

    @property
    def _dialect(self) -> Any:
        return sqlite if self._database.is_sqlite else postgresql


def _reserve(book: Book, workload: Metered, accelerators: int, budgets: Sequence[str], ahead_s: float) -> Reading:
    """Fill the slice of each budget up to `ahead_s`; those of other periods are closed."""
    found = leases.read_limits(book, set(budgets), book.at)
    limits = [limit for (_, unit), limit in found.items() if unit == ACCELERATOR_MS]
    held = {leased.place: leased for leased in _open(book, workload.uid)}
    for place, leased in held.items():
        if all(limit.place != place for limit in limits):
            book.close(leased)
    if not limits or not accelerators:
        return Reading(None)
    wanted_ms = round(ahead_s * 1000) * accelerators
    free = [(_fill(book, workload, held.get(limit.place), limit, wanted_ms), limit.name) for limit in limits]
    least_ms, name = min(free)
    return Reading(least_ms / accelerators / 1000, name)


def _fill(book: Book, workload: Metered, leased: Slice | None, limit: Limit, wanted_ms: int) -> int:
    """What is free in the slice after filling it up to `wanted_ms`."""
    leased = leased or book.open_slice(workload.source, INCARNATION, limit.place, limit.expires_at)
    amount = min(wanted_ms - leased.free, book.account(limit.place).available)
    if amount > 0:
        book.grant(leased, amount)
    return leased.free


def _open(book: Book, uid: str) -> list[Slice]:
    opened = book.find_slices(slices.c.source == source_of(uid), slices.c.is_open.is_(True))
    return [leased for leased in opened if leased.is_open]


def _day(at: float) -> str:
    return datetime.fromtimestamp(min(at, 32_503_680_000.0), UTC).strftime("%Y-%m-%d")
