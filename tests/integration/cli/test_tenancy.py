"""Members, users, bounded keys and secrets from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from running import Platform

from .conftest import Atoll
from .terminal import Terminal

HIDDEN = "p4ssw0rd-that-nobody-may-see"


def listed(atoll: Atoll, key_id: str) -> str:
    [row] = [line for line in atoll("keys", "list").stdout.splitlines() if line.startswith(key_id)]
    return row


def make(atoll: Atoll, *words: str) -> tuple[str, str]:
    """Id and secret of a new key."""
    made = json.loads(atoll("keys", "create", "-o", "json", *words).stdout)
    return made["id"], made["key"]


def test_bounds_are_set_shown_and_taken_away(atoll: Atoll) -> None:
    key_id, _ = make(atoll, "--requests-per-minute", "60", "--address-from", "10.0.0.0/8", "--priority", "batch")
    assert "60 requests/min, from 10.0.0.0/8, batch priority" in listed(atoll, key_id)
    said = atoll("keys", "limit", key_id, "--parallel", "4", "--address-from", "none", "--priority", "normal").stdout
    assert said == f"{key_id}: 60 requests/min, 4 at a time\n"
    atoll("keys", "limit", key_id, "--requests-per-minute", "none", "--parallel", "none")
    [key] = [k for k in json.loads(atoll("keys", "list", "-o", "json").stdout)["items"] if k["name"] == key_id]
    assert key["spec"]["limits"] is None
    assert key["last_used_at"] is None


def test_expiry_and_models_of_a_key_are_changed(atoll: Atoll) -> None:
    key_id, _ = make(atoll, "--expires-in", "1h", "--model", "tiny")
    atoll("keys", "limit", key_id, "--expires-in", "none", "--model", "none", "-d", "for all")
    row = listed(atoll, key_id)
    assert "never" in row
    assert row.endswith("for all")


def test_a_wrong_network_is_refused_by_name(atoll: Atoll) -> None:
    refused = atoll("keys", "create", "--address-from", "10.0.0.0/99", code=2)
    assert "spec.addresses" in refused.stderr


def test_rotation_prints_the_new_key_alone(atoll: Atoll) -> None:
    key_id, old = make(atoll)
    rotated = atoll("keys", "rotate", key_id, "--overlap", "0")
    new = rotated.stdout.strip()
    assert new.startswith("sk-atoll-")
    assert f"takes the place of {key_id}" in rotated.stderr
    atoll("get", "workloads", "--key", new)
    atoll("get", "workloads", "--key", old, code=4)
    assert "expired" in listed(atoll, key_id)


def test_a_person_is_made_added_and_removed(atoll: Atoll) -> None:
    assert atoll("users", "create", "ada", "--email", "ada@example.org").stdout.startswith("user ada is made")
    atoll("users", "create", "ada", "--display-name", "Ada L.")
    user = json.loads(atoll("users", "list", "-o", "json").stdout)["items"][0]
    assert user["spec"] == {"display_name": "Ada L.", "email": "ada@example.org", "disabled": False}
    assert atoll("members", "add", "ada", "--role", "viewer").stdout == "ada is viewer of default\n"
    assert "viewer" in atoll("members", "list").stdout
    _, key = make(atoll, "--user", "ada", "--role", "owner")
    atoll("get", "workloads", "--key", key)
    refused = atoll("members", "add", "bob", "--key", key, code=4)
    assert "key" in refused.stderr and "of ada (viewer of 'default') may not write" in refused.stderr
    assert atoll("members", "remove", "ada").stdout == "ada is no longer a member of default\n"
    atoll("get", "workloads", "--key", key, code=4)


def test_a_disabled_user_is_locked_out_until_enabled(atoll: Atoll) -> None:
    atoll("users", "create", "bob")
    atoll("members", "add", "bob")
    _, key = make(atoll, "--user", "bob")
    assert atoll("users", "disable", "bob").stdout == "user bob is disabled\n"
    atoll("get", "workloads", "--key", key, code=4)
    atoll("users", "enable", "bob")
    atoll("get", "workloads", "--key", key)


def test_a_key_of_nobody_known_is_refused(atoll: Atoll) -> None:
    refused = atoll("keys", "create", "--user", "nobody", code=2)
    assert "there is no user 'nobody'" in refused.stderr
    assert "atoll users create" in refused.stderr


def test_secrets_come_from_the_line_a_file_or_standard_input(atoll: Atoll, tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    path.write_text(f"{HIDDEN}\n")
    said = atoll("secrets", "set", "api", "PLAIN=x", f"FILED=@{path}", "PIPED=-", "AT=@@x", text=f"{HIDDEN}\n")
    assert said.stdout == "secret api of default holds AT, FILED, PIPED, PLAIN\n"
    for output in ("table", "json", "yaml"):
        shown = atoll("secrets", "list", "-o", output).stdout
        assert "FILED" in shown
        assert HIDDEN not in shown
    assert HIDDEN not in atoll("describe", "secret", "api").stdout
    assert HIDDEN not in atoll("events", "secret", "api").stdout
    assert atoll("secrets", "remove", "api", "PLAIN", "AT", "PIPED").stdout == "secret api of default holds FILED\n"
    assert atoll("secrets", "remove", "api").stdout == "secret api of default is removed\n"
    atoll("secrets", "remove", "api", code=1)


def test_a_terminal_is_asked_without_showing_what_is_typed(up: Platform) -> None:
    with Terminal(up, "secrets", "set", "typed", "KEY=-") as terminal:
        terminal.until("typed/KEY:")
        terminal.type(f"{HIDDEN}\n")
        assert terminal.end() == 0
        assert HIDDEN not in terminal.text
        assert "secret typed of default holds KEY" in terminal.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_cannot_be_read_is_named(atoll: Atoll, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    path.touch(mode=0)
    assert str(path) in atoll("secrets", "set", "api", f"A=@{path}", code=2).stderr
