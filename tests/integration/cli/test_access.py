"""Keys and what they may do."""

from __future__ import annotations

import json

from .conftest import Atoll


def test_a_key_is_printed_once_alone_and_works(atoll: Atoll) -> None:
    made = atoll("keys", "create", "--description", "web shop", "--expires-in", "30d", "--model", "tiny")
    key = made.stdout.strip()
    assert key.startswith("sk-atoll-")
    key_id = made.stderr.split()[0]
    atoll("get", "workloads", "--key", key)
    [row] = [line for line in atoll("keys", "list").stdout.splitlines() if line.startswith(key_id)]
    assert row.split()[1:3] == ["member", "valid"]
    assert row.endswith("web shop")
    assert "tiny" in row
    assert key not in atoll("keys", "list", "-o", "json").stdout


def test_a_revoked_key_is_refused(atoll: Atoll) -> None:
    made = json.loads(atoll("keys", "create", "-o", "json").stdout)
    atoll("get", "workloads", "--key", made["key"])
    assert atoll("keys", "revoke", made["id"]).stdout == f"{made['id']} is revoked\n"
    refused = atoll("get", "workloads", "--key", made["key"], code=4)
    assert refused.stderr.startswith("error: ")
    [row] = [line for line in atoll("keys", "list").stdout.splitlines() if line.startswith(made["id"])]
    assert row.split()[2] == "revoked"


def test_a_viewer_may_look_but_not_change(atoll: Atoll) -> None:
    key = atoll("keys", "create", "--role", "viewer").stdout.strip()
    atoll("get", "datasets", "--key", key)
    refused = atoll("apply", "-f", "-", "--yes", "--key", key, text="kind: Dataset\nname: mine\n", code=4)
    assert "may not write" in refused.stderr


def test_a_wrong_role_is_refused_with_the_roles(atoll: Atoll) -> None:
    refused = atoll("keys", "create", "--role", "king", code=2)
    assert "role" in refused.stderr


def test_usage_of_nothing_is_an_empty_statement(atoll: Atoll) -> None:
    statement = json.loads(atoll("usage", "--since", "2030-01-01", "-o", "json").stdout)
    assert statement["rows"] == []
    assert atoll("usage", "--since", "2030-01-01", "--by", "model").stdout.splitlines()[-1].split()[:2] == [
        "TOTAL",
        "0",
    ]
