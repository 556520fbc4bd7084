"""A centre with the routes and controllers of datasets, asked by the SDK and the commands as two tenants."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from atoll.cli import data_versions
from atoll.cli.session import Session
from atoll.core.errors import Conflict
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.settings import load
from atoll.core.store import Create, SetStatus
from atoll.data.engine.versions.erase import erase
from atoll.data.versions import make_version
from atoll.sdk import Client, resolve_credentials
from atoll.server.app import make_app
from atoll.server.centre import Centre
from running import until
from small_datasets import dataset

ADDRESS = "http://door"


class Through(httpx.BaseTransport):
    """The SDK's requests, answered by the application itself."""

    def __init__(self, web: TestClient) -> None:
        self._web = web

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = [(k, v) for k, v in request.headers.items() if k not in ("host", "content-length", "connection")]
        answer = self._web.request(request.method, str(request.url), headers=dict(headers), content=request.read())
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)


class Library:
    """A running application with the projects `default` and `other`."""

    def __init__(self, home: Path) -> None:
        self.centre = Centre(load({"home": home}, {}))
        self.web = TestClient(make_app(self.centre), ADDRESS, client=("127.0.0.1", 40_000))
        self.admin = resolve_credentials(home=home, environment={}).key
        self.scope = self.centre.store.everything("test")
        self.folder = home

    def client(self, project: str = "default", key: str = "") -> Client:
        """The SDK as a holder of `key` (the administrator's by default) in `project`."""
        return Client(ADDRESS, key or self.admin, project, transport=Through(self.web))

    def key(self, project: str, role: str = "member") -> str:
        with self.client(project) as client:
            return client.create_key(role=role).key

    def command(self, *words: str, project: str = "default", code: int = 0) -> str:
        """What an `atoll data` command prints."""
        app = typer.Typer()
        data_versions.add_to(app)
        session = Session(_client=self.client(project))
        done = CliRunner().invoke(app, list(words), obj=session, env={"COLUMNS": "200"})
        assert (done.exit_code == 0) == (code == 0), (done.output, done.exception)
        return done.output if code == 0 else f"{done.output}{done.exception}"

    def add(self, name: str, splits: dict[str, Any], project: str = "default", **options: Any) -> Resource:
        """A ready version of dataset `name`."""
        facts = options.pop("facts", {})
        manifest = dataset(self.centre.blobs, self.folder, splits, **facts)
        made = make_version(self.scope, project, name, manifest, **options)
        self.scope.write(made.writes)
        return self.ready(made.version, project)

    def ready(self, version: str, project: str = "default") -> Resource:
        """The version, once it is ready and its dataset lists it."""

        def is_listed() -> bool:
            found = self.scope.find("DatasetVersion", version, project)
            of = self.scope.find("Dataset", found.spec["dataset"], project) if found else None
            return of is not None and version in of.status.get("versions", [])

        until(is_listed, f"{version} to be ready")
        return self.scope.get("DatasetVersion", version, project)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    home = tmp_path_factory.mktemp("library")
    made = Library(home)
    project = {"parent": "", "limits": None, "weight": 1.0}
    made.scope.write([Create("Project", SYSTEM_PROJECT, "other", project, {"phase": "ready"})])
    with made.web:
        yield made
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def clerk(library: Library, tmp_path: Path) -> Iterator[None]:
    """Does what erasures' tasks are asked, in this process."""
    done = threading.Event()

    def end(workload: Resource, result: dict[str, Any]) -> None:
        while True:
            found = library.scope.get("Workload", workload.name, workload.project)
            with contextlib.suppress(Conflict):  # its controller came between
                library.scope.write([SetStatus(found, found.status | {"phase": "succeeded", "result": result})])
                return

    def work() -> None:
        while not done.wait(0.05):
            for workload in library.scope.find_all("Workload"):
                if workload.phase == "pending" and "erase" in workload.spec["roles"][0]["command"][-1]:
                    wanted = workload.spec["roles"][0]["input"]
                    keys = library.centre.secrets.data_keys(library.scope, workload.project)
                    result = erase(wanted, library.centre.blobs, tmp_path / f"work-{workload.uid}", keys=keys)
                    end(workload, json.loads(json.dumps(result)))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    done.set()
    thread.join()
