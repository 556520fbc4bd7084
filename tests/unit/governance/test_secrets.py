"""Secrets at rest: what opens, what does not, and what errors never say."""

from __future__ import annotations

import base64
import logging
import os
import stat
from pathlib import Path

import pytest

from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.core.store import Create, Scope, Store
from atoll.governance.resources import SECRET
from atoll.governance.secrets import Secrets, changed, load_keys, parse_reference

HIDDEN = "p4ssw0rd-that-nobody-may-see"


@pytest.fixture
def secrets() -> Secrets:
    return Secrets([os.urandom(32)])


def stored(scope: Scope, secrets: Secrets, project: str = "red", name: str = "api") -> str:
    sealed = secrets.seal(project, name, {"KEY": HIDDEN})
    spec = SECRET.parse_spec({"names": ["KEY"], "sealed": sealed})
    scope.write([Create("Secret", project, name, spec, {"phase": "ready"})])
    return sealed


def test_a_value_is_read_by_its_reference(sqlite_store: Store, secrets: Secrets) -> None:
    stored(sqlite_store.everything(), secrets)
    assert secrets.value(sqlite_store.everything(), "red", "api/KEY") == HIDDEN
    assert secrets.value(sqlite_store.scope("red"), "red", "api/KEY") == HIDDEN


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("api", Invalid, "'api' names no value"),
        ("/KEY", Invalid, "'/KEY' names no value"),
        ("api/", Invalid, "'api/' names no value"),
        ("api/a b", Invalid, "'api/a b' names no value"),
        ("other/KEY", NotFound, "no secret 'other' in project 'red'"),
        ("api/OTHER", NotFound, "secret 'api' of project 'red' has no value 'OTHER'"),
    ],
)
def test_a_reference_to_nothing_is_named(
    sqlite_store: Store, secrets: Secrets, reference: str, kind: type[Exception], message: str
) -> None:
    stored(sqlite_store.everything(), secrets)
    with pytest.raises(kind, match=message) as caught:
        secrets.value(sqlite_store.everything(), "red", reference)
    assert HIDDEN not in str(caught.value)


def test_a_tenant_cannot_read_anothers_even_with_its_sealed_value(sqlite_store: Store, secrets: Secrets) -> None:
    everything = sqlite_store.everything()
    sealed = stored(everything, secrets)
    with pytest.raises(NotFound):
        secrets.value(everything, "blue", "api/KEY")
    spec = SECRET.parse_spec({"names": ["KEY"], "sealed": sealed})
    everything.write([Create("Secret", "blue", "api", spec)])
    with pytest.raises(IntegrityError, match="secret 'api' of project 'blue' does not open"):
        secrets.value(everything, "blue", "api/KEY")


def test_what_is_stored_does_not_hold_the_value(secrets: Secrets) -> None:
    one, two = (secrets.seal("red", "api", {"KEY": HIDDEN}) for _ in range(2))
    assert one != two
    assert HIDDEN.encode() not in base64.b64decode(one)


def test_the_wire_form_of_a_secret_has_only_names(sqlite_store: Store, secrets: Secrets) -> None:
    sealed = stored(sqlite_store.everything(), secrets)
    shown = sqlite_store.scope("red").get("Secret", "api").to_dict()
    assert shown["spec"] == {"description": "", "names": ["KEY"]}
    assert sealed not in str(shown)


def test_older_keys_open_what_they_sealed_and_seal_no_more() -> None:
    old, new = os.urandom(32), os.urandom(32)
    sealed = Secrets([old]).seal("red", "api", {"KEY": HIDDEN})
    assert Secrets([new, old]).open("red", "api", sealed) == {"KEY": HIDDEN}
    with pytest.raises(IntegrityError, match=r"run/secrets\.key"):
        Secrets([new]).open("red", "api", sealed)
    with pytest.raises(IntegrityError):
        Secrets([old]).open("red", "api", Secrets([new, old]).seal("red", "api", {"KEY": HIDDEN}))


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secrets.key"
    [key] = load_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_keys(path) == [key]
    path.write_text(f"{base64.b64encode(b'n' * 32).decode()}\n{path.read_text()}")
    assert load_keys(path) == [b"n" * 32, key]


def test_a_key_file_others_may_read_is_complained_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secrets.key"
    load_keys(path)
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        load_keys(path)
    assert f"chmod 600 {path}" in caplog.text


def test_a_given_key_goes_before_the_file(tmp_path: Path) -> None:
    given = base64.b64encode(b"g" * 32).decode()
    assert load_keys(tmp_path / "secrets.key", given) == [b"g" * 32]
    assert load_keys(tmp_path / "secrets.key", f"{given}, {given}") == [b"g" * 32] * 2
    assert not (tmp_path / "secrets.key").exists()


@pytest.mark.parametrize("text", ["", "short", "aGk=", "!" * 44, base64.b64encode(b"k" * 33).decode()])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets.key"
    path.write_text(f"{text}\n")
    with pytest.raises(Invalid, match="holds no key") as caught:
        load_keys(path)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"a b": "x"}, "values"),
        ({"": "x"}, "values"),
        ({"A": ""}, "values.A"),
        ({"A": f"{HIDDEN}\0"}, "values.A"),
        ({"A": HIDDEN * 5000}, "values.A"),
        ({f"A{n}": "x" for n in range(65)}, "values"),
    ],
)
def test_what_cannot_be_a_value_is_refused_without_being_shown(given: dict[str, str], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        changed({}, given)
    assert caught.value.field == field
    assert HIDDEN not in str(caught.value)


def test_values_are_set_replaced_and_taken_away() -> None:
    assert changed({"A": "1", "B": "2"}, {"B": "3", "C": "4"}) == {"A": "1", "B": "3", "C": "4"}
    assert changed({"A": "1", "B": "2"}, {"A": None, "Z": None}) == {"B": "2"}


def test_references_split_at_the_first_slash() -> None:
    assert parse_reference("open.ai-1/API_KEY") == ("open.ai-1", "API_KEY")
