"""A run is charged to, and bound like, the key that asked for it: the server says which, whatever the caller says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from atoll.core.resources import Resource
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
    until(lambda: find(house, "DatasetVersion", "talk.v1").phase == "ready", "the version to be ready", 20)


def find(house: House, kind: str, name: str) -> Resource:
    return house.centre.store.scope("red").get(kind, name)


def put(house: House, name: str, key: str, **fields: Any) -> Resource:
    house.put("red", "synthesisruns", name, SPEC | fields, key=key)
    return find(house, "SynthesisRun", name)


def ended(house: House, name: str) -> Resource:
    until(lambda: find(house, "SynthesisRun", name).phase == "failed", "the run to fail", 20)
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
    until(lambda: house.centre.store.scope("red").find("ApiKey", "key-synthesisrun-allowed") is not None, "its key", 20)
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
