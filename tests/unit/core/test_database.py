"""Schema and migrations agree, on both databases; a broken-off migration leaves nothing behind."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

import atoll.core
import atoll.governance.ledger
import atoll.server.app
import postgres
from atoll.core.database import HEAD, Database
from atoll.core.errors import Conflict, ResourceExhausted, Unavailable
from atoll.core.tables import metadata

assert atoll.governance.ledger.usage.metadata is metadata
assert atoll.server.app, "every table of the product is declared in what it imports"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    cluster: postgres.Cluster = request.getfixturevalue("postgres_cluster")
    return cluster.make_empty()


def test_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(atoll.core.__path__[0]) / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrated_schema_is_the_one_the_code_speaks_of(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for table in metadata.tables.values():
            primary = [c["name"] for c in found.get_columns(table.name) if not c["nullable"]]
            assert primary == [c.name for c in table.columns if not c.nullable]
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]


def test_migrating_twice_does_nothing(database: Database) -> None:
    database.migrate()


def test_migrations_can_be_undone(empty_url: str, opened: Callable[[str], Database]) -> None:
    from alembic import command

    database = opened(empty_url)
    database.migrate()
    config = Config()
    config.set_main_option("script_location", str(Path(atoll.core.__path__[0]) / "migrations"))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with database.reading() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    database.migrate()


def test_servers_that_migrate_at_once_do_not_disturb_each_other(
    empty_url: str, opened: Callable[[str], Database]
) -> None:
    errors: list[BaseException] = []

    def migrate(database: Database) -> None:
        try:
            database.migrate()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate, args=(opened(empty_url),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_a_migration_that_breaks_off_leaves_the_schema_as_it_was(
    empty_url: str, opened: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server killed in its first second could never start again."""
    from sqlalchemy import event

    database = opened(empty_url)

    def break_off(_: object, __: object, statement: str, *___: object) -> None:
        if "CREATE TABLE leases" in statement:
            raise KeyboardInterrupt

    event.listen(database._fast, "before_cursor_execute", break_off)
    with pytest.raises(KeyboardInterrupt):
        database.migrate()
    event.remove(database._fast, "before_cursor_execute", break_off)
    with database.reading() as connection:
        assert inspect(connection).get_table_names() == []
    database.migrate()


def test_a_database_of_a_newer_version_is_refused_in_words(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="newer version of Atoll"):
        database.migrate()


def test_ledger_writes_are_durable_and_others_quick(sqlite_url: str, opened: Callable[[str], Database]) -> None:
    database = opened(sqlite_url)
    for is_durable, synchronous in ((False, 1), (True, 2)):
        with database.writing(durable=is_durable) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_block_that_raises_writes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute(text("UPDATE counters SET value = 7"))
        1 / 0  # noqa: B018
    with database.reading() as connection:
        assert connection.execute(text("SELECT value FROM counters")).scalar() == 0


def test_a_full_disk_is_named_and_the_data_stays(sqlite_url: str, opened: Callable[[str], Database]) -> None:
    database = opened(sqlite_url)
    with database.reading() as connection:
        pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)
    with pytest.raises(ResourceExhausted, match="cannot grow"), database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.execute(text("INSERT INTO leases VALUES (:n, 'h', 1, 1)"), {"n": "x" * 1_000_000})
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar() == 0


def test_a_database_that_does_not_answer_is_unavailable(
    postgres_cluster: postgres.Cluster, opened: Callable[[str], Database]
) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        opened("postgresql+psycopg://secret:word@127.0.0.1:1/none").migrate()
    url = postgres_cluster.make()
    database = opened(url)
    with pytest.raises(Unavailable), database.writing() as connection:
        postgres_cluster.hang_up(url)
        connection.execute(text("UPDATE counters SET value = 7"))
    with database.reading() as connection:
        assert connection.execute(text("SELECT value FROM counters")).scalar() == 0


def test_the_password_of_a_database_is_in_no_error(opened: Callable[[str], Database]) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(Unavailable) as raised:
        opened("postgresql+psycopg://user:hunter2@127.0.0.1:1/none").migrate()
    assert "hunter2" not in str(raised.value)


def test_a_memory_database_is_one_for_all_its_connections(opened: Callable[[str], Database]) -> None:
    database = opened("sqlite://")
    database.migrate()
    with database.writing() as connection:
        connection.execute(text("UPDATE counters SET value = 3"))
    poll = database.data_version_poll()
    assert poll.changed()
    assert not poll.changed()
    with database.writing(durable=True) as connection:
        connection.execute(text("UPDATE counters SET value = 4"))
    assert poll.changed()
    poll.close()


def test_a_writer_waits_for_another_process(sqlite_url: str, opened: Callable[[str], Database]) -> None:
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE counters SET value = 1")
    timer = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    timer.start()
    with opened(sqlite_url).writing() as connection:
        connection.execute(text("UPDATE counters SET value = value + 1"))
    timer.join()
    assert other.execute("SELECT value FROM counters").fetchone() == (2,)
    other.close()
