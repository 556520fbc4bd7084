"""A centre of our own, asked through its real application; only the processes around it are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from atoll.core.settings import load
from atoll.sdk import resolve_credentials
from atoll.server.app import make_app
from atoll.server.centre import Centre

HERE = "127.0.0.1"
BASE = "http://door/api/v1"


class House:
    """A running application with the projects `red` and `blue`, and a way to ask it with any key from anywhere."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.centre = Centre(load({"home": home}, {}))
        self.app = make_app(self.centre)
        self.client = TestClient(self.app, BASE, raise_server_exceptions=False, client=(HERE, 40_000))
        self.admin = resolve_credentials(home=home, environment={}).key
        self.system = (home / "run" / "system.key").read_text()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        code: int = 200,
        peer: str = HERE,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The JSON answer to one request; fails unless its status is `code`."""
        client = self.client if peer == HERE else TestClient(self.app, BASE, client=(peer, 40_000))
        sent = {"Authorization": f"Bearer {key or self.admin}", **(headers or {})}
        answer = client.request(method, path, json=body, headers=sent)
        assert answer.status_code == code, (method, path, answer.status_code, answer.text)
        return answer.json()

    def make_key(self, project: str, *, by: str = "", code: int = 200, **fields: Any) -> Any:
        return self.ask("POST", f"/projects/{project}/keys", fields, key=by, code=code)

    def key(self, project: str, **fields: Any) -> str:
        """A key's secret."""
        return str(self.make_key(project, **fields)["key"])

    def put(self, project: str, plural: str, name: str, spec: dict[str, Any], **options: Any) -> Any:
        return self.ask("PUT", f"/projects/{project}/{plural}/{name}", {"spec": spec}, **options)


@contextmanager
def opened(home: Path) -> Iterator[House]:
    """A house that runs."""
    house = House(home)
    with house.client:
        for project in ("red", "blue"):
            house.put("system", "projects", project, {})
        yield house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house
