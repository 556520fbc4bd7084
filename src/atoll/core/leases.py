"""Leases with fencing epochs, judged without trusting any wall clock.

A holder renews by counting `renewals` up. An observer that sees the count stand still for the lease's
time to live *on its own monotonic clock* may take over, which raises the epoch; writes fenced with an older
epoch are refused by the store in the same transaction. A clock that jumps changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateError

from atoll.core.clock import Clock
from atoll.core.database import Database
from atoll.core.errors import Fenced
from atoll.core.store import Fence
from atoll.core.tables import leases


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as last read."""

    name: str
    holder: str
    epoch: int
    renewals: int

    @property
    def fence(self) -> Fence:
        return Fence(self.name, self.epoch)


class Leases:
    """The leases of one database, seen by one observer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: dict[str, tuple[int, int, float]] = {}

    def read(self, name: str) -> Lease | None:
        """The lease, or None when nobody ever held it."""
        with self._database.reading() as connection:
            return _read(connection, name)

    def stale_s(self, name: str) -> float:
        """Seconds this observer has watched the lease stand still; 0 at the first look."""
        lease = self.read(name)
        return 0.0 if lease is None else self._stale_s(lease)

    def take(self, name: str, holder: str) -> Lease:
        """Become the holder now, whoever held it; raises the epoch. The former holder is fenced."""
        with self._database.writing() as connection:
            lease = _read(connection, name)
            return _insert(connection, name, holder) if lease is None else _move(connection, lease, holder)

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Become the holder if the lease is free, mine, or stood still for `ttl_s`; else None."""
        lease = self.read(name)
        if lease is None:
            return self._first(name, holder)
        if lease.holder == holder:
            return self.renew(lease)
        if self._stale_s(lease) < ttl_s:
            return None
        with self._database.writing() as connection:
            current = _read(connection, name)
            return _move(connection, current, holder) if current == lease else None

    def renew(self, lease: Lease) -> Lease:
        """Show life; Fenced when a newer holder took over."""
        held = and_(leases.c.name == lease.name, leases.c.epoch == lease.epoch)
        with self._database.writing() as connection:
            values = update(leases).where(held).values(renewals=leases.c.renewals + 1).returning(leases.c.renewals)
            renewals = connection.execute(values).scalar()
        if renewals is None:
            raise Fenced(
                f"lease {lease.name!r} is no longer held by {lease.holder!r}", hint="a newer holder works; stop"
            )
        return Lease(lease.name, lease.holder, lease.epoch, renewals)

    def _first(self, name: str, holder: str) -> Lease | None:
        try:
            with self._database.writing() as connection:
                return _insert(connection, name, holder)
        except DuplicateError:
            return None

    def _stale_s(self, lease: Lease) -> float:
        now = self._clock.monotonic()
        epoch, renewals, since = self._seen.get(lease.name, (0, -1, now))
        if (epoch, renewals) != (lease.epoch, lease.renewals):
            self._seen[lease.name] = (lease.epoch, lease.renewals, now)
            return 0.0
        return now - since


def _read(connection: Connection, name: str) -> Lease | None:
    row = connection.execute(select(leases).where(leases.c.name == name)).first()
    return Lease(*row) if row else None


def _insert(connection: Connection, name: str, holder: str) -> Lease:
    connection.execute(insert(leases).values(name=name, holder=holder, epoch=1, renewals=0))
    return Lease(name, holder, 1, 0)


def _move(connection: Connection, lease: Lease, holder: str) -> Lease:
    moved = Lease(lease.name, holder, lease.epoch + 1, 0)
    where = and_(leases.c.name == lease.name, leases.c.epoch == lease.epoch)
    connection.execute(update(leases).where(where).values(holder=holder, epoch=moved.epoch, renewals=0))
    return moved
