"""Deployments over a real store: revisions, canaries, scaling, adapters, and what happens when engines die."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.resources import Resource
from atoll.core.store import SetStatus, Store
from serving_centre import GIB, Serving, digest


@pytest.fixture
def serving(sqlite_store: Store, clock: VirtualClock) -> Serving:
    made = Serving(sqlite_store, clock)
    made.join("node-a")
    made.add_version("m.v1")
    return made


@pytest.fixture
def up(serving: Serving) -> Serving:
    """Two replicas of m.v1 that serve."""
    serving.deploy(replicas=2)
    serving.settle()
    return serving


def phase(serving: Serving) -> tuple[str, str]:
    status = serving.deployment().status
    return status["phase"], status["reason"]


AUTOSCALE: dict[str, Any] = {"min": 0, "max": 4, "concurrency": 2, "idle_s": 100, "scale_down_s": 30}


# life


def test_a_deployment_starts_its_replicas_and_is_ready(up: Serving) -> None:
    deployment = up.deployment()
    assert phase(up) == ("ready", "")
    assert (deployment.status["ready"], deployment.status["wanted"], deployment.status["version"]) == (2, 2, "m.v1")
    assert deployment.status["fit"].endswith("fits on node-a")
    revision = deployment.status["revision"]
    assert [r.name for r in up.replicas()] == [f"m-{revision}-0", f"m-{revision}-1"]
    assert up.served() == {"m.v1": 2}


def test_the_engine_gets_what_the_contract_says(up: Serving) -> None:
    (first, _) = up.tasks()
    told = first.spec["input"]
    file = {"name": "m.v1.gguf", "digest": digest("m.v1")}
    assert (told["model"], told["files"], told["adapters"], told["format"]) == (file, [file], [], "gguf")
    assert (told["alias"], told["task"], told["context"], told["slots"]) == ("m", "generate", 2048, 4)
    assert told["warm_up"] == {"enabled": True, "prompts": []}
    assert told["health"] == {"every_s": 5.0, "timeout_s": 30.0, "failures": 3}
    assert first.spec["command"] == ["{python}", "-m", "atoll.serving.engine.llamacpp"]
    assert first.spec["stop_grace_s"] == 30.0


def test_a_model_that_is_still_being_made_is_waited_for(serving: Serving) -> None:
    serving.add_version("slow.v1", phase="running")
    serving.deploy("s", model="slow.v1")
    assert serving.deployment("s").status["reason"] == "waiting for model 'slow.v1'"
    version = serving.scope.get("ModelVersion", "slow.v1", "p")
    serving.scope.write([SetStatus(version, version.status | {"phase": "ready"})])
    serving.run(2)
    assert len(serving.replicas("s")) == 1


def test_what_fits_nowhere_fails_with_the_numbers_and_starts_nothing(serving: Serving) -> None:
    serving.deploy(context=8_000_000, slots=256)
    assert phase(serving)[0] == "failed"
    assert "GiB are available: it does not fit" in phase(serving)[1]
    assert serving.replicas() == []
    assert serving.table()["m"]["hold"] is None, "it will not come by waiting"


def test_accelerators_are_counted_and_asked_for(serving: Serving) -> None:
    serving.deploy(accelerators=1)
    assert "needs 1 accelerators, node-a has 0" in phase(serving)[1]
    serving.join("node-g", devices=2)
    serving.run()
    (replica,) = serving.replicas()
    assert serving.tasks()[0].spec["resources"]["accelerators"] == 1
    assert replica.spec["memory_bytes"] <= 2 * GIB


def test_a_replica_that_dies_is_out_of_the_table_at_once_and_the_others_stay(up: Serving) -> None:
    before = {r["id"]: r for t in up.table()["m"]["targets"] for r in t["replicas"]}
    dying, _ = up.tasks()
    up.report(dying, "failed", exit_code=139)
    after = {r["id"]: r for t in up.table()["m"]["targets"] for r in t["replicas"]}
    assert len(after) == 1
    assert after.items() <= before.items()
    assert phase(up)[0] == "degraded"
    up.run(5)
    up.settle()
    assert (up.served(), phase(up)) == ({"m.v1": 2}, ("ready", ""))


def test_a_starting_replica_tells_how_far_it_is(serving: Serving) -> None:
    serving.deploy()
    progress = {"stage": "load", "done": 46, "total": 100, "unit": "byte", "message": "weights", "rate": 3}
    serving.report(serving.tasks()[0], "running", progress=progress)
    target = serving.table()["m"]["targets"][0]
    assert target["progress"] == {"stage": "load", "done": 45, "total": 100, "unit": "byte", "message": "weights"}
    serving.settle()
    serving.ready(serving.tasks()[0])
    assert serving.table()["m"]["targets"][0]["progress"] is None


def test_a_deleted_deployment_is_out_of_the_table_before_its_engines_end(up: Serving) -> None:
    up.delete("Deployment", "m")
    assert up.table() == {}
    assert [t.spec["stop"] for t in up.tasks()] == [True, True]
    up.settle()
    up.run(5)
    assert up.scope.find_all("Deployment") == up.scope.find_all("Workload") == []


def test_controllers_that_start_anew_change_nothing(up: Serving) -> None:
    head = up.store.head()
    up.restart()
    up.run(1)
    assert up.store.head() == head


# revisions


def test_a_new_version_takes_over_one_by_one_and_something_always_serves(up: Serving) -> None:
    fewest, most = [], []

    def look() -> None:
        fewest.append(sum(up.served().values()))
        most.append(len(up.replicas()))

    up.after_step = look
    up.add_version("m.v2")
    up.run()
    assert phase(up) == ("degraded", "0 of 2 replicas are up to date")
    up.settle()
    assert (up.served(), up.versions(), phase(up)) == ({"m.v2": 2}, ["m.v2", "m.v2"], ("ready", ""))
    assert (min(fewest), max(most)) == (2, 3)
    assert [e["version"] for e in up.deployment().status["revisions"]] == ["m.v2", "m.v1"]
    told = [e.partition(": ")[0] for e in up.events() if e.startswith("Rollout")]
    assert told == ["RolloutBegan", "RolloutDone"]


def test_controllers_that_die_after_every_write_come_to_the_same_end(up: Serving) -> None:
    fewest, heads = [], [up.store.head()]

    def die() -> None:
        if up.store.head() != heads[-1]:
            heads.append(up.store.head())
            fewest.append(sum(up.served().values()))
            up.restart()

    up.after_step = die
    up.deploy(model="m.v1", context=512, rollout={"keep_previous_s": 50})
    up.settle(20)
    assert (up.served(), phase(up)) == ({"m.v1": 2}, ("ready", ""))
    assert min(fewest) == 2


def test_what_does_not_reach_the_engine_makes_no_new_revision(up: Serving) -> None:
    before = [r.uid for r in up.replicas()]
    up.deploy(price={"input_per_million": 1}, hold={"queue_max": 1}, fallback=["other"], affinity="none")
    assert [r.uid for r in up.replicas()] == before
    assert up.deployment().status["observed_generation"] == 2


def test_a_version_that_does_not_start_leaves_the_old_one_serving_and_says_why(up: Serving) -> None:
    up.add_version("m.v2")
    up.broken.add("m.v2")
    for _ in range(6):
        up.settle(1)
        up.run(10)
    assert up.served() == {"m.v2": 2}, "both revisions answer under the name, and only old ones are ready"
    assert {r.spec["version"] for r in up.replicas() if r.status.get("url")} == {"m.v1"}
    assert phase(up)[0] == "degraded"
    assert phase(up)[1].startswith("m.v2 does not start, m.v1 serves on; ")
    assert "cannot load it" in phase(up)[1]
    assert up.deployment().status["rollout"] == "failed"


def test_a_reference_that_cannot_be_resolved_leaves_what_serves(up: Serving) -> None:
    up.deploy(model="nowhere")
    assert phase(up)[0] == "degraded"
    assert "there is no model 'nowhere'" in phase(up)[1]
    assert len(up.replicas()) == 2


def test_the_previous_version_stays_for_a_rollback_and_goes_when_its_time_is_over(up: Serving) -> None:
    up.deploy(rollout={"keep_previous_s": 100})
    up.add_version("m.v2")
    up.run()
    up.settle()
    assert up.versions() == ["m.v1", "m.v1", "m.v2", "m.v2"]
    assert (up.served(), phase(up)) == ({"m.v2": 2}, ("ready", ""))
    up.run(90)
    assert up.versions() == ["m.v1", "m.v1", "m.v2", "m.v2"]
    up.run(20)
    assert up.versions() == ["m.v2", "m.v2"]


def test_a_rollback_to_replicas_that_still_run_takes_no_start(up: Serving) -> None:
    up.deploy(rollout={"keep_previous_s": 100})
    up.add_version("m.v2")
    up.run()
    up.settle()
    _, previous = up.deployment().status["revisions"]
    up.deploy(**previous["spec"])
    assert (up.served(), phase(up)) == ({"m.v1": 2}, ("ready", ""))
    assert up.deployment().status["revision"] == previous["revision"]
    assert [t for t in up.tasks() if t.phase in ("pending", "starting")] == []


def test_a_rollback_sets_everything_back_that_made_the_revision(up: Serving) -> None:
    up.deploy(context=512, slots=1)
    up.settle()
    _, previous = up.deployment().status["revisions"]
    assert (previous["spec"]["context"], previous["spec"]["model"]) == (2048, "m.v1")
    up.deploy(**previous["spec"])
    up.settle()
    assert up.deployment().status["revision"] == previous["revision"]


def test_only_so_many_revisions_are_remembered(up: Serving) -> None:
    for context in range(256, 256 * 15, 256):
        up.deploy(context=context)
        up.settle()
    assert len(up.deployment().status["revisions"]) == 10


def test_where_there_is_no_room_for_surge_it_says_what_helps(serving: Serving) -> None:
    serving.deploy(cpu=60)
    serving.settle()
    serving.add_version("m.v2")
    serving.run()
    assert phase(serving)[0] == "degraded"
    assert "needs 60 cpu" in phase(serving)[1]
    assert phase(serving)[1].endswith("(rollout.surge 0 needs no more room than there is)")
    serving.deploy(rollout={"surge": 0})
    serving.settle()
    serving.run(5)
    serving.settle()
    assert (serving.served(), phase(serving)) == ({"m.v2": 1}, ("ready", ""))


# canaries


def test_a_canary_gets_its_part_once_it_is_ready(up: Serving) -> None:
    up.add_version("other.v1")
    up.deploy(canary={"model": "other.v1", "weight": 0.2})
    assert [t["weight"] for t in up.table()["m"]["targets"]] == [1.0]
    up.settle()
    main, canary = up.table()["m"]["targets"]
    assert (main["version"], main["weight"], len(main["replicas"])) == ("m.v1", 0.8, 2)
    assert (canary["version"], canary["weight"], len(canary["replicas"])) == ("other.v1", 0.2, 1)
    assert canary["id"] != main["id"]
    status = up.deployment().status
    assert (status["canary_version"], status["canary_ready"], status["ready"]) == ("other.v1", 1, 2)


def test_promoting_a_canary_uses_its_replicas_and_aborting_ends_them(up: Serving) -> None:
    up.add_version("other.v1")
    up.deploy(canary={"model": "other.v1", "weight": 0.2})
    up.settle()
    (canary,) = (r for r in up.replicas() if r.spec["version"] == "other.v1")
    up.deploy(model="other.v1", canary=None)
    up.settle()
    assert up.served() == {"other.v1": 2}
    assert canary.uid in {r.uid for r in up.replicas()}
    up.deploy(canary={"model": "m.v1", "weight": 0.5})
    up.settle()
    assert len(up.table()["m"]["targets"]) == 2
    assert up.served() == {"other.v1": 2, "m.v1": 1}
    up.deploy(canary=None)
    assert up.served() == {"other.v1": 2}
    assert up.versions() == ["other.v1", "other.v1"]


def test_a_canary_of_a_version_still_in_use_waits_for_the_rollout(up: Serving) -> None:
    up.add_version("m.v2")
    up.deploy(model="m.v2", canary={"model": "m.v1", "weight": 0.5})
    assert sum(up.served().values()) == 2
    up.settle()
    assert up.served() == {"m.v2": 2, "m.v1": 1}


def test_a_canary_that_does_not_start_takes_nothing_from_the_others(up: Serving) -> None:
    up.add_version("other.v1")
    up.broken.add("other.v1")
    up.deploy(canary={"model": "other.v1"})
    for _ in range(5):
        up.settle(1)
        up.run(5)
    assert up.served() == {"m.v1": 2}
    assert phase(up)[0] == "degraded"
    assert phase(up)[1].startswith("canary other.v1 does not start: ")


def test_a_promoted_canary_goes_through_the_next_rollout_like_any_other(up: Serving) -> None:
    up.add_version("other.v1")
    up.deploy(canary={"model": "other.v1"}, replicas=1)
    up.settle()
    up.deploy(model="other.v1", canary=None)
    up.settle()
    up.add_version("third.v1")
    up.deploy(model="third.v1")
    assert up.versions() == ["other.v1", "third.v1"]
    assert sum(up.served().values()) == 1


# scaling


def test_an_idle_deployment_falls_asleep_and_a_request_wakes_it(serving: Serving) -> None:
    serving.deploy(autoscale=AUTOSCALE)
    serving.settle()
    assert phase(serving) == ("ready", "")
    serving.run(110)
    serving.settle()
    assert serving.deployment().status["wanted"] == 0
    assert phase(serving) == ("asleep", "no request for 100 s; the next request wakes it")
    entry = serving.table()["m"]
    assert entry["hold"] == {"queue_max": 256, "wait_s": 120.0}
    assert entry["targets"][0]["replicas"] == []
    assert serving.load(queued=1) == [serving.deployment().uid]
    serving.run(6)
    assert phase(serving)[0] == "starting"
    serving.settle()
    assert serving.served() == {"m.v1": 1}
    assert "ScaledDown: 1 to 0 replicas: no request for 100 s" in serving.events()
    assert "ScaledUp: 0 to 1 replicas: 1 request came while it was asleep" in serving.events()


def test_it_grows_with_the_load_and_shrinks_after_it(serving: Serving) -> None:
    serving.deploy(autoscale=AUTOSCALE)
    serving.settle()
    for started in range(30):
        serving.load(outstanding=6, started_total=started)
        serving.run(2)
        serving.settle()
    assert serving.served() == {"m.v1": 3}
    for _ in range(40):
        serving.load(outstanding=1, started_total=30)
        serving.run(2)
        serving.settle()
    assert serving.served() == {"m.v1": 1}
    assert any(e.startswith("ScaledUp: 1 to 2") for e in serving.events())
    assert any("30 s" in e for e in serving.events() if e.startswith("ScaledDown"))


def test_a_steady_load_writes_nothing(serving: Serving) -> None:
    serving.deploy(autoscale=AUTOSCALE)
    serving.settle()
    for _ in range(60):
        serving.load(outstanding=2, started_total=7)
        serving.run(1)
    head = serving.store.head()
    for _ in range(30):
        serving.load(outstanding=2, started_total=7)
        serving.run(1)
    assert serving.store.head() == head


def test_replicas_follow_the_spec_without_autoscale(up: Serving) -> None:
    up.deploy(replicas=3)
    up.settle()
    assert up.served() == {"m.v1": 3}
    up.deploy(replicas=0)
    up.settle()
    assert phase(up) == ("ready", "no replicas are wanted")
    assert up.table()["m"]["hold"] is None


# adapters


def test_adapters_are_served_under_their_own_names(serving: Serving) -> None:
    serving.add_version("tuned.v1", base="m.v1")
    serving.deploy(adapters=[{"name": "tutor", "model": "tuned"}])
    serving.settle()
    (task,) = serving.tasks()
    assert [a["name"] for a in task.spec["input"]["adapters"]] == ["tutor"]
    target = serving.table()["tutor"]["targets"][0]
    assert (target["adapter"], target["version"], len(target["replicas"])) == (0, "tuned.v1", 1)
    assert serving.table()["m"]["targets"][0]["adapter"] is None


def test_a_deployed_adapter_comes_before_the_others_and_is_always_on(serving: Serving) -> None:
    serving.add_version("tuned.v1", base="m.v1")
    serving.add_version("second.v1", base="m.v1")
    serving.deploy(model="tuned.v1", adapters=[{"name": "second", "model": "second.v1"}])
    serving.settle()
    assert [a["name"] for a in serving.tasks()[0].spec["input"]["adapters"]] == ["m", "second"]
    assert serving.table()["second"]["targets"][0]["adapter"] == 1
    assert serving.tasks()[0].spec["input"]["model"]["name"] == "m.v1.gguf"


@pytest.mark.parametrize(
    ("model", "says"), [("m.v1", "is a model, not an adapter"), ("far.v1", "belongs to 'base.v1'")]
)
def test_an_adapter_of_another_model_is_refused(serving: Serving, model: str, says: str) -> None:
    serving.add_version("base.v1")
    serving.add_version("far.v1", base="base.v1")
    serving.deploy(adapters=[{"name": "tutor", "model": model}])
    assert phase(serving)[0] == "failed"
    assert says in phase(serving)[1]


def test_two_models_of_one_name_are_refused(serving: Serving) -> None:
    serving.add_version("tuned.v1", base="m.v1")
    serving.deploy(adapters=[{"name": "m", "model": "tuned.v1"}])
    assert "two models would be called 'm'" in phase(serving)[1]


# providers and routes


def one(serving: Serving, kind: str, name: str) -> Resource:
    return serving.scope.get(kind, name, "p")


def test_a_provider_is_ready_when_its_secret_is_there(serving: Serving) -> None:
    models = [{"name": "big", "model": "vendor/big-1", "context": 9000}]
    serving.provide("vendor", url="https://api.example.com/v1", secret="vendor/key", models=models)
    found = one(serving, "Provider", "vendor")
    assert (found.phase, "vendor/key" in found.status["reason"]) == ("failed", True)
    entry = serving.table()["big"]
    assert (entry["targets"][0]["replicas"], "vendor/key" in entry["reason"]) == ([], True)
    serving.secrets["p", "vendor/key"] = "sk-1"
    serving.restart()
    serving.run()
    assert one(serving, "Provider", "vendor").phase == "ready"
    assert serving.table()["big"]["targets"][0]["replicas"][0]["api_key"] == "sk-1"


def test_a_route_to_nothing_says_what_there_is(serving: Serving) -> None:
    serving.deploy()
    serving.route("best", ("m", 1.0), ("nothing", 1.0))
    assert one(serving, "Route", "best").phase == "failed"
    assert "'nothing'" in one(serving, "Route", "best").status["reason"]
    assert "there are: m" in one(serving, "Route", "best").status["reason"]
    serving.provide("late", url="http://x", models=[{"name": "nothing"}])
    assert one(serving, "Route", "best").phase == "ready"


def test_a_route_over_models_of_two_kinds_is_refused(serving: Serving) -> None:
    serving.provide("v", url="http://x", models=[{"name": "a"}, {"name": "b", "task": "embed"}])
    serving.route("mixed", ("a", 1.0), ("b", 1.0))
    assert "of different kinds: a is chat, b is embedding" in one(serving, "Route", "mixed").status["reason"]
