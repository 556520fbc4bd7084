"""Where a key may act, as what, until when: tables of people and keys."""

from __future__ import annotations

import math
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.resources import KINDS, Resource
from atoll.core.store import Create, Store
from atoll.governance.keys import Identity, hash_of
from atoll.governance.members import OVER, Keys, key_entries, people_of
from atoll.server import kinds

assert kinds.DOMAINS

ROLES = ("owner", "member", "viewer", "caller")


def resource(kind: str, name: str, project: str = "system", **fields: Any) -> Resource:
    if kind == "ApiKey":
        fields = {"sha256": hash_of(f"{project}/{name}"), **fields}
    spec = KINDS.named(kind).parse_spec(fields)
    deleting = spec.pop("deleting", None)
    return Resource(kind, project, name, f"{project}-{name}", 1, 1, {}, None, spec, {}, 0.0, 0.0, deleting)


def key(name: str = "k", project: str = "red", **fields: Any) -> Resource:
    return resource("ApiKey", name, project, **fields)


def keys(*found: Resource, disabled: bool = False, **memberships: str) -> Keys:
    """Projects red, blue, green; the user eve with a role in some of them."""
    projects = [resource("Project", name) for name in ("red", "blue", "green")]
    eve = resource("User", "eve", disabled=disabled)
    members = [resource("Membership", "eve", project, role=role) for project, role in memberships.items()]
    return Keys(found, people_of(projects, [eve], members))


@pytest.mark.parametrize("role", ROLES)
def test_a_key_of_nobody_has_its_own_role_in_its_own_project(role: str) -> None:
    one = key(role=role)
    assert keys(one, blue="owner").roles(one) == {"red": role}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("owner", {"red": "owner", "blue": "viewer"}),
        ("member", {"red": "member", "blue": "viewer"}),
        ("viewer", {"red": "viewer", "blue": "viewer"}),
        ("caller", {"red": "caller"}),  # what a viewer may not do, a viewer's caller may not either
    ],
)
def test_a_persons_key_has_the_persons_role_but_never_more_than_its_own(own: str, expected: dict[str, str]) -> None:
    one = key(role=own, user="eve")
    assert keys(one, red="owner", blue="viewer").roles(one) == expected


def test_a_persons_key_is_nothing_in_its_own_project_once_the_membership_ended() -> None:
    one = key(role="owner", user="eve")
    everybody = keys(one, blue="member")
    assert everybody.roles(one) == {"blue": "member"}
    assert everybody.identity(one).role_in("red") == ""
    assert everybody.identity(one).projects() == ["blue"]
    assert everybody.identity(one).home == "blue"


def test_an_administrators_key_goes_everywhere_and_a_system_key_nowhere() -> None:
    admin, system = key("a", role="admin"), key("s", role="system")
    assert keys(admin).roles(admin) == {"red": "admin", "blue": "admin", "green": "admin"}
    assert keys(system).roles(system) == {}
    assert keys(admin).identity(admin).role_in("anything") == "admin"


def test_membership_of_a_project_that_is_gone_counts_for_nothing() -> None:
    one = key(role="owner", user="eve")
    assert keys(one, red="owner", gone="owner").roles(one) == {"red": "owner"}


def test_a_key_of_a_project_that_is_gone_acts_nowhere() -> None:
    one = key(project="gone")
    assert keys(one).roles(one) == {}


@pytest.mark.parametrize(
    ("fields", "disabled", "ends_at"),
    [
        ({}, False, math.inf),
        ({"expires_at": 50.0}, False, 50.0),
        ({"revoked": True}, False, OVER),
        ({"user": "eve"}, False, math.inf),
        ({"user": "eve", "role": "admin"}, True, OVER),
        ({"user": "eve"}, True, OVER),
        ({"user": "nobody"}, False, OVER),
        ({"charged_to": "red/nobody"}, False, OVER),
    ],
)
def test_a_key_ends_with_its_time_or_its_user(fields: dict[str, Any], disabled: bool, ends_at: float) -> None:
    one = key(**fields)
    assert keys(one, disabled=disabled, red="owner").ends_at(one) == ends_at


def test_a_key_charged_to_another_does_no_more_and_lasts_no_longer() -> None:
    payer = key("payer", role="viewer", expires_at=40.0)
    one = key("one", role="member", charged_to="red/payer", expires_at=90.0)
    everybody = keys(payer, one)
    assert everybody.roles(one) == {"red": "viewer"}
    assert everybody.ends_at(one) == 40.0


def test_a_charged_key_goes_on_when_its_payer_was_rotated_but_not_when_it_was_revoked() -> None:
    successor = key("next", replaces="payer", expires_at=80.0)
    one = key("one", charged_to="red/payer")
    rotated = keys(key("payer", expires_at=40.0), successor, one)
    assert rotated.ends_at(one) == 80.0
    revoked = keys(key("payer", revoked=True), successor, one)
    assert revoked.ends_at(one) == OVER


def test_lineage_names_what_a_key_was_rotated_from_in_its_own_project() -> None:
    first, second, third = key("k1"), key("k2", replaces="k1"), key("k3", replaces="k2")
    stranger = key("k1", "blue")
    assert keys(first, second, third, stranger).lineage(third) == ("k3", "k2", "k1")
    assert keys(first, second).lineage(first) == ("k1",)


def test_a_lineage_that_bites_its_tail_ends() -> None:
    one, two = key("k1", replaces="k2"), key("k2", replaces="k1")
    assert keys(one, two).lineage(one) == ("k1", "k2")


def test_keys_stored_before_there_were_users_still_work() -> None:
    old = key()
    for field in ("user", "addresses", "limits", "priority", "replaces", "charged_to"):
        del old.spec[field]
    everybody = keys(old)
    assert everybody.roles(old) == {"red": "member"}
    assert everybody.ends_at(old) == math.inf
    assert everybody.identity(old) == Identity("k", "red", "member")


def write(store: Store, *resources: Resource) -> None:
    store.everything().write([Create(r.kind, r.project, r.name, r.spec) for r in resources])


def test_gateways_learn_each_usable_key_with_all_that_binds_it(sqlite_store: Store, clock: VirtualClock) -> None:
    limits = {"requests_per_minute": 6, "tokens_per_minute": None, "parallel": None}
    bound = {"models": ["m"], "addresses": ["10.0.0.0/8"], "limits": limits, "priority": "high"}
    write(
        sqlite_store,
        *(resource("Project", name) for name in ("red", "blue", "green")),
        resource("User", "eve"),
        resource("Membership", "eve", "blue", role="owner"),
        resource("Membership", "eve", "green", role="viewer"),
        key("mine", user="eve", role="owner", description="laptop", expires_at=clock.now() + 5, **bound),
        key("reads", role="viewer"),
        key("calls", role="caller"),
        key("part", role="system"),
        key("gone", revoked=True),
        key("over", expires_at=clock.now()),
        key("next", replaces="first"),
        key("first", expires_at=clock.now() + 9),
        key("batch", charged_to="red/next"),
    )
    entries = {
        entry["name"] or entry["id"]: entry for entry in key_entries(sqlite_store.everything(), clock.now()).values()
    }
    mine = entries.pop("laptop")
    assert mine == {
        "id": "mine",
        "project": "blue",
        "projects": ["blue"],
        "name": "laptop",
        "lineage": ["mine"],
        "expires_at": clock.now() + 5,
        "role": "owner",
        "user": "eve",
        **bound,
    }
    assert entries.keys() == {"next", "first", "calls"}
    by_hash = key_entries(sqlite_store.everything(), clock.now())
    charged = by_hash[hash_of("red/batch")]
    assert (charged["id"], charged["lineage"]) == ("next", ["next", "first"])
    clock.advance(5)
    assert "laptop" not in {entry["name"] for entry in key_entries(sqlite_store.everything(), clock.now()).values()}
