"""A centre of our own, asked through its real application, with a project that has a budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from atoll.core.settings import load
from atoll.sdk import resolve_credentials
from atoll.server.app import make_app
from atoll.server.centre import Centre

BASE = "http://door/api/v1"


class Bank:
    """A running application, and a way to ask it with any key."""

    def __init__(self, home: Path) -> None:
        self.centre = Centre(load({"home": home}, {}))
        app = make_app(self.centre)
        self.client = TestClient(app, BASE, raise_server_exceptions=False, client=("127.0.0.1", 40_000))
        self.admin = resolve_credentials(home=home, environment={}).key
        self.system = (home / "run" / "system.key").read_text()

    def send(self, method: str, path: str, body: Any = None, *, key: str = "", code: int = 200) -> Response:
        """One request; fails unless its status is `code`."""
        sent = {"Authorization": f"Bearer {key or self.admin}"}
        answer = self.client.request(method, path, json=body, headers=sent)
        assert answer.status_code == code, (method, path, answer.status_code, answer.text)
        return answer

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        return self.send(method, path, body, **options).json()

    def key(self, project: str, role: str = "member") -> str:
        return str(self.ask("POST", f"/projects/{project}/keys", {"role": role})["key"])

    def budget(self, project: str, name: str, **spec: Any) -> str:
        """The uid of a new budget."""
        return str(self.ask("PUT", f"/projects/{project}/budgets/{name}", {"spec": spec})["uid"])

    def lease(self, source: str, *asks: dict[str, Any], code: int = 200, **fields: Any) -> Any:
        body = {"source": source, "incarnation": "i1", "begins_after": 0, "slices": list(asks), **fields}
        return self.ask("POST", "/gateway/slices", body, key=self.system, code=code)

    def enter(self, source: str, *records: Any, code: int = 200) -> Any:
        body = {"source": source, "records": list(records)}
        return self.ask("POST", "/gateway/usage", body, key=self.system, code=code)


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank"))
    with bank.client:
        for project in ("red", "blue"):
            bank.ask("PUT", f"/projects/system/projects/{project}", {"spec": {}})
        yield bank
