"""A database in memory with the whole schema, made in milliseconds: for tests that need hundreds."""

from __future__ import annotations

from sqlalchemy import insert

from atoll.core.database import Database
from atoll.core.tables import counters, metadata
from atoll.governance import ledger

assert ledger.usage.metadata is metadata, "the ledger's table is part of the schema"


def memory_database() -> Database:
    """A new one; that migrations make the same schema is tested elsewhere."""
    database = Database("sqlite://")
    with database.writing() as connection:
        metadata.create_all(connection)
        connection.execute(insert(counters).values(name="changes", value=0))
    return database
