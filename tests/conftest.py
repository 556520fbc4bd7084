"""What many tests share: a clock that is told, and stores on both databases."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.store import Store

if TYPE_CHECKING:
    import postgres


settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("seeking", settings.get_profile("patient"), derandomize=False)
settings.load_profile("seeking" if os.environ.get("ATOLL_TEST_SEEK") else "patient")
"""Patient, else an example fails when the machine stalls for a fifth of a second, which says nothing about the product;
and the same examples every time, so that a change is judged by itself: new ones are sought by `make soak`."""

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell that starts us in the background has it ignored; children would inherit that, and never see Ctrl-C."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test of a whole platform says how that stood."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        told = [value.account() for value in item.funcargs.values() if hasattr(value, "account")]
        report.sections += [("platform", text) for text in told]
    return report


@pytest.fixture
def clock() -> VirtualClock:
    """Time that moves when a test says so."""
    return VirtualClock()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server of our own; a skip that says why where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install atoll[postgres])")
    import postgres

    folder = postgres.binaries()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql): its tests are left out")
    cluster = postgres.Cluster(folder)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "atoll.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def sqlite_url(_migrated: Path, tmp_path: Path) -> str:
    """An empty, migrated SQLite file."""
    path = tmp_path / "atoll.db"
    shutil.copy(_migrated, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty, migrated database: the same test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    cluster: postgres.Cluster = request.getfixturevalue("postgres_cluster")
    url = cluster.make()
    yield url
    cluster.drop(url)


@pytest.fixture
def opened() -> Iterator[Callable[[str], Database]]:
    """Opens databases (as another process would) and closes them after the test."""
    databases: list[Database] = []

    def open_one(url: str) -> Database:
        databases.append(Database(url))
        return databases[-1]

    yield open_one
    for database in databases:
        database.close()


@pytest.fixture
def database(url: str, opened: Callable[[str], Database]) -> Database:
    return opened(url)


@pytest.fixture
def store(database: Database, clock: VirtualClock) -> Store:
    """A store on each database in turn."""
    return Store(database, clock)


@pytest.fixture
def sqlite_store(sqlite_url: str, opened: Callable[[str], Database], clock: VirtualClock) -> Store:
    """A store on SQLite alone, for tests of things above it."""
    return Store(opened(sqlite_url), clock)
