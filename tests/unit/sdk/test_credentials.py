"""Credentials: private on disk, contexts kept apart, the nearest word wins."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Invalid, NotFound
from atoll.sdk.credentials import (
    DEFAULT_ADDRESS,
    Credentials,
    credentials_path,
    is_private,
    read_contexts,
    resolve_credentials,
    write_context,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(contexts=st.dictionaries(TEXT, st.builds(Credentials, TEXT, TEXT, TEXT), min_size=1, max_size=3))
def test_what_was_written_is_read(contexts: dict[str, Credentials], tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    for name, credentials in contexts.items():
        write_context(home, credentials, name)
    assert read_contexts(home) == contexts


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = write_context(tmp_path / "new", Credentials(key="sk-atoll-x"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_private(path)
    path.chmod(0o640)
    assert not is_private(path)
    assert is_private(tmp_path / "nothing")


def test_the_key_is_not_shown_by_repr() -> None:
    assert "secret" not in repr(Credentials(key="secret"))


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert resolve_credentials(tmp_path, environment={}) == Credentials(DEFAULT_ADDRESS, "default", "")


def test_given_wins_over_environment_over_file(tmp_path: Path) -> None:
    write_context(tmp_path, Credentials("http://a:1", "one", "file-key"))
    environment = {"ATOLL_PROJECT": "two", "ATOLL_KEY": "environment-key"}
    assert resolve_credentials(tmp_path, environment={}) == Credentials("http://a:1", "one", "file-key")
    assert resolve_credentials(tmp_path, environment=environment) == Credentials("http://a:1", "two", "environment-key")
    chosen = resolve_credentials(tmp_path, project="three", key="given", environment=environment)
    assert chosen == Credentials("http://a:1", "three", "given")


def test_a_saved_key_goes_only_to_its_own_address(tmp_path: Path) -> None:
    write_context(tmp_path, Credentials("http://a:1", "one", "file-key"))
    assert resolve_credentials(tmp_path, address="http://elsewhere", environment={}).key == ""
    assert resolve_credentials(tmp_path, environment={"ATOLL_ADDRESS": "http://elsewhere"}).key == ""


def test_a_context_is_chosen_by_the_environment(tmp_path: Path) -> None:
    write_context(tmp_path, Credentials("http://a:1", "one", "k1"))
    write_context(tmp_path, Credentials("http://b:2", "two", "k2"), "work")
    environment = {"ATOLL_CONTEXT": "work", "ATOLL_HOME": str(tmp_path)}
    assert resolve_credentials(environment=environment) == Credentials("http://b:2", "two", "k2")
    with pytest.raises(NotFound, match="it has: default, work"):
        resolve_credentials(tmp_path, environment={"ATOLL_CONTEXT": "home"})


@pytest.mark.parametrize("text", ["key = 'top level'", "[default]\nkey = 7", "[default]\ntoken = 'x'", "[[", "\xff"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    credentials_path(tmp_path).write_bytes(text.encode("latin-1"))
    with pytest.raises(Invalid, match=r"credentials\.toml"):
        read_contexts(tmp_path)
