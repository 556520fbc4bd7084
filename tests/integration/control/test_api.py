"""What gateways report and what people plan, through the real application."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from atoll.core import reconcile
from atoll.core.resources import Resource
from atoll.core.store import SetStatus
from atoll.server import api
from atoll.serving import controllers
from running import until

from .conftest import Office

SLEEPY = {"autoscale": {"min": 0, "max": 2, "idle_s": 0.5, "scale_down_s": 1}, "cpu": 0.1}


def has_replicas(office: Office, deployment: Resource) -> bool:
    return any(r.kind == "Replica" and not r.is_deleting for r in office.scope.children(deployment.uid))


@pytest.fixture
def nothing_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who sleeps is looked at again unless something is said of it."""
    monkeypatch.setattr(controllers, "IDLE_LOOK_S", 3600.0)
    monkeypatch.setattr(reconcile.Loop, "resync", lambda self: None)


def test_a_request_that_is_held_wakes_a_sleeper_at_once(office: Office, nothing_by_time: None) -> None:
    sleeper = office.deploy("sleeper", **SLEEPY)
    office.reaches("sleeper", "asleep")
    until(lambda: not has_replicas(office, sleeper), "its replicas to go")
    office.report(targets={sleeper.uid: {"outstanding": 0, "queued": 1, "started_total": 0, "tokens_total": 0}})
    until(lambda: has_replicas(office, sleeper), "a replica, long before the next look at it")
    events = [e.reason for e in office.scope.events(uids=[sleeper.uid])]
    assert "Woken" in events
    assert "ScaledUp" in events


def test_who_names_no_version_never_hears_that_a_controller_wrote_in_between(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, price = "/projects/default/prices/moving", {"spec": {"model": "m"}}
    first = office.ask("PUT", path, price)["version"]
    planned, turns = api._planned, iter(range(2))

    def slowly(tenant: Any, manifest: Any) -> Any:
        made = planned(tenant, manifest)
        for turn in itertools.islice(turns, 1):
            office.scope.write([SetStatus(office.scope.get("Price", "moving", "default"), {"turn": turn})])
        return made

    monkeypatch.setattr(api, "_planned", slowly)
    assert office.ask("PUT", path, price | {"labels": {"a": "b"}})["labels"] == {"a": "b"}
    assert list(turns) == []
    office.ask("PUT", path, price | {"version": first}, code=409)


def test_reports_reach_the_autoscaler_and_count_hosts(office: Office) -> None:
    office.report(targets={"t": {"outstanding": 3, "queued": 2, "ttft_p95_s": 0.25}})
    office.report(source="gw-2", host="other", targets={"t": {"outstanding": 1}})
    load = office.centre.demand.of("t", office.centre.clock.now())
    assert (load.outstanding, load.queued, load.ttft_p95_s) == (4, 2, 0.25)
    made = office.ask("GET", "/gateway/snapshot", key=office.system)
    assert made["gateways"] == 2


@pytest.mark.parametrize(
    ("report", "field"),
    [
        ({"source": ""}, "source"),
        ({"targets": {"t": {"queued": -1}}}, "targets.t.queued"),
        ({"targets": {"t": {"ttft_p95_s": -1}}}, "targets.t.ttft_p95_s"),
        ({"targets": {"x" * 65: {}}}, "targets"),
        ({"more": 1}, "more"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused_by_name(office: Office, report: dict[str, Any], field: str) -> None:
    assert office.report(**report, code=400)["error"]["details"]["field"].startswith(field)


def test_only_the_platforms_own_parts_may_report_or_read_the_snapshot(office: Office) -> None:
    member = office.ask("POST", "/projects/default/keys", {"description": "member"})["key"]
    office.ask("POST", "/gateway/load", {"source": "x", "targets": {}}, key=member, code=403)
    for key in (member, office.admin):  # not even an administrator sees the keys of engines and providers
        office.ask("GET", "/gateway/snapshot", key=key, code=403)


def test_a_poll_waits_until_something_changes(office: Office) -> None:
    seen = office.ask("GET", "/gateway/snapshot", key=office.system)["seen"]
    answers: list[Any] = []

    def poll() -> None:
        number = seen
        while not answers or "polled" not in answers[-1]["models"].get("default", {}):
            answers.append(office.ask("GET", f"/gateway/snapshot?seen={number}&wait_s=10", key=office.system))
            number = answers[-1]["seen"]

    thread = threading.Thread(target=poll)
    thread.start()
    office.deploy("polled", replicas=0)
    thread.join(120)
    assert "polled" in answers[-1]["models"]["default"]


def plan(office: Office, **spec: Any) -> Any:
    return office.ask("POST", "/projects/default/plan/serving", {"spec": {"model": "m.v1", **spec}})


def test_a_plan_says_what_is_needed_and_where_it_fits(office: Office) -> None:
    made = plan(office, context=1024, slots=2, cpu=0.01)
    assert (made["fits"], made["fits_now"], made["best"], made["engine"]) == (True, True, "n", "llamacpp")
    needed = made["needed"]
    parts = ("weights_bytes", "adapters_bytes", "kv_bytes", "compute_bytes", "prompt_cache_bytes")
    assert needed["total_bytes"] == sum(needed[part] for part in parts)
    assert needed["kv_per_slot_bytes"] * 2 == needed["kv_bytes"]
    assert made["nodes"][0]["has"]["memory_bytes"] == 4 << 30
    assert made["suggestions"] == []


def test_a_plan_that_does_not_fit_says_what_would(office: Office) -> None:
    wanted = {"context": 65_536, "slots": 16}
    made = plan(office, **wanted)
    assert (made["fits"], made["best"]) == (False, None)
    first = made["suggestions"][0]
    assert plan(office, **(wanted | {first["field"]: first["value"]}))["fits"] is True


def test_a_plan_for_a_model_on_its_way_cannot_be_made_yet(office: Office) -> None:
    made = plan(office, model="slow.v1")
    assert (made["fits"], made["summary"]) == (None, "cannot be said yet: waiting for model 'slow.v1'")


def test_a_plan_with_a_wrong_field_or_model_names_it(office: Office) -> None:
    body = {"spec": {"model": "m.v1", "contexts": 1}}
    assert "spec.context" in str(office.ask("POST", "/projects/default/plan/serving", body, code=400))
    missing = {"spec": {"model": "mm"}}
    assert "nearest: m" in str(office.ask("POST", "/projects/default/plan/serving", missing, code=404))
    engine = {"spec": {"model": "m.v1", "engine": "vllm"}}
    assert "does not serve 'gguf' models" in str(office.ask("POST", "/projects/default/plan/serving", engine, code=400))


def test_plans_are_made_only_for_those_who_may_read_the_project(office: Office) -> None:
    key = office.ask("POST", "/projects/other/keys", {"description": "tenant"})["key"]
    office.ask("POST", "/projects/default/plan/serving", {"spec": {"model": "m.v1"}}, key=key, code=403)
