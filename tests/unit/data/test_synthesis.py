"""The life of a synthesis at the centre: one key, one workload, one dataset version, nothing left behind."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.errors import Invalid
from atoll.core.reconcile import Loop
from atoll.core.resources import Resource
from atoll.core.store import Create, SetSpec, SetStatus, Store
from atoll.data.resources import DATASET, DATASET_VERSION
from atoll.data.synthesis import KEY_KEPT_S, PASSED_ON, SYNTHESIS_RUN, SynthesisRunController
from atoll.governance.resources import API_KEY
from atoll.governance.secrets import Secrets
from atoll.server import kinds

assert kinds.DOMAINS
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(("book.v1", "exam.v1", "made"))}
RESULT = {
    "manifest": DIGESTS["made"],
    "counts": {"qa_train": 3, "qa_heldout": 1, "asked": 6, "tokens": 900},
    "funnel": [{"rule": "unsupported", "dropped": 2, "samples": []}],
    "reason": "",
}


class Office:
    """A store with datasets, and the controller of syntheses."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.clock = clock
        self.scope = store.everything("test")
        self.secrets = Secrets([bytes(32)])
        controllers = [SynthesisRunController(self.secrets, "http://door"), Collector()]
        self.loop = Loop(store, clock, controllers, random.Random(1))
        self.version("exam.v1")

    def version(self, name: str) -> None:
        dataset = name.partition(".")[0]
        spec = DATASET_VERSION.parse_spec({"dataset": dataset, "manifest": DIGESTS[name]})
        self.scope.write([Create("DatasetVersion", "red", name, spec, {"phase": "ready"})])
        self.scope.write(
            [Create("Dataset", "red", dataset, DATASET.parse_spec({}), {"phase": "ready", "latest": name})]
        )

    def begin(self, models: list[str] | None = None, **fields: Any) -> Resource:
        asker = API_KEY.parse_spec({"sha256": "0" * 64, "models": models, "limits": {"parallel": 2}})
        self.scope.write([Create("ApiKey", "red", "key-1", asker)])
        wanted = {"dataset": "book-qa", "source": "book", "model": "m", "creator": "red/key-1"}
        spec = SYNTHESIS_RUN.parse_spec(wanted | fields)
        self.scope.write([Create("SynthesisRun", "red", "s1", spec, {"phase": "pending"})])
        return self.run()

    def run(self) -> Resource:
        self.loop.take_changes()
        while self.loop.step():
            self.loop.take_changes()
        return self.scope.get("SynthesisRun", "s1", "red")

    def after(self, seconds: float) -> Resource:
        self.clock.advance(seconds)
        self.loop.resync()
        return self.run()

    def find(self, kind: str, name: str = "key-synthesisrun-s1") -> Resource | None:
        return self.scope.find(kind, name, "red")

    def workload(self, suffix: str = "") -> Resource:
        return self.scope.get("Workload", f"synthesisrun-s1{suffix}", "red")

    def report(self, phase: str, suffix: str = "", **status: Any) -> Resource:
        workload = self.workload(suffix)
        self.scope.write([SetStatus(workload, workload.status | {"phase": phase, **status})])
        return self.run()


@pytest.fixture
def office(sqlite_store: Store, clock: VirtualClock) -> Office:
    return Office(sqlite_store, clock)


def test_a_run_waits_for_its_documents_and_asks_with_a_key_of_its_own(office: Office) -> None:
    with pytest.raises(Invalid, match="source"):
        SYNTHESIS_RUN.parse_spec({"dataset": "book-qa", "model": "m"})
    office.version("book.v1")
    run = office.begin(judge="j", decontaminate=["exam", "/sets/exam.txt"], tokens_max=500)
    key, secret = office.find("ApiKey"), office.find("Secret")
    assert key is not None and secret is not None
    assert (key.owner, key.spec["models"], key.spec["priority"]) == (run.uid, ["m", "j"], "batch")
    assert key.spec["expires_at"] == pytest.approx(office.clock.now() + KEY_KEPT_S)
    assert (key.spec["charged_to"], key.spec["limits"]["parallel"]) == ("red/key-1", 2)
    (role,) = office.workload().spec["roles"]
    assert role["secrets"] == {"ATOLL_SYNTHESIS_KEY": "key-synthesisrun-s1/KEY"}
    told = role["input"]
    assert (told["manifest"], told["door"], told["project"]) == (DIGESTS["book.v1"], "http://door", "red")
    assert told["decontaminate"] == [DIGESTS["exam.v1"], "/sets/exam.txt"]
    assert {name: told[name] for name in PASSED_ON} == {name: run.spec[name] for name in PASSED_ON}


def test_one_that_succeeded_makes_one_version_with_its_parents_and_its_key_ends(office: Office) -> None:
    office.version("book.v1")
    office.begin()
    run = office.report("succeeded", result=RESULT | {"reason": "the budget of 500 tokens is used up"})
    assert (run.phase, run.status["dataset_version"]) == ("succeeded", "book-qa.v1")
    assert "500 tokens" in run.status["reason"]
    version = office.scope.get("DatasetVersion", "book-qa.v1", "red")
    assert (version.spec["parents"], version.spec["made_by"]) == (["book.v1"], "SynthesisRun/s1")
    office.after(1.0)
    key = office.find("ApiKey")
    assert key is not None and key.spec["revoked"]
    assert office.find("Secret") is None


def test_one_that_failed_tells_its_funnel(office: Office) -> None:
    office.version("book.v1")
    office.begin()
    error = {"details": {"funnel": RESULT["funnel"]}}
    run = office.report("failed", error=error, reason="none of 6 answers made a supported pair")
    assert (run.phase, run.status["funnel"]) == ("failed", RESULT["funnel"])
    office.after(1.0)
    assert office.find("Secret") is None


def test_a_changed_run_works_anew_with_a_key_that_is_valid_again(office: Office) -> None:
    office.version("book.v1")
    run = office.begin()
    office.report("succeeded", result=RESULT)
    office.after(1.0)
    run = office.scope.get("SynthesisRun", "s1", "red")
    office.scope.write([SetSpec(run, run.spec | {"seed": 1})])
    office.run()
    key = office.find("ApiKey")
    assert key is not None and not key.spec["revoked"]
    assert office.find("Secret") is not None
    run = office.report("succeeded", "-g2", result=RESULT)
    assert (run.phase, run.status["dataset_version"]) == ("succeeded", "book-qa.v1")


def test_a_dataset_nobody_has_is_refused(office: Office) -> None:
    run = office.begin(source="nothing")
    assert (run.phase, "no dataset 'nothing'" in run.status["reason"]) == ("failed", True)


@pytest.mark.parametrize("fields", [{"model": "other"}, {"judge": "other"}, {"creator": ""}, {"creator": "red/key-9"}])
def test_a_run_reaches_no_model_that_its_asker_may_not_call(office: Office, fields: dict[str, str]) -> None:
    office.version("book.v1")
    run = office.begin(models=["m"], **fields)
    assert run.phase == "failed" and ("key" in run.status["reason"]), run.status
    assert office.find("ApiKey") is None and office.scope.find_all("Workload") == []
