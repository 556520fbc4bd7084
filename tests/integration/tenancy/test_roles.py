"""What each role may do, asked of the real application with keys of every sort."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.server.access import client_address

from .conftest import House


def person(house: House, name: str, **roles: str) -> str:
    """A user with roles by project, and an owner's key of theirs made in red."""
    house.put("system", "users", name, {})
    for project, role in roles.items():
        house.put(project, "memberships", name, {"role": role})
    return house.key("red", user=name, role="owner")


KINDS_OF_OWNERS = {"memberships": {"role": "member"}, "prices": {"model": "m"}}


@pytest.mark.parametrize(
    ("role", "reads", "writes", "manages"),
    [("owner", 200, 200, 200), ("member", 200, 200, 403), ("viewer", 200, 403, 403), ("caller", 403, 403, 403)],
)
def test_each_role_reads_writes_and_manages_as_the_table_says(
    house: House, role: str, reads: int, writes: int, manages: int
) -> None:
    key = house.key("red", role=role)
    house.ask("GET", "/projects/red/workloads", key=key, code=reads)
    house.ask("GET", "/projects/red/secrets", key=key, code=reads)
    house.put("red", "datasets", f"of-{role}", {}, key=key, code=writes)
    for plural, spec in KINDS_OF_OWNERS.items():
        house.put("red", plural, f"by-{role}", spec, key=key, code=manages)
        house.ask("DELETE", f"/projects/red/{plural}/by-{role}", key=key, code=manages)
    house.ask("POST", "/projects/red/secrets", {"name": "api", "values": {"K": "v"}}, key=key, code=manages)
    for method, path in (("GET", "/projects/blue/workloads"), ("GET", "/projects/system/nodes")):
        house.ask(method, path, key=key, code=403)
    house.put("system", "users", "intruder", {}, key=key, code=403)
    house.put("system", "projects", "red", {"weight": 9}, key=key, code=403)


def test_the_refusal_of_a_kind_says_who_may_write_it(house: House) -> None:
    error = house.put("red", "memberships", "eve", {}, key=house.key("red"), code=403)["error"]
    assert "may not write memberships" in error["message"]
    assert error["hint"] == "ask one who is owner of project 'red'"


def test_a_dry_run_is_refused_as_the_real_one_would_be(house: House) -> None:
    batch = {"resources": [{"kind": "Membership", "name": "eve", "spec": {}}], "dry_run": True}
    house.ask("POST", "/projects/red/apply", batch, key=house.key("red"), code=403)


def test_owners_bound_single_keys_and_only_administrators_the_project(house: House) -> None:
    owner = house.key("red", role="owner")
    made = house.make_key("red")
    house.put("red", "budgets", "one-key", {"key": made["id"], "tokens": 10}, key=owner)
    house.put("red", "budgets", "whole", {"tokens": 10}, key=owner, code=403)
    house.put("red", "budgets", "whole", {"tokens": 10})
    house.put("red", "budgets", "whole", {"tokens": 10**9}, key=owner, code=403)
    house.put("red", "budgets", "whole", {"tokens": 10**9, "key": made["id"]}, key=owner, code=403)
    house.ask("DELETE", "/projects/red/budgets/whole", key=owner, code=403)


def test_a_persons_key_works_in_each_project_of_the_person(house: House) -> None:
    key = person(house, "ada", red="viewer", blue="owner")
    house.ask("GET", "/projects/red/workloads", key=key)
    house.put("red", "datasets", "adas", {}, key=key, code=403)
    house.put("blue", "datasets", "adas", {}, key=key)
    house.put("blue", "memberships", "bob", {"role": "viewer"}, key=key)
    counts = house.ask("GET", "/status", key=key)["counts"]
    assert counts["Project" if "Project" in counts else "Dataset"]
    assert "Node" not in counts


def test_a_key_can_ask_where_it_is_what(house: House) -> None:
    key = person(house, "amy", red="viewer", blue="owner")
    said = house.ask("GET", "/me", key=key)
    assert (said["user"], said["projects"]) == ("amy", {"red": "viewer", "blue": "owner"})
    assert house.ask("GET", "/me", key=house.key("blue"))["projects"] == {"blue": "member"}
    assert house.ask("GET", "/me")["role"] == "admin"


def test_the_change_feed_names_the_person_and_the_key(house: House) -> None:
    house.put("system", "users", "ida", {})
    house.put("blue", "memberships", "ida", {"role": "member"})
    made = house.make_key("blue", user="ida")
    house.put("blue", "datasets", "idas", {}, key=made["key"])
    [event] = house.ask("GET", "/projects/blue/events?kind=datasets&name=idas")["events"][:1]
    assert event["actor"] == f"ida ({made['id']})"


def test_a_membership_that_ends_and_a_user_who_is_disabled_are_out_at_once(house: House) -> None:
    key = person(house, "joe", red="member", blue="member")
    house.ask("GET", "/projects/blue/workloads", key=key)
    house.ask("DELETE", "/projects/blue/memberships/joe")
    house.ask("GET", "/projects/blue/workloads", key=key, code=403)
    house.ask("GET", "/projects/red/workloads", key=key)
    house.put("system", "users", "joe", {"disabled": True})
    house.ask("GET", "/projects/red/workloads", key=key, code=401)
    house.put("system", "users", "joe", {"disabled": False})
    house.ask("GET", "/projects/red/workloads", key=key)


def test_nobody_makes_a_key_above_themselves_or_of_somebody_else(house: House) -> None:
    member, owner = house.key("red"), house.key("red", role="owner")
    house.put("system", "users", "victim", {})
    house.make_key("red", by=member, code=200)
    house.make_key("red", by=member, role="owner", code=403)
    house.make_key("red", by=owner, role="admin", code=403)
    house.make_key("red", by=owner, role="system", code=403)
    house.make_key("red", by=owner, user="victim", code=403)
    house.make_key("red", by=house.key("red", role="viewer"), role="viewer", code=403)
    house.make_key("blue", by=owner, code=403)


def test_a_members_key_made_by_a_person_is_that_persons(house: House) -> None:
    key = person(house, "kim", red="member")
    made = house.make_key("red", by=key)
    assert made["spec"]["user"] == "kim"
    house.ask("DELETE", "/projects/red/memberships/kim")
    house.ask("GET", "/projects/red/workloads", key=made["key"], code=403)


def test_a_key_with_a_budget_cannot_escape_it_by_making_another_even_after_rotation(house: House) -> None:
    made = house.make_key("red")
    house.put("red", "budgets", f"of-{made['id']}", {"key": made["id"], "tokens": 5})
    error = house.make_key("red", by=made["key"], code=403)["error"]
    assert "budget of its own" in error["message"]
    rotated = house.ask("POST", f"/projects/red/keys/{made['id']}/rotate", {}, key=made["key"])
    house.make_key("red", by=rotated["key"], code=403)


def test_what_a_key_may_is_changed_by_owners_only(house: House) -> None:
    made = house.make_key("red", models=["a"], limits={"parallel": 1}, priority="batch", expires_in_s=60)
    change = {
        "limits": None,
        "models": ["a", "b"],
        "priority": "high",
        "expires_in_s": None,
        "addresses": ["10.1.2.3/8"],
    }
    path = f"/projects/red/keys/{made['id']}"
    house.ask("PATCH", path, change, key=made["key"], code=403)
    house.ask("PATCH", path, change, key=house.key("blue", role="owner"), code=403)
    changed = house.ask("PATCH", path, change, key=house.key("red", role="owner"))["spec"]
    assert (changed["limits"], changed["models"], changed["priority"]) == (None, ["a", "b"], "high")
    assert (changed["expires_at"], changed["addresses"]) == (None, ["10.0.0.0/8"])
    described = house.ask("PATCH", path, {"description": "shop"})["spec"]
    assert described == {**changed, "description": "shop"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"addresses": ["not a network"]}, "spec.addresses"),
        ({"addresses": []}, "addresses"),
        ({"models": []}, "models"),
        ({"priority": "urgent"}, "spec.priority"),
        ({"limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ({"limits": {"per_minute": 1}}, "limits.per_minute"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"user": "nobody"}, "user"),
        ({"role": "admin"}, "role"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_what_a_key_cannot_be_is_refused_with_the_field(house: House, change: dict[str, Any], field: str) -> None:
    made = house.make_key("red")
    error = house.ask("PATCH", f"/projects/red/keys/{made['id']}", change, code=400)["error"]
    assert error["details"]["field"].startswith(field)


def test_administrators_keys_are_out_of_an_owners_reach(house: House) -> None:
    house.put("system", "projects", "shared", {})
    admin, owner = house.make_key("shared", role="admin"), house.key("shared", role="owner")
    path = f"/projects/shared/keys/{admin['id']}"
    for method, tail, body in (("PATCH", "", {"description": "x"}), ("DELETE", "", None), ("POST", "/rotate", {})):
        house.ask(method, path + tail, body, key=owner, code=403)
    house.ask("GET", "/projects/red/workloads", key=admin["key"])


def test_rotation_makes_an_equal_key_and_ends_the_old_one_after_the_overlap(house: House) -> None:
    bound = {"models": ["m"], "addresses": ["127.0.0.0/8"], "limits": {"parallel": 2}, "description": "shop"}
    old = house.make_key("red", role="owner", **bound)
    now = house.centre.clock.now()
    new = house.ask("POST", f"/projects/red/keys/{old['id']}/rotate", {"overlap_s": 100}, key=old["key"])
    assert new["replaces"] == old["id"]
    assert now + 99 < new["replaced_ends_at"] < now + 160
    for made in (old, new):
        house.ask("GET", "/projects/red/workloads", key=made["key"])
    equal = {**old["spec"], "replaces": old["id"]}
    assert new["spec"] == equal
    before = house.ask("GET", f"/projects/red/apikeys/{old['id']}")["spec"]
    assert before["expires_at"] == new["replaced_ends_at"]


def test_without_overlap_the_old_key_is_refused_at_once(house: House) -> None:
    old = house.make_key("red")
    new = house.ask("POST", f"/projects/red/keys/{old['id']}/rotate", {"overlap_s": 0})
    house.ask("GET", "/projects/red/workloads", key=old["key"], code=401)
    house.ask("GET", "/projects/red/workloads", key=new["key"])
    error = house.ask("POST", f"/projects/red/keys/{old['id']}/rotate", {}, code=409)["error"]
    assert "expired or revoked" in error["message"]


def test_rotation_does_not_prolong_unless_an_owner_says_so(house: House) -> None:
    old = house.make_key("red", expires_in_s=60)
    path = f"/projects/red/keys/{old['id']}/rotate"
    new = house.ask("POST", path, {"overlap_s": 3600}, key=old["key"])
    assert new["spec"]["expires_at"] == new["replaced_ends_at"] == old["spec"]["expires_at"]
    house.ask("POST", path, {"expires_in_s": 9000}, key=old["key"], code=403)
    longer = house.ask("POST", path, {"expires_in_s": 9000}, key=house.key("red", role="owner"))
    assert longer["spec"]["expires_at"] > old["spec"]["expires_at"]


def test_an_owner_cannot_become_another_person_by_rotating_their_key(house: House) -> None:
    person(house, "lee", red="member", blue="owner")
    made = house.make_key("red", user="lee", role="owner")
    owner = house.key("red", role="owner")
    house.ask("POST", f"/projects/red/keys/{made['id']}/rotate", {}, key=owner, code=403)
    house.ask("DELETE", f"/projects/red/keys/{made['id']}", key=owner)
    house.ask("GET", "/projects/blue/workloads", key=made["key"], code=401)


def test_the_list_of_keys_shows_no_secret_and_no_hash(house: House) -> None:
    made = house.make_key("blue", description="listed")
    items = house.ask("GET", "/projects/blue/keys")["items"]
    [item] = [item for item in items if item["name"] == made["id"]]
    assert item["last_used_at"] is None
    assert "sha256" not in json.dumps(items)
    assert made["key"] not in json.dumps(items)


def test_the_list_of_keys_tells_the_last_use_of_each(house: House) -> None:
    made, unused = house.make_key("blue"), house.make_key("blue")
    record = {
        **{"seq": 1, "ts": 1_700_000_000.5, "request_id": "r", "project": "blue", "key_id": made["id"], "model": "m"},
        **{"deployment": "d", "replica": "d-0", "endpoint": "chat", "prompt_tokens": 1, "completion_tokens": 1},
        **{"cached_tokens": 0, "status": "ok", "http_status": 200, "stream": False, "ttft_s": 0.1, "duration_s": 0.2},
    }
    house.ask("POST", "/gateway/usage", {"source": "g1", "records": [record]}, key=house.system)
    used = {item["name"]: item["last_used_at"] for item in house.ask("GET", "/projects/blue/keys")["items"]}
    assert used[made["id"]] == 1_700_000_000.5
    assert used[unused["id"]] is None


def test_gateways_are_told_what_the_lists_show(house: House) -> None:
    made = house.make_key("red", limits={"requests_per_minute": 3}, addresses=["10.0.0.0/8"], priority="high")
    snapshot = house.ask("GET", "/gateway/snapshot", key=house.system)
    [entry] = [entry for entry in snapshot["keys"].values() if entry["id"] == made["id"]]
    assert entry["projects"] == ["red"]
    assert entry["limits"]["requests_per_minute"] == 3
    assert (entry["addresses"], entry["priority"]) == (["10.0.0.0/8"], "high")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "10.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("::1", ["192.0.2.1"], "192.0.2.1"),
        ("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9", "192.0.2.1, 127.0.0.1"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9, junk"], "junk"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_only_this_machine_is_believed_about_whom_it_forwards_for(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert client_address(peer, forwarded) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "code"),
    [
        ("10.1.2.3", "", 200),
        ("192.0.2.1", "", 403),
        ("192.0.2.1", "10.1.2.3", 403),
        ("127.0.0.1", "10.1.2.3", 200),
        ("127.0.0.1", "192.0.2.1", 403),
        ("127.0.0.1", "10.1.2.3, 192.0.2.1", 403),
        ("127.0.0.1", "", 403),
    ],
)
def test_a_key_is_refused_from_where_it_may_not_be_used(house: House, peer: str, forwarded: str, code: int) -> None:
    key = house.key("red", addresses=["10.0.0.0/8"])
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    answer = house.ask("GET", "/projects/red/workloads", key=key, peer=peer, headers=headers, code=code)
    if code == 403:
        assert "may not be used from" in answer["error"]["message"]
