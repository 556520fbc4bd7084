"""Roles and what they may do, as tables; keys nobody may make, change or take over."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Forbidden
from atoll.core.resources import Resource
from atoll.governance.access import (
    MANAGE,
    OPERATE,
    READ,
    WRITE,
    check,
    check_key_change,
    check_new_key,
    check_revocation,
    check_rotation,
    restrictions,
)
from atoll.governance.keys import Identity, is_from
from atoll.governance.resources import API_KEY

SHA = "0" * 64
FREE = API_KEY.parse_spec({"sha256": SHA})


def spec(**fields: Any) -> dict[str, Any]:
    return API_KEY.parse_spec({"sha256": SHA, **fields})


def key(name: str = "k9", project: str = "red", **fields: Any) -> Resource:
    return Resource("ApiKey", project, name, name, 1, 1, {}, None, spec(**fields), {}, 0.0, 0.0, None)


def service(role: str, project: str = "red") -> Identity:
    return Identity("k", project, role)


def person(name: str = "eve", cap: str = "owner", **roles: str) -> Identity:
    return Identity("k", "red", cap, name, roles)


def is_allowed(rule: Any, *arguments: Any, **named: Any) -> bool:
    try:
        rule(*arguments, **named)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("admin", {READ, WRITE, MANAGE, OPERATE}),
        ("owner", {READ, WRITE, MANAGE}),
        ("member", {READ, WRITE}),
        ("viewer", {READ}),
        ("system", {OPERATE}),
    ],
)
def test_each_role_may_do_its_verbs_in_its_project(role: str, verbs: set[str]) -> None:
    assert {v for v in (READ, WRITE, MANAGE, OPERATE) if is_allowed(check, service(role), v, "red")} == verbs


def test_an_owner_is_nothing_elsewhere_and_not_in_the_fleet() -> None:
    for verb in (READ, WRITE, MANAGE, OPERATE):
        assert not is_allowed(check, service("owner"), verb, "blue")
        assert not is_allowed(check, service("owner", "system"), verb, "system")


def test_a_person_is_judged_by_the_role_in_the_project_of_the_path() -> None:
    eve = person(blue="viewer", green="owner")
    assert is_allowed(check, eve, READ, "blue")
    assert not is_allowed(check, eve, WRITE, "blue")
    assert is_allowed(check, eve, MANAGE, "green")
    with pytest.raises(Forbidden, match="key k of eve \\(no member of 'red'\\) may not read in project 'red'"):
        check(eve, READ, "red")


@pytest.mark.parametrize(
    ("who", "makes"),
    [
        ("admin", {"admin", "system", "owner", "member", "viewer"}),
        ("owner", {"owner", "member", "viewer"}),
        ("member", {"member", "viewer"}),
        ("viewer", {"viewer"}),
        ("system", set()),
    ],
)
def test_nobody_makes_a_key_above_their_own_role(who: str, makes: set[str]) -> None:
    roles = ("admin", "system", "owner", "member", "viewer")
    assert {r for r in roles if is_allowed(check_new_key, service(who), "red", spec(role=r), FREE)} == makes


@pytest.mark.parametrize(
    ("identity", "user", "allowed"),
    [
        (service("admin"), "bob", True),
        (service("owner"), "bob", False),
        (person(red="owner"), "bob", False),
        (person(red="owner"), "eve", True),
        (person(red="member"), "eve", True),
    ],
)
def test_a_key_of_a_person_is_made_by_that_person_or_an_administrator(
    identity: Identity, user: str, allowed: bool
) -> None:
    assert is_allowed(check_new_key, identity, "red", spec(user=user), FREE) is allowed
    change = is_allowed(check_key_change, identity, key(), user=user)
    assert change is (allowed and identity.role_in("red") != "member")


@pytest.mark.parametrize(
    "bound",
    [
        {"models": ["m"]},
        {"addresses": ["10.0.0.0/8"]},
        {"limits": {"parallel": 1}},
        {"expires_at": 9.0},
        {"priority": "batch"},
        {"charged_to": "red/other"},
    ],
)
def test_a_bounded_member_key_cannot_make_itself_free(bound: dict[str, Any]) -> None:
    maker = spec(**bound)
    assert restrictions(maker) == list(bound)
    with pytest.raises(Forbidden, match=next(iter(bound))):
        check_new_key(service("member"), "red", spec(), maker)
    check_new_key(service("owner"), "red", spec(), maker)


def test_only_owners_hand_out_high_priority() -> None:
    assert not is_allowed(check_new_key, service("member"), "red", spec(priority="high"), FREE)
    assert is_allowed(check_new_key, service("owner"), "red", spec(priority="high"), FREE)


@pytest.mark.parametrize(
    ("identity", "target", "change", "revoke", "rotate"),
    [
        (service("admin"), key(role="admin"), True, True, True),
        (service("admin"), key(user="bob"), True, True, True),
        (service("owner"), key(role="admin"), False, False, False),
        (service("owner"), key(role="system"), False, False, False),
        (service("owner"), key(role="owner"), True, True, True),
        (service("owner"), key(user="bob"), True, True, False),
        (service("member"), key(), False, False, False),
        (service("member"), key("k"), False, True, True),
        (service("member"), key("k", "blue"), False, False, False),
        (person(red="member"), key(user="eve"), False, True, True),
        (person(cap="member", red="member"), key(user="eve", role="owner"), False, False, False),
        (person(red="viewer"), key(user="bob"), False, False, False),
    ],
)
def test_keys_are_managed_by_owners_and_held_only_by_their_own(
    identity: Identity, target: Resource, change: bool, revoke: bool, rotate: bool
) -> None:
    assert is_allowed(check_key_change, identity, target) is change
    assert is_allowed(check_revocation, identity, target) is revoke
    assert is_allowed(check_rotation, identity, target) is rotate


@pytest.mark.parametrize(
    ("networks", "address", "expected"),
    [
        (None, "anything", True),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8", "192.0.2.7/32"), "192.0.2.7", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "10.1.2.3", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("0.0.0.0/0",), "unknown", False),
        (("0.0.0.0/0",), "", False),
        ((), "10.1.2.3", False),
    ],
)
def test_addresses_are_judged_as_what_they_are(networks: tuple[str, ...] | None, address: str, expected: bool) -> None:
    assert is_from(networks, address) is expected
