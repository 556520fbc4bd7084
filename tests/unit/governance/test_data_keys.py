"""Who is given the key of a project's uploads, and who is not."""

from __future__ import annotations

import os
from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import SYSTEM_PROJECT
from atoll.core.store import Create, Remove, Scope, Store
from atoll.data.imports import DATASET_IMPORT
from atoll.governance.data_keys import READERS, REFERENCE, VARIABLE, from_environment, from_text, to_text
from atoll.governance.resources import PROJECT
from atoll.governance.secrets import Secrets
from atoll.server import kinds

assert kinds.DOMAINS
ROLE = {"command": ["true"]}


@pytest.fixture
def scope(sqlite_store: Store) -> Scope:
    scope = sqlite_store.everything("test")
    for name in ("red", "blue"):
        add_project(scope, name)
    return scope


def add_project(scope: Scope, name: str) -> None:
    scope.write([Create("Project", SYSTEM_PROJECT, name, PROJECT.parse_spec({}), {"phase": "ready"})])


def owners(scope: Scope, project: str = "red") -> list[str]:
    """As the server finds them for a task of an import."""
    spec = DATASET_IMPORT.parse_spec({"dataset": "d", "uploads": ["file-1"]})
    scope.write([Create("DatasetImport", project, "take", spec, {"phase": "pending"})])
    owner = scope.get("DatasetImport", "take", project)
    workload = Create("Workload", project, "w", WORKLOAD.parse_spec({"roles": [ROLE]}), owner=owner.uid)
    scope.write([workload])
    return [scope.get("Workload", "w", project).uid, owner.uid]


def test_the_task_of_an_import_gets_its_projects_key(scope: Scope) -> None:
    secrets = Secrets([os.urandom(32)])
    text = secrets.value(scope, "red", REFERENCE, owners(scope))
    assert from_text(text) == secrets.data_keys(scope, "red") != secrets.data_keys(scope, "blue")


def test_what_people_run_themselves_does_not_get_it(scope: Scope) -> None:
    scope.write([Create("Workload", "red", "mine", WORKLOAD.parse_spec({"roles": [ROLE]}))])
    secrets = Secrets([os.urandom(32)])
    for asking in ([scope.get("Workload", "mine", "red").uid, ""], [], ["unheard of"]):
        with pytest.raises(NotFound, match="no secret 'atoll-uploads'"):
            secrets.value(scope, "red", REFERENCE, asking)


def test_every_reader_is_a_kind_there_is() -> None:
    assert all(kinds.KINDS.named(name) for name in READERS)


def test_a_project_made_anew_has_another_key(scope: Scope) -> None:
    secrets = Secrets([os.urandom(32)])
    before = secrets.data_keys(scope, "red")
    scope.write([Remove(scope.get("Project", "red", SYSTEM_PROJECT))])
    with pytest.raises(NotFound, match="'red'"):
        secrets.data_keys(scope, "red")
    add_project(scope, "red")
    assert secrets.data_keys(scope, "red") != before


def test_after_the_centres_key_was_changed_older_uploads_open(scope: Scope) -> None:
    old, new = os.urandom(32), os.urandom(32)
    (before,) = Secrets([old]).data_keys(scope, "red")
    assert Secrets([new, old]).data_keys(scope, "red")[1] == before


def test_a_task_takes_its_keys_out_of_its_environment(monkeypatch: pytest.MonkeyPatch, scope: Scope) -> None:
    keys = Secrets([os.urandom(32), os.urandom(32)]).data_keys(scope, "red")
    monkeypatch.setenv(VARIABLE, to_text(keys))
    assert from_environment() == keys
    assert VARIABLE not in os.environ and from_environment() == []


@pytest.mark.parametrize("text", ["!", "c2hvcnQ=", ","])
def test_what_is_no_key_is_refused_without_being_told(monkeypatch: pytest.MonkeyPatch, text: Any) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(Invalid, match=f"{VARIABLE} holds no key") as caught:
        from_environment()
    assert text not in str(caught.value).replace(VARIABLE, "")
