"""Deployments written before there was `task` are those of today after the migration, and can go back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.migrations.versions import __name__ as versions
from atoll.core.store import Create, Store
from atoll.serving.resources import DEPLOYMENT

PRICE = {"input_per_million": 1.0, "output_per_million": 2.0, "currency": "EUR"}
OLD: dict[str, Any] = {
    "model": "m",
    "replicas": 2,
    "engine": "auto",
    "context": 1024,
    "slots": 2,
    "cpu": 0.5,
    "threads": 0,
    "embedding": True,
    "price": PRICE,
}


def step(connection: Connection, direction: str) -> None:
    """Run one direction of migration 0005 on an open transaction."""
    from importlib import import_module

    with Operations.context(MigrationContext.configure(connection)):
        getattr(import_module(f"{versions}.0005_gateway_loads"), direction)()


def specs(database: Database) -> list[Any]:
    with database.reading() as connection:
        found = connection.execute(text("SELECT spec FROM resources WHERE kind = 'Deployment' ORDER BY name"))
        return [json.loads(spec) for spec in found.scalars()]


@pytest.mark.parametrize("price", [PRICE, None])
def test_a_deployment_of_before_gets_its_task_and_the_defaults_and_back(
    database: Database, clock: VirtualClock, price: dict[str, Any] | None
) -> None:
    old = OLD | {"price": price}
    with database.writing() as connection:
        step(connection, "downgrade")
    Store(database, clock).everything().write([Create("Deployment", "p", "d", old)])
    with database.writing() as connection:
        step(connection, "upgrade")
    now = {name: value for name, value in old.items() if name != "embedding"}
    assert specs(database) == [DEPLOYMENT.parse_spec(now | {"task": "embed"})]
    with database.writing() as connection:
        step(connection, "downgrade")
    assert specs(database) == [old]
