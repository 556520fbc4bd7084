"""One database, SQLite or PostgreSQL: engines, pragmas, transactions, migrations.

Writers are serialised: SQLite by BEGIN IMMEDIATE, PostgreSQL by the row of the change counter.
`durable=True` transactions survive a power cut (SQLite synchronous=FULL); the others survive any
death of the process and may lose the last moments before a power cut, never consistency.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from atoll.core.errors import Conflict, ResourceExhausted, Unavailable

LOCK_WAIT_S = 30.0
HEAD = "0006"
"""The newest migration; a test compares it with the scripts."""

MIGRATION_LOCK = 0x61746F6C6C
"""PostgreSQL's advisory lock that servers migrating the same database at once wait for."""


class Database:
    """`url` is `sqlite:///path`, `sqlite://` (memory, one process) or `postgresql+psycopg://…`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._is_memory = url in ("sqlite://", "sqlite:///:memory:")
        self._one_at_a_time = threading.Lock() if self._is_memory else nullcontext()
        self._fast = self._engine("NORMAL")
        self._durable = self._fast if self._is_memory or not self.is_sqlite else self._engine("FULL")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reads; each statement sees one moment. Never inside `writing`."""
        with _named_errors(self.url), self._one_at_a_time, self._fast.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement; commits when the block ends well."""
        engine = self._durable if durable else self._fast
        with _named_errors(self.url), self._one_at_a_time, engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def migrate(self) -> None:
        """Bring the schema to HEAD; does nothing (and imports nothing) when it is there already."""
        if self._version() == HEAD:
            return
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise Conflict(
                    f"the database {_where(self.url)} cannot be brought to schema {HEAD}: {error}",
                    hint="it was made by a newer version of Atoll: use that one",
                ) from error

    def scrub(self) -> bool:
        """Write what was deleted over where it lay, in the log too; False while a reader is in the way: ask again.

        Only SQLite's files are within reach.
        """
        if not self.is_sqlite or self._is_memory:
            return True
        with self.reading() as connection:
            row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").first()
        return row is not None and not row[0]

    def close(self) -> None:
        """Give all connections back."""
        self._fast.dispose()
        self._durable.dispose()

    def data_version_poll(self) -> _Poll:
        """A cheap test whether any connection wrote since the last poll."""
        return _Poll(self)

    def _version(self) -> str | None:
        with self.reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())

    def _engine(self, synchronous: str) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_size=8, max_overflow=8, pool_pre_ping=True)
        options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 30.0}}
        options["poolclass"] = StaticPool if self._is_memory else QueuePool
        if not self._is_memory:
            options |= {"pool_size": 8, "max_overflow": 24}
        engine = create_engine(self.url, **options)

        @event.listens_for(engine, "connect")
        def _prepare(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None
            _write_ahead(connection)
            for pragma in (
                f"synchronous={synchronous}",
                "busy_timeout=30000",
                "foreign_keys=ON",
                "secure_delete=ON",  # what an erasure removed does not stay in free pages
                "wal_autocheckpoint=4000",
            ):
                connection.execute(f"PRAGMA {pragma}").close()

        return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; two that switch at once get "locked" at once, whatever the busy timeout."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class _Poll:
    """`changed()` is true when something was committed since the last call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._raw: sqlite3.Connection | None = None
        self._last: int | None = None
        if database.is_sqlite and not database._is_memory:
            path = database.url.removeprefix("sqlite:///")
            self._raw = sqlite3.connect(path, check_same_thread=False, isolation_level=None)

    def changed(self) -> bool:
        value = self._read()
        changed, self._last = value != self._last, value
        return changed

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()

    def _read(self) -> int:
        if self._raw is not None:
            try:
                return int(self._raw.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as error:
                raise Unavailable(f"the database {self._database.url} did not answer: {error}") from error
        with self._database.reading() as connection:
            return int(connection.exec_driver_sql("SELECT value FROM counters WHERE name = 'changes'").scalar() or 0)


def _where(url: str) -> str:
    """The address without user and password."""
    return url.rsplit("@", 1)[-1]


@contextmanager
def _named_errors(url: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        words = str(error.orig).lower()
        where = _where(url)
        if "full" in words or "no space" in words:
            raise ResourceExhausted(
                f"the database {where} cannot grow: {error.orig}", hint="free space on its disk"
            ) from error
        if "readonly" in words or "syntax" in words or "no such" in words:
            raise
        raise Unavailable(f"the database {where} did not answer: {error.orig}", hint="try again") from error
