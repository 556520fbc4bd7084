"""Leases with fencing epochs, judged without trusting any wall clock.

A holder renews by counting `renewals` up. An observer that sees the count stand still for the lease's
time to live *on its own monotonic clock* may take over, which raises the epoch; writes fenced with an older
epoch are refused by the store in the same transaction. A clock that jumps changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateError

from atoll.core.clock import Clock
from atoll.core.database import Database
from atoll.core.errors import Fenced
from atoll.core.store import Fence
from atoll.core.tables import leases

_READ = select(leases).where(leases.c.name == bindparam("name"))
_READ_LOCKED = _READ.with_for_update()
_HELD = and_(leases.c.name == bindparam("lease_name"), leases.c.epoch == bindparam("lease_epoch"))
_RENEW = update(leases).where(_HELD).values(renewals=leases.c.renewals + 1).returning(leases.c.renewals)


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

    def stale_s(self, name: str) -> float | None:
        """Seconds this observer has watched the lease stand still; None at its first look, which tells nothing.

        A lease nobody ever took stands still too.
        """
        lease = self.read(name) or Lease(name, "", 0, 0)
        is_first_look = name not in self._seen
        stale_s = self._stale_s(lease)
        return None if is_first_look else stale_s

    def take(self, name: str, holder: str) -> Lease:
        """Become the holder now, whoever held it; raises the epoch. The former holder is fenced."""
        while (taken := self._first(name, holder)) is None:
            with self._database.writing() as connection:
                if (lease := _read(connection, name, lock=True)) is not None:
                    return _move(connection, lease, holder)
        return taken

    def drop(self, name: str) -> None:
        """Forget the lease, whoever holds it: what it was about is gone."""
        if self.read(name) is not None:
            with self._database.writing() as connection:
                connection.execute(delete(leases).where(leases.c.name == name))
        self._seen.pop(name, None)

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
            current = _read(connection, name, lock=True)
            return _move(connection, current, holder) if current == lease else None

    def renew(self, lease: Lease) -> Lease:
        """Show life; Fenced when a newer holder took over."""
        with self._database.writing() as connection:
            renewals = connection.execute(_RENEW, {"lease_name": lease.name, "lease_epoch": lease.epoch}).scalar()
        if renewals is None:
            raise Fenced(
                f"lease {lease.name!r} is no longer held by {lease.holder!r}", hint="a newer holder works; stop"
            )
        return Lease(lease.name, lease.holder, lease.epoch, renewals)

    def _first(self, name: str, holder: str) -> Lease | None:
        """The lease if nobody ever held it, else None."""
        if self.read(name) is not None:
            return None
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


def _read(connection: Connection, name: str, *, lock: bool = False) -> Lease | None:
    row = connection.execute(_READ_LOCKED if lock else _READ, {"name": name}).first()
    return Lease(*row) if row else None


def _insert(connection: Connection, name: str, holder: str) -> Lease:
    connection.execute(insert(leases).values(name=name, holder=holder, epoch=1, renewals=0))
    return Lease(name, holder, 1, 0)


def _move(connection: Connection, lease: Lease, holder: str) -> Lease:
    moved = Lease(lease.name, holder, lease.epoch + 1, 0)
    where = and_(leases.c.name == lease.name, leases.c.epoch == lease.epoch)
    connection.execute(update(leases).where(where).values(holder=holder, epoch=moved.epoch, renewals=0))
    return moved
