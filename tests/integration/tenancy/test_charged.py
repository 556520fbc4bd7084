"""A run is charged to, and bound like, the key that asked for it: the server says which, whatever the caller says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from atoll.compute.resources import WORKLOAD
from atoll.core.resources import KINDS, Resource
from atoll.core.store import Create
from atoll.data.resources import DATASET_VERSION
from atoll.data.synthesis import SYNTHESIS_RUN
from running import until
from small_datasets import dataset, document

from .conftest import House, opened

SPEC = {"dataset": "said", "source": "talk.v1", "model": "open"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of our own: runs begin here, and their workloads would be handed to others' nodes."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def talk(house: House) -> None:
    """A ready version to write about."""
    manifest = dataset(house.centre.blobs, house.home, {"train": [[document("a", "text of it")]]})
    spec = DATASET_VERSION.parse_spec({"dataset": "talk", "manifest": manifest})
    house.centre.store.everything("test").write([Create("DatasetVersion", "red", "talk.v1", spec)])
    until(lambda: find(house, "DatasetVersion", "talk.v1").phase == "ready", "the version to be ready")


def find(house: House, kind: str, name: str) -> Resource:
    return house.centre.store.scope("red").get(kind, name)


def put(house: House, name: str, key: str, **fields: Any) -> Resource:
    house.put("red", "synthesisruns", name, SPEC | fields, key=key)
    return find(house, "SynthesisRun", name)


def ended(house: House, name: str) -> Resource:
    until(lambda: find(house, "SynthesisRun", name).phase == "failed", "the run to fail")
    return find(house, "SynthesisRun", name)


def test_a_bound_key_reaches_no_other_model_through_a_run(house: House, talk: None) -> None:
    bound = house.make_key("red", models=["open"])
    put(house, "reaching", bound["key"], model="closed")
    assert f"key {bound['id']} may not call model 'closed'" in ended(house, "reaching").status["reason"]
    put(house, "judging", bound["key"], judge="closed", creator="default/admin")
    assert f"key {bound['id']} may not call model 'closed'" in ended(house, "judging").status["reason"]


def test_a_runs_key_is_charged_to_who_asked_and_limited_alike(house: House, talk: None) -> None:
    bound = house.make_key("red", models=["open"], limits={"requests_per_minute": 5})
    run = put(house, "allowed", bound["key"])
    assert run.spec["creator"] == f"red/{bound['id']}"
    until(lambda: house.centre.store.scope("red").find("ApiKey", "key-synthesisrun-allowed") is not None, "its key")
    made = find(house, "ApiKey", "key-synthesisrun-allowed").spec
    assert (made["charged_to"], made["models"]) == (f"red/{bound['id']}", ["open"])
    assert made["limits"]["requests_per_minute"] == 5


def test_another_member_takes_a_run_over_only_by_changing_what_is_asked(house: House, talk: None) -> None:
    ann, bob = house.make_key("red"), house.make_key("red", models=["open"])
    first = put(house, "shared", ann["key"], creator=f"red/{bob['id']}")
    assert first.spec["creator"] == f"red/{ann['id']}"
    house.ask("PUT", "/projects/red/synthesisruns/shared", {"spec": SPEC, "labels": {"note": "x"}}, key=bob["key"])
    same = find(house, "SynthesisRun", "shared")
    assert (same.spec["creator"], same.labels, same.generation) == (f"red/{ann['id']}", {"note": "x"}, 1)
    put(house, "shared", bob["key"], seed=2, creator=f"red/{ann['id']}")
    assert find(house, "SynthesisRun", "shared").spec["creator"] == f"red/{bob['id']}"
    put(house, "shared", bob["key"], seed=2, model="closed")
    assert f"key {bob['id']} may not call model 'closed'" in ended(house, "shared").status["reason"]


@pytest.mark.parametrize(("phase", "is_signed"), [("succeeded", False), ("failed", True)])
def test_a_run_of_before_is_signed_by_who_applies_it_again_unless_it_is_done(
    house: House, talk: None, phase: str, is_signed: bool
) -> None:
    spec = {name: value for name, value in SYNTHESIS_RUN.parse_spec(SPEC | {"seed": 7}).items() if name != "creator"}
    status = {"phase": phase, "observed_generation": 1}
    house.centre.store.everything("test").write([Create("SynthesisRun", "red", f"old-{phase}", spec, status)])
    made = house.make_key("red")
    run = put(house, f"old-{phase}", made["key"], seed=7)
    assert (run.generation, run.spec.get("creator", "")) == ((2, f"red/{made['id']}") if is_signed else (1, ""))


def pipeline(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"steps": list(steps)}


def test_a_pipeline_asks_in_the_name_of_who_asked_for_it(house: House, talk: None) -> None:
    ann, bob = house.make_key("red"), house.make_key("red", models=["open"])
    step = {"name": "write", "kind": "SynthesisRun", "spec": SPEC | {"model": "closed", "creator": f"red/{ann['id']}"}}
    nested = {"name": "in", "kind": "Pipeline", "spec": pipeline(step) | {"creator": f"red/{ann['id']}"}}
    for name, wanted in (("direct", step), ("nested", nested)):
        house.put("red", "pipelines", name, pipeline(wanted) | {"creator": f"red/{ann['id']}"}, key=bob["key"])
    for name in ("direct-write", "nested-in-write"):
        until(lambda name=name: house.centre.store.scope("red").find("SynthesisRun", name) is not None, "the run")
        assert find(house, "SynthesisRun", name).spec["creator"] == f"red/{bob['id']}"
        assert f"key {bob['id']} may not call model 'closed'" in ended(house, name).status["reason"]


@pytest.mark.parametrize("kind", sorted(kind.name for kind in KINDS if not kind.is_plain))
def test_a_pipeline_makes_nothing_its_author_may_not(house: House, kind: str) -> None:
    key, spec = house.key("red"), {"role": "admin", "sha256": "0" * 64}
    told = house.put(
        "red", "pipelines", "climbs", pipeline({"name": "up", "kind": kind, "spec": spec}), key=key, code=400
    )
    assert "a pipeline makes no" in told["error"]["message"]


def test_a_pipeline_from_before_that_was_checked_makes_nothing_either(house: House) -> None:
    step = {"name": "up", "kind": "ApiKey", "resource": "root", "spec": {"role": "admin", "sha256": "0" * 64}}
    spec = pipeline({"needs": None, **step}) | {"run": 0}
    house.centre.store.everything("test").write([Create("Pipeline", "red", "older", spec, {"phase": "pending"})])
    until(lambda: find(house, "Pipeline", "older").phase == "failed", "the pipeline to fail")
    assert "a pipeline makes no apikeys" in find(house, "Pipeline", "older").status["reason"]
    assert house.centre.store.scope("red").find("ApiKey", "root") is None


def test_a_pipeline_changes_nothing_the_platform_runs_for_another(house: House) -> None:
    store = house.centre.store.everything("test")
    store.write([Create("Dataset", "red", "owning", {"description": ""}, {})])
    role = {"command": ["true"]}
    spec = WORKLOAD.parse_spec({"roles": [role], "suspended": True})
    store.write([Create("Workload", "red", "owned", spec, {}, owner=find(house, "Dataset", "owning").uid)])
    mine = {"roles": [{"command": ["env"]}]}
    step = {"name": "take", "kind": "Workload", "resource": "owned", "spec": mine}
    house.put("red", "pipelines", "takes", pipeline(step), key=house.key("red"))
    until(lambda: find(house, "Pipeline", "takes").phase == "failed", "the pipeline to fail")
    assert "runs for another resource" in find(house, "Pipeline", "takes").status["reason"]
    assert find(house, "Workload", "owned").spec["roles"][0]["command"] == ["true"]
