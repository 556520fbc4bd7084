"""References between steps: found, filled in with the value's own type, and only ever backwards."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resource
from atoll.training.references import fill_in, references
from atoll.training.resources import PIPELINE


def resource(name: str, **status: Any) -> Resource:
    times: dict[str, Any] = {"created_at": 0.0, "updated_at": 0.0, "deleting_at": None}
    return Resource("Thing", "p", name, "u", 1, 1, {}, None, {"size": 3}, status, **times)


STEPS = {"data": resource("docs", version="docs.v1", counts={"train": 7}, empty="")}


def test_a_reference_alone_takes_the_values_own_type() -> None:
    spec = {"a": "${steps.data.status.counts.train}", "b": ["${steps.data.status.counts}"], "c": 5}
    assert fill_in(spec, STEPS) == {"a": 7, "b": [{"train": 7}], "c": 5}


def test_references_within_text_become_text() -> None:
    text = "${steps.data.name} has ${steps.data.status.counts.train} of ${steps.data.spec.size}"
    assert fill_in(text, STEPS) == "docs has 7 of 3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${steps.model.name}", "step 'model' has not run .*steps before it: data"),
        ("${steps.data.status.loss}", "has no status.loss"),
        ("${steps.data.status.empty}", "has no status.empty"),
        ("${steps.data.status.version.x}", "has no status.version.x"),
        ("${steps.data}", r"is not a reference .*\$\{steps.NAME.status.FIELD\}"),
        ("${data.name}", "is not a reference"),
        ("${}", "is not a reference"),
        ("${steps.data.uid}", "is not a reference"),
        ("${steps.data.status.__class__}", "has no status.__class__"),
    ],
)
def test_a_reference_to_nothing_is_named(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        fill_in(f"x {text}", STEPS)
    with pytest.raises(Invalid, match=words):
        fill_in(text, STEPS)


def test_every_reference_of_a_spec_is_found() -> None:
    spec = {"a": "${steps.x.name}-${steps.y.status.z}", "b": [{"c": "${steps.z.spec.q.r}"}], "d": 1, "e": None}
    assert list(references(spec)) == [("x", "name"), ("y", "status.z"), ("z", "spec.q.r")]


def step(name: str, value: str = "", needs: list[str] | None = None) -> dict[str, Any]:
    return {"name": name, "kind": "Dataset", "spec": {"description": value}, "needs": needs}


def test_steps_may_refer_to_those_before_them() -> None:
    steps = [step("a"), step("b", "${steps.a.name}"), step("c", "${steps.a.name}", ["a", "b"])]
    assert len(PIPELINE.parse_spec({"steps": steps})["steps"]) == 3


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([step("a", "${steps.a.name}")], "step 'a' refers to 'a', steps before it: none"),
        ([step("a", "${steps.b.name}"), step("b")], "step 'a' refers to 'b'"),
        ([step("a"), step("b", needs=["c"])], "step 'b' refers to 'c', steps before it: a"),
        ([step("a"), step("a")], "two steps are called 'a'"),
        ([step("a", "${steps.b}")], "is not a reference"),
        ([], "steps"),
    ],
)
def test_a_pipeline_whose_references_go_forward_is_refused(steps: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        PIPELINE.parse_spec({"steps": steps})
