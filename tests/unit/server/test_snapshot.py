"""The gateways' document: what is in it, made anew only where something changed, and cheap with many keys."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from atoll.core.clock import VirtualClock
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.settings import load
from atoll.core.store import Create, MarkDeleting, Note, SetSpec, SetStatus, Store
from atoll.governance.resources import API_KEY, BUDGET, MEMBERSHIP, PROJECT, USER
from atoll.server.snapshot import Snapshots
from atoll.serving.demand import Demand
from atoll.serving.resources import DEPLOYMENT, REPLICA

KINDS = {k.name: k for k in (API_KEY, BUDGET, MEMBERSHIP, PROJECT, USER, DEPLOYMENT, REPLICA)}


class Office:
    """A store with a few projects, and the snapshots made of it."""

    def __init__(self, store: Store, clock: VirtualClock, home: Path) -> None:
        self.store, self.clock = store, clock
        self.scope = store.everything("test")
        self.demand = Demand(store.database)
        self.snapshots = Snapshots(store, load({"home": str(home)}), self.demand)
        self.put("Project", "org", SYSTEM_PROJECT, weight=2.0, limits={"parallel": 5})
        self.put("Project", "p", SYSTEM_PROJECT, parent="org")

    def put(self, kind: str, name: str, project: str = "p", /, **spec: Any) -> Resource:
        known = self.scope.find(kind, name, project)
        parsed = KINDS[kind].parse_spec((known.spec if known else {}) | spec)
        self.scope.write([SetSpec(known, parsed) if known else Create(kind, project, name, parsed, {"phase": "ready"})])
        return self.scope.get(kind, name, project)

    def key(self, name: str, **spec: Any) -> str:
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.put("ApiKey", name, **{"sha256": digest, **spec})
        return digest

    def say(self, resource: Resource, **status: Any) -> None:
        found = self.scope.by_uid(resource.uid)
        assert found is not None
        self.scope.write([SetStatus(found, found.status | status)])

    def read(self) -> dict[str, Any]:
        made: dict[str, Any] = orjson.loads(self.snapshots.current().body)
        return made


@pytest.fixture
def office(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Office:
    return Office(sqlite_store, clock, tmp_path)


def test_the_document_has_all_parts_of_the_contract(office: Office) -> None:
    digest = office.key("k", priority="batch", addresses=["10.0.0.0/8"], limits={"parallel": 1}, models=["m"])
    made = office.read()
    assert set(made) == {"seen", "keys", "projects", "budgets", "models", "gateways", "limits"}
    assert set(made["limits"]) == {"body_bytes_max", "requests_per_key_max"}
    entry = made["keys"][digest]
    assert (entry["id"], entry["project"], entry["projects"], entry["role"]) == ("k", "p", ["p"], "member")
    assert (entry["priority"], entry["addresses"], entry["models"]) == ("batch", ["10.0.0.0/8"], ["m"])
    assert entry["limits"]["parallel"] == 1
    assert made["projects"]["org"] == {
        "limits": {"requests_per_minute": None, "tokens_per_minute": None, "parallel": 5},
        "weight": 2.0,
    }
    assert "system" not in made["projects"]


def test_a_request_is_charged_on_the_whole_way_up(office: Office) -> None:
    digest = office.key("k")
    above = office.put("Budget", "above", "org", money=1.0, currency="USD")
    own = office.put("Budget", "own", "p", tokens=5)
    keyed = office.put("Budget", "keyed", "p", key="k", tokens=5, money=2.0)
    hours = office.put("Budget", "hours", "p", accelerator_hours=1.0)
    made = office.read()
    assert made["keys"][digest]["budgets"] == {"p": [keyed.uid, own.uid, above.uid]}
    assert made["budgets"][above.uid] == {"name": "above", "project": "org", "units": ["money"], "currency": "USD"}
    assert made["budgets"][keyed.uid]["units"] == ["tokens", "money"]
    assert hours.uid not in made["budgets"], "charged at the centre"


def test_a_persons_key_acts_in_all_projects_of_the_person(office: Office) -> None:
    office.put("Project", "q", SYSTEM_PROJECT)
    office.put("User", "ann", SYSTEM_PROJECT)
    office.put("Membership", "ann", role="member")
    office.put("Membership", "ann", "q", role="member")
    digest = office.key("k", user="ann")
    budget = office.put("Budget", "b", "q", tokens=1)
    entry = office.read()["keys"][digest]
    assert entry["projects"] == ["p", "q"]
    assert entry["budgets"] == {"q": [budget.uid]}


def test_the_number_follows_the_content(office: Office) -> None:
    first = office.snapshots.current()
    assert office.snapshots.current() is first
    digest = office.key("k")
    assert office.snapshots.current().seen != first.seen
    office.put("ApiKey", "k", revoked=True)
    assert digest not in office.read()["keys"]
    assert office.snapshots.current().seen == first.seen, "the same content has the same number"
    again = Snapshots(office.store, load({}), office.demand)
    assert again.current().seen == first.seen


def test_only_what_changed_is_made_again(office: Office) -> None:
    office.key("k")
    deployment = office.put("Deployment", "m", model="m")
    replica = office.put("Replica", "m-r-0", deployment="m", index=0, version="v", engine="llamacpp", input={})
    made = office.snapshots.current()
    budget = office.put("Budget", "b", tokens=1)
    made = office.snapshots.current()
    key = office.scope.get("ApiKey", "k", "p")
    for writes in ([Note(deployment, "Word")], [SetStatus(budget, {"phase": "x"})], [SetStatus(key, {"phase": "x"})]):
        office.scope.write(writes)
        assert office.snapshots.current() is made
    keys = office.snapshots._parts[0].data
    office.say(replica, url="http://1")
    assert office.read()["models"]["p"]["m"]["targets"][0]["replicas"][0]["url"] == "http://1"
    assert office.snapshots._parts[0].data is keys


def test_what_is_being_deleted_is_gone(office: Office) -> None:
    deployment, budget = office.put("Deployment", "m", model="m"), office.put("Budget", "b", tokens=1)
    office.scope.write([MarkDeleting(deployment), MarkDeleting(budget)])
    made = office.read()
    assert (made["models"], made["budgets"]) == ({}, {})


def test_changes_that_were_forgotten_meanwhile_are_not_missed(office: Office) -> None:
    office.snapshots.current()
    digest = office.key("k")
    office.put("Project", "late", SYSTEM_PROJECT)
    office.store.forget_changes(office.store.head() - 1)
    made = office.read()
    assert digest in made["keys"]
    assert "late" in made["projects"]


def test_gateway_hosts_are_counted_while_they_are_heard(office: Office) -> None:
    assert office.read()["gateways"] == 1
    for source, host in (("a", "one"), ("b", "one"), ("c", "two")):
        office.demand.report(source, host, {}, office.clock.now())
    assert office.read()["gateways"] == 2
    office.clock.advance(30)
    assert office.read()["gateways"] == 1


def test_ten_thousand_keys_are_read_once(office: Office) -> None:
    spec = API_KEY.parse_spec({"sha256": "0" * 64})
    digests = [hashlib.sha256(bytes([i >> 8, i & 255])).hexdigest() for i in range(10_000)]
    office.scope.write(Create("ApiKey", "p", f"k{i}", spec | {"sha256": d}) for i, d in enumerate(digests))
    replica = office.put("Replica", "m-r-0", deployment="m", index=0, version="v", engine="llamacpp", input={})
    office.put("Deployment", "m", model="m")
    assert len(office.read()["keys"]) == 10_000
    costs_s = []
    for turn in range(5):
        office.say(replica, url=f"http://{turn}")
        began = time.thread_time()
        office.snapshots.current()
        costs_s.append(time.thread_time() - began)
    assert min(costs_s) < 0.02
