"""What a model reference stands for."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Invalid, NotFound
from atoll.core.store import Create, Scope, SetStatus, Store
from atoll.models.library import next_version, resolve


@pytest.fixture
def scope(sqlite_store: Store) -> Scope:
    return sqlite_store.everything("test")


def version(scope: Scope, name: str, phase: str = "ready", base: str = "", project: str = "p", **status: Any) -> None:
    model = name.rpartition(".v")[0]
    spec = {"model": model, "source": "" if base else "file:/x", "base": base}
    scope.write([Create("ModelVersion", project, name, spec, {"phase": phase, **status})])


def model(scope: Scope, name: str, latest: str = "", production: str = "", project: str = "p") -> None:
    scope.write([Create("Model", project, name, {}, {"latest": latest, "production": production})])


def name_of(scope: Scope, reference: str) -> str:
    resolved = resolve(scope, "p", reference)
    assert resolved is not None
    return resolved.version.name


@pytest.fixture
def library(scope: Scope) -> Scope:
    model(scope, "smol", "smol.v3", "smol.v2")
    for number in (1, 2, 3):
        version(scope, f"smol.v{number}")
    return scope


def test_a_name_stands_for_production_then_for_the_latest(library: Scope) -> None:
    assert name_of(library, "smol") == "smol.v2"
    assert name_of(library, "smol@latest") == "smol.v3"
    assert name_of(library, "smol@production") == "smol.v2"
    assert name_of(library, "smol.v1") == "smol.v1"
    smol = library.get("Model", "smol", "p")
    library.write([SetStatus(smol, smol.status | {"production": ""})])
    assert name_of(library, "smol") == "smol.v3"
    with pytest.raises(Invalid, match="has no production version"):
        resolve(library, "p", "smol@production")


def test_what_is_still_being_made_is_none(scope: Scope) -> None:
    model(scope, "new")
    version(scope, "new.v1", "running")
    version(scope, "new.v2", "pending")
    assert resolve(scope, "p", "new") is None
    assert resolve(scope, "p", "new@latest") is None
    assert resolve(scope, "p", "new.v1") is None
    assert resolve(scope, "p", "new.v2") is None


def test_a_version_that_failed_says_why(scope: Scope) -> None:
    version(scope, "bad.v1", "failed", reason="checksum")
    with pytest.raises(Invalid, match=r"'bad\.v1' failed: checksum"):
        resolve(scope, "p", "bad.v1")


def test_an_unknown_model_is_answered_with_the_nearest(library: Scope) -> None:
    with pytest.raises(NotFound, match=r"no model 'smoll' in project 'p'.*nearest: smol"):
        resolve(library, "p", "smoll")
    with pytest.raises(NotFound, match="atoll models pull"):
        resolve(library, "empty", "smol")
    with pytest.raises(Invalid, match=r"'newest' is not an alias.*latest or production"):
        resolve(library, "p", "smol@newest")


def test_an_adapter_comes_with_its_base(library: Scope) -> None:
    version(library, "tuned.v1", base="smol.v1")
    resolved = resolve(library, "p", "tuned.v1")
    assert resolved is not None
    assert resolved.is_adapter
    assert resolved.base is not None
    assert resolved.base.name == "smol.v1"
    version(library, "orphan.v1", base="gone.v1")
    with pytest.raises(NotFound, match=r"base 'gone\.v1' of model version 'orphan\.v1' is gone"):
        resolve(library, "p", "orphan.v1")


def test_another_projects_models_do_not_exist(library: Scope) -> None:
    model(library, "theirs", "theirs.v1", project="q")
    version(library, "theirs.v1", project="q")
    for reference in ("theirs", "theirs.v1", "theirs@latest"):
        with pytest.raises(NotFound):
            resolve(library, "p", reference)
    assert next_version(library, "p", "theirs") == "theirs.v1"


def test_version_numbers_go_on_from_the_highest(library: Scope) -> None:
    assert next_version(library, "p", "smol") == "smol.v4"
    version(library, "smol.v10")
    assert next_version(library, "p", "smol") == "smol.v11"
    assert next_version(library, "p", "other") == "other.v1"
