"""Pipelines: one step after another, each a resource of its own; a failed one stops the rest."""

from __future__ import annotations

import random
from typing import Any

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.errors import Invalid
from atoll.core.reconcile import Loop
from atoll.core.resources import Resource
from atoll.core.store import Create, Remove, SetSpec, SetStatus, Store
from atoll.data import resources as data
from atoll.governance.resources import API_KEY
from atoll.training.controllers import PipelineController
from atoll.training.resources import PIPELINE

assert data.DATASET


class Line:
    """A pipeline over datasets, whose phases a test sets."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store, self.clock = store, clock
        self.scope = store.everything("test")
        self.loop = Loop(store, clock, [PipelineController()], random.Random(1))

    def submit(self, *steps: dict[str, Any]) -> None:
        spec = PIPELINE.parse_spec({"steps": list(steps)})
        self.scope.write([Create("Pipeline", "p", "line", spec, {"phase": "pending"})])
        self.run()

    def run(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.loop.take_changes()
        while self.loop.step():
            self.loop.take_changes()

    @property
    def pipeline(self) -> Resource:
        return self.scope.get("Pipeline", "line", "p")

    def phases(self) -> dict[str, str]:
        return {s["name"]: s["phase"] for s in self.pipeline.status["steps"]}

    def made(self, name: str) -> Resource:
        return self.scope.get("Dataset", name, "p")

    def finish(self, name: str, phase: str = "ready", **status: Any) -> None:
        made = self.made(name)
        fields = {"phase": phase, "observed_generation": made.generation, **status}
        self.scope.write([SetStatus(made, made.status | fields)])
        self.run()

    def rerun(self) -> None:
        self.scope.write([SetSpec(self.pipeline, self.pipeline.spec | {"run": self.pipeline.spec["run"] + 1})])
        self.run()


@pytest.fixture
def line(sqlite_store: Store, clock: VirtualClock) -> Line:
    return Line(sqlite_store, clock)


def step(name: str, text: str = "", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "Dataset", "spec": {"description": text}, **fields}


def test_steps_run_one_after_another_and_hand_on_what_they_made(line: Line) -> None:
    line.submit(step("a"), step("b", "after ${steps.a.status.latest}"), step("c", "${steps.b.name}", resource="see"))
    assert line.phases() == {"a": "running", "b": "pending", "c": "pending"}
    assert line.pipeline.status["steps"][1]["reason"] == "waits for a"
    line.finish("line-a", latest="v1")
    assert line.made("line-b").spec["description"] == "after v1"
    line.finish("line-b")
    assert line.made("see").spec["description"] == "line-b"
    assert line.pipeline.phase == "running"
    line.finish("see")
    assert (line.pipeline.phase, set(line.phases().values())) == ("succeeded", {"succeeded"})
    assert line.made("line-a").owner is None


def test_steps_that_need_nothing_run_beside_each_other(line: Line) -> None:
    line.submit(step("a"), step("b", needs=[]), step("c", needs=["a", "b"]))
    assert line.phases() == {"a": "running", "b": "running", "c": "pending"}
    line.finish("line-b")
    assert line.pipeline.status["steps"][2]["reason"] == "waits for a"


def test_a_failed_step_stops_the_rest_and_says_why(line: Line) -> None:
    line.submit(step("a"), step("b"))
    line.finish("line-a", "failed", reason="no documents")
    assert (line.pipeline.phase, line.pipeline.status["reason"]) == ("failed", "step a: no documents")
    assert line.phases() == {"a": "failed", "b": "pending"}
    assert line.scope.find("Dataset", "line-b", "p") is None


def test_a_step_that_cannot_be_made_fails_in_words(line: Line) -> None:
    line.submit(step("a"), step("b", "${steps.a.status.latest}"), step("c"))
    line.finish("line-a")
    assert "has no status.latest" in line.pipeline.status["reason"]


@pytest.mark.parametrize(("kind", "words"), [("Nonsense", "there is no kind"), (API_KEY.name, "makes no apikeys")])
def test_a_step_of_a_kind_that_members_may_not_make_is_refused(line: Line, kind: str, words: str) -> None:
    with pytest.raises(Invalid, match=f"step 'a': .*{words}"):
        line.submit({"name": "a", "kind": kind})


def test_raising_the_run_clears_away_what_failed_and_keeps_what_succeeded(line: Line) -> None:
    line.submit(step("a"), step("b"))
    line.finish("line-a")
    line.finish("line-b", "failed", reason="unlucky")
    kept, failed = line.made("line-a"), line.made("line-b")
    line.rerun()
    assert line.phases() == {"a": "succeeded", "b": "running"}
    line.scope.write([Remove(line.made("line-b"))])
    line.run(1.0)
    assert line.made("line-a").uid == kept.uid
    assert line.made("line-b").uid != failed.uid
    line.finish("line-b")
    assert line.pipeline.phase == "succeeded"


def test_a_resource_that_is_there_with_the_same_spec_is_not_run_again(line: Line) -> None:
    spec = data.DATASET.parse_spec({"description": "same"})
    status = {"phase": "ready", "observed_generation": 1}
    line.scope.write([Create("Dataset", "p", "line-a", spec, status)])
    line.submit(step("a", "same"))
    assert (line.pipeline.phase, line.made("line-a").generation) == ("succeeded", 1)


def test_a_step_is_not_done_before_its_controller_has_seen_its_spec(line: Line) -> None:
    line.submit(step("a"))
    made = line.made("line-a")
    line.scope.write([SetStatus(made, {"phase": "ready", "observed_generation": made.generation - 1})])
    line.run()
    assert line.phases() == {"a": "running"}


def test_a_step_that_changes_under_its_pipelines_hands_is_no_failure(line: Line) -> None:
    """Another controller writes between the pipeline's read and its write: it looks again."""
    spec = data.DATASET.parse_spec({"description": "old"})
    line.scope.write([Create("Dataset", "p", "line-a", spec, {"phase": "pending"})])
    store, scope = line.store, line.scope
    writes = []

    class Racing(Store):
        def everything(self, actor: str = "system") -> Any:
            inner = store.everything(actor)
            real = inner.write

            def write(batch: Any, fence: Any = None) -> int:
                ops = list(batch)
                if not writes and any(isinstance(op, SetSpec) for op in ops):
                    writes.append(1)
                    made = scope.get("Dataset", "line-a", "p")
                    scope.write([SetStatus(made, {"phase": "running"})])
                return real(ops, fence)

            inner.write = write  # type: ignore[method-assign]
            return inner

    racing = Racing(store.database, line.clock)
    line.loop = Loop(racing, line.clock, [PipelineController()], random.Random(1))
    line.submit(step("a", "new"))
    assert writes
    assert line.phases() == {"a": "running"}
    assert line.made("line-a").spec["description"] == "new"
    assert "Failed" not in [e.reason for e in line.scope.events()]
