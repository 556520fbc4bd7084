"""Labelling on both databases, and a centre of our own asked through its real application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.settings import load
from atoll.data.labelling.assignment import Terms
from atoll.data.labelling.schema import AnyField, Item
from atoll.data.labelling.store import Labels
from atoll.sdk import resolve_credentials
from atoll.server.app import make_app
from atoll.server.centre import Centre

TONE = [{"name": "tone", "type": "class", "options": ["kind", "rude", "neither"]}]


def terms_for(fields: list[dict[str, Any]] = TONE, labels: int = 2, **terms: Any) -> Terms:
    found = TypeAdapter(list[AnyField]).validate_python(fields)
    return Terms(found, labels, terms.get("agreement_min", 0.3), terms.get("skips_max", 3))


def items(count: int, **fields: Any) -> list[Item]:
    return [Item(key=f"k{n:03d}", text=f"text {n}", **fields) for n in range(count)]


@pytest.fixture
def labels(database: Database, clock: VirtualClock) -> Labels:
    return Labels(database, clock, "default")


class Desk:
    """A running application with the projects `red` and `blue`, and a way to ask it with any key."""

    def __init__(self, home: Path) -> None:
        self.centre = Centre(load({"home": home}, {}))
        self.app = make_app(self.centre)
        self.client = TestClient(self.app, "http://door/api/v1", client=("127.0.0.1", 40_000))
        self.admin = resolve_credentials(home=home, environment={}).key

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "", code: int = 200) -> Any:
        """The JSON answer to one request; fails unless its status is `code`."""
        answer = self.client.request(method, path, json=body, headers={"Authorization": f"Bearer {key or self.admin}"})
        assert answer.status_code == code, (method, path, answer.status_code, answer.text)
        is_lines = answer.headers["content-type"].startswith("application/jsonl")
        return answer.text if is_lines else answer.json()

    def key(self, project: str = "red", **fields: Any) -> str:
        return str(self.ask("POST", f"/projects/{project}/keys", fields)["key"])

    def task(self, name: str, project: str = "red", code: int = 200, key: str = "", **spec: Any) -> Any:
        wanted = {"spec": {"fields": TONE, **spec}}
        return self.ask("PUT", f"/projects/{project}/labeltasks/{name}", wanted, code=code, key=key)

    def verb(self, method: str, task: str, verb: str, body: Any = None, **options: Any) -> Any:
        return self.ask(method, f"/projects/red/labels/{task}/{verb}", body, **options)

    def fill(self, task: str, count: int, **fields: Any) -> Any:
        wanted = [item.model_dump(exclude_defaults=True) for item in items(count, **fields)]
        return self.verb("POST", task, "items", {"items": wanted})


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    with desk.client:
        for project in ("red", "blue"):
            desk.ask("PUT", f"/projects/system/projects/{project}", {"spec": {}})
        for user, role in (("ada", "member"), ("bob", "member"), ("cy", "owner")):
            desk.ask("PUT", f"/projects/system/users/{user}", {"spec": {}})
            desk.ask("PUT", f"/projects/red/memberships/{user}", {"spec": {"role": role}})
        yield desk


@pytest.fixture(scope="session")
def people(desk: Desk) -> dict[str, str]:
    """Keys of two members and an owner."""
    return {name: desk.key(user=name, role="owner") for name in ("ada", "bob", "cy")}
