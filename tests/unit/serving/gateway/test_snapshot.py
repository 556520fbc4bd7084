"""Who may call what, read from the server's JSON."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from atoll.core.errors import Invalid
from atoll.serving.fairness import BATCH, NORMAL
from atoll.serving.gateway.snapshot import UNBOUNDED_SLOTS, Replica, Snapshot, read_snapshot

KEY = {"id": "key-1", "project": "a"}
REPLICA = {"id": "r", "url": "http://h:1", "api_key": "s"}
TARGET = {"id": "t", "name": "t", "replicas": [REPLICA]}


def read(known: dict[Any, Replica] | None = None, **fields: Any) -> Snapshot:
    base: dict[str, Any] = {"seen": 1, "keys": {}, "models": {}}
    return read_snapshot(orjson.dumps(base | fields), known or {})


def test_key_is_read_with_what_it_may() -> None:
    fields = KEY | {"projects": ["b"], "priority": "batch", "budgets": {"a": ["x", "y"]}, "models": ["m"]}
    key = read(keys={"d": fields | {"limits": {"requests_per_minute": 5}}}).keys["d"]
    assert key.projects == {"a", "b"} and key.priority == BATCH
    assert key.budgets == {"a": ("x", "y")}
    assert key.limits is not None and key.limits.requests_per_minute == 5 and key.limits.parallel is None
    assert key.may_use("m") and not key.may_use("n")


def test_key_without_more_may_everything() -> None:
    key = read(keys={"d": KEY}).keys["d"]
    assert key.may_use("any") and key.may_come_from("1.2.3.4")
    assert key.limits is None and key.priority == NORMAL


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_addresses_of_a_key_hold_for_both_versions(address: str, expected: bool) -> None:
    key = read(keys={"d": KEY | {"addresses": ["10.0.0.0/8", "2001:db8::/32"]}}).keys["d"]
    assert key.may_come_from(address) is expected
    assert key.may_come_from(address) is expected, "asked again"


def test_key_with_no_address_at_all_comes_from_nowhere() -> None:
    assert not read(keys={"d": KEY | {"addresses": []}}).keys["d"].may_come_from("127.0.0.1")


def test_replicas_live_on_and_are_shared_by_names() -> None:
    models = {"a": {"m": {"targets": [TARGET]}}, "b": {"m": {"targets": [TARGET], "owner": "a"}}}
    first = read(models=models)
    (replica,) = first.replicas
    replica.outstanding = 3
    second = read({(r.id, r.url, r.secret): r for r in first.replicas}, models=models)
    assert second.replicas == {replica}
    assert second.models["b"]["m"].identity == ("a", "m")
    moved = TARGET | {"replicas": [REPLICA | {"url": "http://h:2"}]}
    third = read({(r.id, r.url, r.secret): r for r in first.replicas}, models={"a": {"m": {"targets": [moved]}}})
    assert replica not in third.replicas


def test_slots_are_those_of_the_replica_and_at_most_the_targets() -> None:
    def slots(replica: dict[str, Any], target: dict[str, Any]) -> int:
        entry = TARGET | target | {"replicas": [REPLICA | replica]}
        (found,) = read(models={"a": {"m": {"targets": [entry]}}}).replicas
        return found.slots

    assert slots({}, {}) == UNBOUNDED_SLOTS
    assert slots({"slots": 4}, {}) == 4
    assert slots({}, {"parallel": 7}) == 7
    assert slots({"slots": 9}, {"parallel": 7}) == 7


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("http://h:1", "/v1/chat/completions", b"POST /v1/chat/completions "),
        ("http://h:1/", "/v1/chat/completions", b"POST /v1/chat/completions "),
        ("https://h/v1", "/v1/chat/completions", b"POST /v1/chat/completions "),
        ("https://h/openai/v1/", "/v1/embeddings", b"POST /openai/v1/embeddings "),
        ("https://h/base", "/v1/embeddings", b"POST /base/v1/embeddings "),
        ("https://h/v1", "/v2/models/m/infer", b"POST /v1/v2/models/m/infer "),
    ],
)
def test_providers_version_takes_the_place_of_ours(url: str, path: str, expected: bytes) -> None:
    assert Replica("r", url, "s").head(path).startswith(expected)


def test_replica_without_a_key_is_asked_without_one() -> None:
    assert b"authorization" not in Replica("r", "http://h:1", "").head("/x")
    assert Replica("r", "http://h:1", "").head("/x", b"GET").startswith(b"GET /x ")


def test_broken_entries_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    snapshot = read(
        keys={"d": KEY, "e": {"id": "key-bad"}, "f": KEY | {"id": "key-worse", "priority": "urgent"}},
        projects={"p": {"weight": 2}, "q": {"weight": "heavy"}},
        budgets={"b": {"name": "n", "project": "p", "units": ["tokens"]}, "c": {}},
        models={"a": {"m": {"targets": [TARGET]}, "n": {"targets": 5}, "o": {"hold": {}}}},
    )
    assert set(snapshot.keys) == {"d"}
    assert set(snapshot.projects) == {"p"} and set(snapshot.budgets) == {"b"}
    assert set(snapshot.models["a"]) == {"m"}
    for name in ("key-bad", "key-worse", "'q'", "'c'", "'n'", "'o'"):
        assert name in caplog.text


@pytest.mark.parametrize("data", [b"", b"[]", b'{"seen": 1}', b'{"seen": "x", "keys": {}, "models": {}}'])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        read_snapshot(data, {})
