"""Keys, who holds them, and what they may do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.errors import Forbidden, Unauthorized
from atoll.core.feed import Feed
from atoll.core.resources import KINDS, SYSTEM_PROJECT
from atoll.core.store import Create, MarkDeleting, Scope, SetSpec, Store
from atoll.governance.access import OPERATE, READ, WRITE, check
from atoll.governance.keyring import KeyRing
from atoll.governance.keys import Identity, hash_of, new_key
from atoll.governance.resources import API_KEY

VERBS = (READ, WRITE, OPERATE)


def test_a_key_is_long_random_and_known_by_its_hash() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk-atoll-[A-Za-z0-9]{40}", key) for key in keys)
    assert re.fullmatch(r"[0-9a-f]{64}", hash_of(keys.pop()))


class Ring:
    def __init__(self, store: Store) -> None:
        self.scope = store.everything("test")
        self.feed = Feed(store)
        self.ring = KeyRing(store, self.feed, "sk-atoll-system")

    def make(self, name: str, project: str = "red", **fields: Any) -> str:
        key = new_key()
        spec = API_KEY.parse_spec({"sha256": hash_of(key), **fields})
        self.scope.write([Create("ApiKey", project, name, spec, {"phase": "ready"})])
        return key


@pytest.fixture
def ring(sqlite_store: Store) -> Any:
    ring = Ring(sqlite_store)
    yield ring
    ring.feed.stop()


def test_a_key_says_who_comes(ring: Ring) -> None:
    key, viewer = ring.make("k1"), ring.make("k2", "blue", role="viewer")
    assert ring.ring.identify(key) == Identity("k1", "red", "member")
    assert ring.ring.identify(viewer) == Identity("k2", "blue", "viewer")
    assert ring.ring.identify("sk-atoll-system") == Identity("system", SYSTEM_PROJECT, "system")


def test_a_key_nobody_made_is_refused(ring: Ring) -> None:
    ring.make("k1")
    for key in ("", "sk-atoll-", new_key()):
        with pytest.raises(Unauthorized, match="unknown, expired or revoked"):
            ring.ring.identify(key)


def test_a_revoked_or_deleted_key_is_refused_at_once(ring: Ring) -> None:
    revoked, deleted = ring.make("k1"), ring.make("k2")
    ring.ring.identify(revoked), ring.ring.identify(deleted)
    one, two = ring.scope.find_all("ApiKey")
    ring.scope.write([SetSpec(one, one.spec | {"revoked": True}), MarkDeleting(two)])
    for key in (revoked, deleted):
        with pytest.raises(Unauthorized):
            ring.ring.identify(key)


def test_a_key_expires_though_nothing_else_happens(ring: Ring, clock: VirtualClock) -> None:
    key = ring.make("k1", expires_at=clock.now() + 60)
    assert ring.ring.identify(key).key_id == "k1"
    clock.advance(59)
    assert ring.ring.identify(key).key_id == "k1"
    clock.advance(2)
    with pytest.raises(Unauthorized):
        ring.ring.identify(key)


def test_what_users_and_memberships_become_counts_at_once(ring: Ring) -> None:
    for kind, name, project in (("Project", "red", "system"), ("User", "eve", "system"), ("Membership", "eve", "red")):
        spec = KINDS.named(kind).parse_spec({"role": "owner"} if kind == "Membership" else {})
        ring.scope.write([Create(kind, project, name, spec)])
    key = ring.make("k1", user="eve", role="owner")
    assert ring.ring.identify(key).role_in("red") == "owner"
    membership = ring.scope.get("Membership", "eve", "red")
    ring.scope.write([SetSpec(membership, {"role": "viewer"})])
    assert ring.ring.identify(key).role_in("red") == "viewer"
    user = ring.scope.get("User", "eve", "system")
    ring.scope.write([SetSpec(user, user.spec | {"disabled": True})])
    with pytest.raises(Unauthorized):
        ring.ring.identify(key)


def test_keys_are_not_read_again_for_what_does_not_concern_them(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ring.make("k1")
    ring.ring.identify(key)
    read: list[str] = []
    find_all = Scope.find_all
    monkeypatch.setattr(
        Scope, "find_all", lambda scope, kind, **more: read.append(kind) or find_all(scope, kind, **more)
    )
    for n in range(3):
        ring.scope.write([Create("Dataset", "red", f"d{n}", {})])
        ring.ring.identify(key)
    assert read == []
    ring.make("k2")
    ring.ring.identify(key)
    assert "ApiKey" in read


def test_a_long_absence_or_a_forgotten_history_loses_no_revocation(ring: Ring, sqlite_store: Store) -> None:
    key = ring.make("k1")
    ring.ring.identify(key)
    [found] = ring.scope.find_all("ApiKey")
    ring.scope.write([SetSpec(found, found.spec | {"revoked": True})])
    ring.scope.write([Create("Dataset", "red", f"d{n}", {}) for n in range(600)])
    sqlite_store.forget_changes(sqlite_store.head() - 10)
    with pytest.raises(Unauthorized):
        ring.ring.identify(key)


def test_the_hash_of_a_key_is_never_shown(ring: Ring) -> None:
    ring.make("k1")
    shown = ring.scope.find_all("ApiKey")[0].to_dict()
    assert "sha256" not in shown["spec"]
    assert shown["spec"]["role"] == "member"


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("admin", {(v, p) for v in VERBS for p in ("red", "blue", "system")}),
        ("member", {(READ, "red"), (WRITE, "red")}),
        ("viewer", {(READ, "red")}),
        ("system", {(OPERATE, p) for p in ("red", "blue", "system")}),
    ],
)
def test_each_role_may_do_this_and_nothing_else(role: str, allowed: set[tuple[str, str]]) -> None:
    for verb in VERBS:
        for project in ("red", "blue", SYSTEM_PROJECT):
            identity = Identity("k", "red", role)
            if (verb, project) in allowed:
                check(identity, verb, project)
            else:
                with pytest.raises(Forbidden):
                    check(identity, verb, project)


def test_only_administrators_touch_the_fleet_even_with_a_key_made_in_its_project() -> None:
    for role in ("member", "viewer"):
        for verb in VERBS:
            with pytest.raises(Forbidden):
                check(Identity("k", SYSTEM_PROJECT, role), verb, SYSTEM_PROJECT)


def test_a_refusal_names_the_key_the_verb_and_the_project() -> None:
    with pytest.raises(Forbidden, match="key k1 \\(viewer of 'red'\\) may not write in project 'blue'"):
        check(Identity("k1", "red", "viewer"), WRITE, "blue")
