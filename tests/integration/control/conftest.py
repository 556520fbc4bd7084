"""A centre of our own, asked through its real application, without the processes around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.settings import load
from atoll.core.store import Create
from atoll.models.resources import MODEL, MODEL_VERSION
from atoll.sdk import resolve_credentials
from atoll.server.app import make_app
from atoll.server.centre import Centre
from running import until
from serving_centre import GIB, SHAPE, digest


class Office:
    """A running application, and ways to ask it as an administrator or as a gateway."""

    def __init__(self, home: Path) -> None:
        told = {"home": home, "lease_ttl_s": 3600.0}  # no agent renews the node's
        self.centre = Centre(load(told, {}))
        self.client = TestClient(make_app(self.centre), "http://door/api/v1", client=("127.0.0.1", 40_000))
        self.admin = resolve_credentials(home=home, environment={}).key
        self.system = (home / "run" / "system.key").read_text().strip()
        self.scope = self.centre.store.everything("test")

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "", code: int = 200) -> Any:
        """The JSON answer; fails unless its status is `code`."""
        headers = {"Authorization": f"Bearer {key or self.admin}"}
        answer = self.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == code, (method, path, answer.status_code, answer.text)
        return answer.json()

    def deploy(self, name: str, **spec: Any) -> Resource:
        self.ask("PUT", f"/projects/default/deployments/{name}", {"spec": {"model": "m.v1", **spec}})
        return self.deployment(name)

    def deployment(self, name: str) -> Resource:
        return self.scope.get("Deployment", name, "default")

    def reaches(self, name: str, *phases: str) -> Resource:
        until(lambda: self.deployment(name).phase in phases, f"{name} to be {phases}")
        return self.deployment(name)

    def report(self, code: int = 200, **report: Any) -> Any:
        told = {"source": "gw-1", "host": "h", "at": 1.0, "targets": {}, **report}
        return self.ask("POST", "/gateway/load", told, key=self.system, code=code)


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    made = Office(tmp_path_factory.mktemp("office"))
    files = [{"name": "m.gguf", "digest": digest("m.v1"), "size_bytes": 96 << 20}]
    status = {
        "phase": "ready",
        "observed_generation": 1,
        "files": files,
        "format": "gguf",
        "metadata": {"shape": SHAPE},
    }
    spec = MODEL_VERSION.parse_spec({"model": "m", "source": "file:/x"})
    slow = {"phase": "running", "observed_generation": 1}
    made.scope.write(
        [
            Create("Model", "default", "m", MODEL.parse_spec({}), {"latest": "m.v1"}),
            Create("ModelVersion", "default", "m.v1", spec, status),
            Create("ModelVersion", "default", "slow.v1", spec | {"model": "slow"}, slow),
            Create("Project", SYSTEM_PROJECT, "other", {"parent": "", "limits": None, "weight": 1.0}, {}),
        ]
    )
    with made.client:
        inventory = {"cpu": 8.0, "memory_bytes": 4 * GIB}
        asked = {"node": "n", "site": "centre", "boot_id": "b", "inventory": inventory, "agent_id": "a"}
        made.ask("POST", "/agent/register", asked, key=made.system)
        until(lambda: made.scope.get("Node", "n", SYSTEM_PROJECT).phase == "schedulable", "the node")
        yield made
