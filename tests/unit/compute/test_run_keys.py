"""A run's key may do what the run needs, is the run's alone, and ends with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atoll.compute.jobs import NotYet
from atoll.compute.resources import WORKLOAD
from atoll.compute.run_keys import (
    NAME_MAX,
    close_key,
    key_name,
    key_reference,
    open_charged_key,
    open_key,
    payer_of,
)
from atoll.core.clock import VirtualClock
from atoll.core.errors import Conflict, Forbidden
from atoll.core.reconcile import Writer
from atoll.core.resources import Resource
from atoll.core.store import Create, MarkDeleting, Remove, SetSpec, Store
from atoll.governance.keys import hash_of
from atoll.governance.resources import API_KEY, SECRET
from atoll.governance.secrets import Secrets

SPEC = WORKLOAD.parse_spec({"roles": [{"command": ["true"]}]})
HASH = "0" * 64


class Office:
    """A store with one run, which for the keys may be of any kind: here a Workload."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.clock = clock
        self.scope = store.everything("test")
        self.world = Writer(store, clock, "Workload", "test", None)
        self.secrets = Secrets([bytes(32)])
        self.run = self.make("r")

    def make(self, name: str) -> Resource:
        self.scope.write([Create("Workload", "red", name, SPEC, {"phase": "pending"})])
        return self.scope.get("Workload", name, "red")

    def open(self, *models: str, **options: Any) -> Resource:
        self.scope.write(open_key(self.run, models, self.secrets, self.world, expires_at=9e9, **options))
        return self.key

    def close(self) -> int:
        writes = close_key(self.run, self.world)
        self.scope.write(writes)
        return len(writes)

    @property
    def key(self) -> Resource:
        return self.scope.get("ApiKey", "key-workload-r", "red")

    @property
    def secret(self) -> Resource:
        return self.scope.get("Secret", "key-workload-r", "red")

    def value(self) -> str:
        return self.secrets.value(self.scope, "red", key_reference(self.run), owners=(self.run.uid,))


@pytest.fixture
def office(sqlite_store: Store, clock: VirtualClock) -> Office:
    return Office(sqlite_store, clock)


def test_a_key_may_call_the_runs_models_as_batch_work_and_its_value_is_in_a_secret(office: Office) -> None:
    key = office.open("m", "j", charged_to="red/key-1", limits={"requests_per_minute": 7})
    assert (key.owner, key.spec["models"], key.spec["priority"]) == (office.run.uid, ["m", "j"], "batch")
    assert (key.spec["role"], key.spec["expires_at"], key.spec["charged_to"]) == ("caller", 9e9, "red/key-1")
    assert key.spec["limits"]["requests_per_minute"] == 7
    assert (office.secret.owner, key_reference(office.run)) == (office.run.uid, "key-workload-r/KEY")
    assert hash_of(office.value()) == key.spec["sha256"]
    assert office.value() not in str(key.spec) + str(office.secret.spec)


def test_a_run_without_a_model_may_call_none_rather_than_all(office: Office) -> None:
    assert office.open().spec["models"] == ["-"]


def test_a_second_try_has_a_key_of_its_own_and_the_firsts_is_refused(office: Office) -> None:
    office.open("m")
    first = office.value()
    assert office.open("m").spec["sha256"] == hash_of(office.value()) != hash_of(first)


def test_a_key_ends_with_its_run_once(office: Office) -> None:
    office.open("m")
    assert [office.close(), office.close()] == [2, 0]
    assert office.key.spec["revoked"] and office.secret.is_deleting
    with pytest.raises(NotYet, match="key-workload-r"):
        office.open("m")
    office.scope.write([Remove(office.secret)])
    assert not office.open("m").spec["revoked"]


def test_a_key_under_an_older_name_ends_with_its_run_too(office: Office) -> None:
    spec = API_KEY.parse_spec({"sha256": HASH})
    office.scope.write([Create("ApiKey", "red", "key-r", spec, owner=office.run.uid)])
    assert office.close() == 1
    assert office.scope.get("ApiKey", "key-r", "red").spec["revoked"]


@pytest.mark.parametrize("kind", ["ApiKey", "Secret"])
def test_what_has_the_name_and_is_somebody_elses_is_left_alone(office: Office, kind: str) -> None:
    spec = API_KEY.parse_spec({"sha256": HASH}) if kind == "ApiKey" else SECRET.parse_spec({"sealed": "x"})
    office.scope.write([Create(kind, "red", "key-workload-r", spec)])
    with pytest.raises(Conflict, match=f"{kind}.*key-workload-r"):
        office.open("m")
    assert office.close() == 0


def test_names_that_are_too_long_stay_apart(office: Office) -> None:
    runs = [office.make("r" * 120 + end) for end in "ab"]
    names = [key_name(run) for run in runs]
    assert names[0] != names[1]
    assert {len(name) <= NAME_MAX for name in names} == {True}


def payer(office: Office, models: list[str] | None = None, expires_at: float | None = None) -> None:
    spec = API_KEY.parse_spec({"sha256": HASH, "models": models, "expires_at": expires_at})
    office.scope.write([Create("ApiKey", "red", "key-1", spec)])


def asked(office: Office, *models: str, creator: str = "red/key-1") -> Resource:
    return payer_of(replace(office.run, spec={"creator": creator}), models, office.world)


def test_who_asked_for_a_run_pays_while_the_key_is_valid_and_may(office: Office) -> None:
    with pytest.raises(Forbidden, match=r"red/key-1 asked for .* no longer valid"):
        asked(office, "m")
    payer(office, ["m"], office.clock.now() + 5)
    assert asked(office, "m").name == "key-1"
    with pytest.raises(Forbidden, match="may not call model 'n'"):
        asked(office, "m", "n")
    office.clock.advance(6)
    with pytest.raises(Forbidden, match="no longer valid"):
        asked(office, "m")


def test_a_key_that_is_revoked_or_going_pays_no_more(office: Office) -> None:
    payer(office)
    key = asked(office, "anything")
    office.scope.write([SetSpec(key, key.spec | {"revoked": True})])
    with pytest.raises(Forbidden):
        asked(office, "anything")
    office.scope.write([MarkDeleting(office.scope.get("ApiKey", "key-1", "red"))])
    with pytest.raises(Forbidden):
        asked(office, "anything")


@pytest.mark.parametrize("creator", ["", "red/"])
def test_a_run_nobody_asked_for_is_charged_to_nobody(office: Office, creator: str) -> None:
    with pytest.raises(Forbidden, match="does not say which key asked"):
        asked(office, creator=creator)


def test_a_charged_key_is_bound_as_the_one_that_pays(office: Office) -> None:
    limits = {"requests_per_minute": 3, "tokens_per_minute": None, "parallel": None}
    spec = API_KEY.parse_spec({"sha256": HASH, "models": ["m"], "limits": limits})
    office.scope.write([Create("ApiKey", "red", "key-1", spec)])
    run = replace(office.run, spec={"creator": "red/key-1"})
    with pytest.raises(Forbidden, match="may not call model 'j'"):
        open_charged_key(run, ["m", "j"], office.secrets, office.world, expires_at=9e9)
    office.scope.write(open_charged_key(run, ["m"], office.secrets, office.world, expires_at=9e9))
    made = office.key.spec
    assert (made["models"], made["charged_to"], made["limits"]) == (["m"], "red/key-1", spec["limits"])
