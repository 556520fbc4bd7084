"""The process that writes questions, against a model server that is truthful, evil, slow, busy or cut off."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from atoll.core.errors import Invalid, Unavailable
from atoll.data.engine.compose.split import hash_ids
from atoll.data.engine.compose.split import sides as split_sides
from atoll.data.engine.synthesis.run import synthesise
from atoll.data.engine.synthesis.wanted import Wanted
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import SPLITS, Manifest, Split, read_manifest, read_split, write_manifest
from integration.synthesis.author import (
    Author,
    Body,
    Reply,
    completion,
    error,
    honest,
    passage_in,
    said_in,
    sentence_in,
    written,
)
from integration.synthesis.conftest import dataset, english
from running import until
from task_folder import TaskFolder

KEY = {"ATOLL_SYNTHESIS_KEY": "sk-atoll-test"}
Given = dict[str, Any]
Result = dict[str, Any]


def run(folder: TaskFolder, wanted: Given, **changed: Any) -> Result:
    """One attempt, in this process."""
    work = folder.root / "work"
    work.mkdir(exist_ok=True)
    return synthesise(Wanted.of(wanted | changed), "sk-atoll-test", folder.store, work)


def rows(folder: TaskFolder, result: Result, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_split(folder.store, result["manifest"], split).to_pylist()
    return found


def dropped(result: Result) -> dict[str, int]:
    return {step["rule"]: step["dropped"] for step in result["funnel"]}


def test_supported_pairs_become_a_dataset_that_keeps_their_spans_and_sides(
    folder: TaskFolder, model: Author, wanted: Given
) -> None:
    result = run(folder, wanted)
    assert (result["counts"]["qa_train"], result["counts"]["qa_heldout"], result["funnel"]) == (16, 8, [])
    texts = {side: {row["id"]: row["text"] for row in rows(folder, result, side)} for side in ("train", "heldout")}
    for side in texts:
        found = rows(folder, result, f"qa_{side}")
        assert [row["id"] for row in found] == [f"{name}#s{n}" for name in texts[side] for n in (1, 2)]
        for row in found:
            assert texts[side][row["document"]][row["span_start"] : row["span_end"]] == row["evidence"] == row["answer"]
            assert row["support"] == 1.0
    manifest = read_manifest(folder.store, result["manifest"])
    assert (manifest.parents, manifest.licence) == ([wanted["manifest"]], "CC0-1.0")
    assert {h["authorization"] for h in model.headers} == {"Bearer sk-atoll-test"}
    assert {h["x-atoll-priority"] for h in model.headers} == {"batch"}
    assert {h["openai-project"] for h in model.headers} == {"red"}
    assert model.running_most <= 4
    bounds = [p["maxLength"] for b in model.asked for p in schema(b)["properties"].values()]
    assert bounds and max(bounds) <= 600


def schema(body: Body) -> dict[str, Any]:
    found: dict[str, Any] = body["response_format"]["json_schema"]["schema"]
    return found


def test_whatever_the_order_and_number_of_writers_the_dataset_is_the_same(folder: TaskFolder, wanted: Given) -> None:
    digests = set()
    for parallel in (1, 7):
        digests.add(run(folder, wanted, parallel=parallel)["manifest"])
        for left in (folder.root / "work").glob("synthesis*"):
            left.unlink()
    assert len(digests) == 1


def garbage(body: Body, count: int) -> Reply:
    """A different misdeed for each document."""
    sentence = sentence_in(body)
    true = written(body)
    wrong = {
        "doc0": "I'm sorry, but I can't do that.",
        "doc1": "{'question': 'single quotes?'}",
        "doc2": json.dumps({"question": "What is it about?"}),
        "doc4": json.dumps(true | {"evidence": "The harbour was built by giants from another planet."}),
        "doc5": json.dumps(true | {"answer": "The lighthouse is 9999 metres tall."}),
        "doc6": json.dumps(true | {"answer": "Elephants migrate across frozen deserts searching bananas."}),
        "doc8": json.dumps(true | {"question": "What does the text say about it?"}),
        "doc9": "",
        "doc10": json.dumps(true | {"answer": "港口有一座灯塔。", "question": "港口有什么建筑物"}),
    }
    for number in range(12):
        marks = (f"Harbour {number} ", f"village {number} ", f"Museum {number} ")
        if any(mark in sentence for mark in marks) and f"doc{number}" in wrong:
            return completion(wrong[f"doc{number}"])
    return honest(body, count)


def test_garbage_is_refused_for_what_it_is_after_a_second_try(folder: TaskFolder, model: Author, wanted: Given) -> None:
    model.decide = garbage
    result = run(folder, wanted)
    kinds = ("refused", "not_json", "wrong_shape", "evidence_not_found", "strange_number", "unsupported")
    more = ("refers_to_text", "no_answer", "wrong_language")
    assert dropped(result) == dict.fromkeys((*kinds, *more), 2)
    assert result["counts"]["qa_train"] + result["counts"]["qa_heldout"] == 6
    assert len(model.asked) == 6 + 18 * 2
    assert any("giants" in sample for step in result["funnel"] for sample in step["samples"])


def test_an_answer_that_is_cut_off_is_asked_again(folder: TaskFolder, model: Author, wanted: Given) -> None:
    seen: set[int] = set()

    def decide(body: Body, count: int) -> Reply:
        status, value, _ = honest(body, count)
        is_first = body["seed"] not in seen
        seen.add(body["seed"])
        if is_first and body["seed"] % 4 == 0:  # the connection ends before the body does
            return status, json.dumps(value).encode()[:40], {"Content-Length": "4000"}
        return completion('{"question": "Wha', finish="length") if body["seed"] % 4 == 1 else honest(body, count)

    model.decide = decide
    result = run(folder, wanted)
    made = result["counts"]["qa_train"] + result["counts"]["qa_heldout"]
    assert made + dropped(result).get("cut_off", 0) == 24
    assert made > 16
    assert len(model.asked) > 24


def test_a_door_that_pushes_back_is_asked_again_and_nothing_is_lost(
    folder: TaskFolder, model: Author, wanted: Given
) -> None:
    def decide(body: Body, count: int) -> Reply:
        if count in (2, 5):
            return error(429, "busy", **{"Retry-After": "1"})
        return error(503, "no replica") if count in (7, 8) else honest(body, count)

    model.decide = decide
    result = run(folder, wanted)
    assert (result["counts"]["asked"], result["funnel"]) == (24, [])


def test_a_failing_engine_is_believed_after_some_tries(folder: TaskFolder, model: Author, wanted: Given) -> None:
    def decide(body: Body, count: int) -> Reply:
        return error(500, "broken") if "lighthouse of 20 " in sentence_in(body) else honest(body, count)

    model.decide = decide
    result = run(folder, wanted | {"per_document": 3, "attempts": 1})
    assert dropped(result) == {"model_failed": 1}


def test_the_budget_is_kept_and_what_is_over_it_is_counted(folder: TaskFolder, model: Author, wanted: Given) -> None:
    result = run(folder, wanted | {"tokens_max": 2600})
    assert result["counts"]["tokens"] == 100 * len(model.asked) <= 2600
    assert "budget of 2600 tokens" in result["reason"]
    assert 0 < dropped(result)["not_asked"] == 24 - len(model.asked)
    first = [row["document"] for split in ("qa_train", "qa_heldout") for row in rows(folder, result, split)]
    assert len(set(first)) > min(12, len(first)) - wanted["parallel"]  # as many may wait with a number in hand


def test_a_budget_of_the_project_that_is_used_up_ends_it_with_what_there_is(
    folder: TaskFolder, model: Author, wanted: Given
) -> None:
    model.decide = lambda body, count: (
        honest(body, count) if count <= 5 else error(429, "the budget team is used up", "insufficient_quota")
    )
    result = run(folder, wanted | {"parallel": 1})
    assert "team is used up" in result["reason"]
    assert result["counts"]["qa_train"] + result["counts"]["qa_heldout"] == 5


def test_a_budget_that_was_used_up_before_is_the_reason_of_the_failure(
    folder: TaskFolder, model: Author, wanted: Given
) -> None:
    model.decide = lambda body, count: error(429, "the budget team is used up", "insufficient_quota")
    with pytest.raises(Invalid, match=r"the budget team is used up; until then no pair was made: not_asked 24"):
        run(folder, wanted)


def test_a_model_that_goes_away_ends_it_with_what_there_is(folder: TaskFolder, model: Author, wanted: Given) -> None:
    def decide(body: Body, count: int) -> Reply:
        if count <= 5:
            return honest(body, count)
        model.model_status = 404
        return error(404, "there is no model 'author'", "model_not_found")

    model.decide = decide
    result = run(folder, wanted | {"parallel": 1, "known_within_s": 0.0})
    assert result["reason"] == "model 'author' is gone: 404: there is no model 'author'"
    assert result["counts"]["qa_train"] + result["counts"]["qa_heldout"] == 5
    assert dropped(result) == {"not_asked": 19}


def test_a_model_that_comes_back_is_asked_on(folder: TaskFolder, model: Author, wanted: Given) -> None:
    def decide(body: Body, count: int) -> Reply:
        model.model_status = 404 if count == 6 else 200
        return error(404, "there is no model 'author'") if count == 6 else honest(body, count)

    model.decide = decide
    result = run(folder, wanted | {"parallel": 1, "attempts": 1})
    assert (result["reason"], result["funnel"]) == ("", [])


def test_a_judge_has_a_say(folder: TaskFolder, model: Author, wanted: Given) -> None:
    def decide(body: Body, count: int) -> Reply:
        if body["model"] != "judge":
            return honest(body, count)
        asked = said_in(body).split(">>>")[1]
        said = "no" if "Museum" in asked or "博物馆" in asked else "yes"
        return completion(json.dumps({"supported": said}))

    model.decide = decide
    result = run(folder, wanted | {"judge": "judge", "per_document": 3, "attempts": 1})
    assert dropped(result) == {"judged_unsupported": 12}
    assert all("Museum" not in row["answer"] for row in rows(folder, result, "qa_train"))


def test_instructions_come_with_the_passage_they_are_about(folder: TaskFolder, wanted: Given) -> None:
    result = run(folder, wanted | {"kinds": ["instruction"], "per_document": 1})
    for row in rows(folder, result, "qa_train"):
        instruction, _, passage = row["question"].partition("\n\n")
        assert instruction == "Say shortly what this is about."
        assert row["evidence"] in passage
        assert row["kind"] == "instruction"


def test_equal_questions_stay_once_and_held_out_ones_win(folder: TaskFolder, model: Author, wanted: Given) -> None:
    def decide(body: Body, count: int) -> Reply:
        value = written(body)
        if "lighthouse" in value["answer"]:
            value["question"] = "What stands above grey rocks?"
        return completion(json.dumps(value))

    model.decide = decide
    result = run(folder, wanted | {"per_document": 3})
    asked = [row for split in ("qa_heldout", "qa_train") for row in rows(folder, result, split)]
    kept = [row for row in asked if row["question"] == "What stands above grey rocks?"]
    assert [row["document"] for row in kept] == ["doc8"]
    assert dropped(result) == {"duplicate_question": 8}


def test_pairs_that_share_text_with_an_evaluation_set_are_left_out(folder: TaskFolder, wanted: Given) -> None:
    exam = folder.root / "exam.txt"
    exam.write_text("Fishermen of village 0 repair nets beneath Pacific palm trees every autumn evening.\n")
    result = run(folder, wanted | {"decontaminate": [str(exam)], "per_document": 3})
    assert dropped(result) == {"contaminated": 1}


def test_killed_at_any_moment_it_goes_on_and_makes_the_same(folder: TaskFolder, model: Author, wanted: Given) -> None:
    whole = run(folder, wanted)
    (folder.root / "work" / "synthesis.jsonl").unlink()
    model.asked.clear()
    stop = threading.Event()
    for enough in (3, 9, 17):
        gate = threading.Event()

        def decide(body: Body, count: int, enough: int = enough, gate: threading.Event = gate) -> Reply:
            if count > enough:
                gate.set()
                stop.wait(120)
            return honest(body, count)

        model.decide = decide
        folder.prepare(wanted)
        with folder.start(**KEY) as process:
            assert gate.wait(60), folder.log
            process.send_signal(signal.SIGKILL)
    stop.set()
    until(lambda: model.running == 0, "the last request to end")
    with (folder.root / "work" / "synthesis.jsonl").open("ab") as journal:
        journal.write(b'{"target": 1, "step": "wri')
    model.decide = honest
    code, result = folder.run(wanted, **KEY)
    assert code == 0, folder.log
    assert result == whole
    assert len(model.asked) <= 24 + 3 * wanted["parallel"]


def test_other_thresholds_need_no_new_answers(folder: TaskFolder, model: Author, wanted: Given) -> None:
    run(folder, wanted)
    asked = len(model.asked)
    assert run(folder, wanted, support_min=0.9, parallel=2)["counts"]["qa_train"] == 16
    assert len(model.asked) == asked
    run(folder, wanted, seed=5)
    assert len(model.asked) == asked + 24


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        (lambda body, count: completion("nonsense"), "none of 24 answers made a supported pair: not_json 24"),
        (lambda body, count: error(400, "no grammar here"), "refuses every request: 400: no grammar here"),
        (lambda body, count: (200, {"choices": "?"}, {}), "no_answer 24"),
    ],
)
def test_nothing_usable_is_a_failure_that_says_why(
    folder: TaskFolder, model: Author, wanted: Given, replies: Any, words: str
) -> None:
    model.decide = replies
    with pytest.raises(Invalid, match=words):
        run(folder, wanted)


def test_a_model_nobody_knows_is_refused_by_name(folder: TaskFolder, model: Author, wanted: Given) -> None:
    model.model_status = 404
    with pytest.raises(Invalid, match="model 'author' cannot be asked"):
        run(folder, wanted)


def test_a_key_that_is_refused_later_is_no_fault_of_the_model(folder: TaskFolder, model: Author, wanted: Given) -> None:
    model.decide = lambda body, count: error(401, "revoked") if count > 3 else honest(body, count)
    with pytest.raises(Unavailable, match="refuses the run's key"):
        run(folder, wanted)


def test_a_dataset_without_documents_to_ask_about_is_refused(folder: TaskFolder, wanted: Given) -> None:
    with pytest.raises(Invalid, match="no document that could be asked about"):
        run(folder, wanted, manifest=dataset(folder.store, folder.root, 0, 0))


def test_of_many_documents_some_are_drawn_always_the_same(folder: TaskFolder, model: Author, wanted: Given) -> None:
    few, more = (run(folder, wanted, documents_max=count) for count in (3, 6))
    splits = ("qa_train", "qa_heldout")
    drawn = [{row["document"] for split in splits for row in rows(folder, made, split)} for made in (few, more)]
    assert (len(drawn[0]), len(drawn[1])) == (3, 6)
    assert drawn[0] < drawn[1]


def test_of_many_documents_no_more_held_out_ones_are_drawn_than_there_are(
    folder: TaskFolder, model: Author, wanted: Given
) -> None:
    """The drawing knows nothing of the split a curation with the same seed made."""
    ids = pa.array([f"doc{number}" for number in range(400)])
    side = split_sides(hash_ids(ids), [0.1], 0)
    splits = {name: Split((), 0) for name in SPLITS}
    for code, name in enumerate(("train", "heldout")):
        writer = SplitWriter(folder.store, folder.root, SPLITS[name])
        for number in np.flatnonzero(side == code).tolist():
            writer.add({"id": f"doc{number}", "text": english(number), "source": "s0:test"})
        splits[name] = writer.close()
    manifest = write_manifest(folder.store, Manifest(splits, {}, [], {}, "CC0-1.0", []))
    result = run(folder, wanted, manifest=manifest, documents_max=40, per_document=1)
    assert result["counts"]["asked"] == 40
    assert 0 < result["counts"]["qa_heldout"] <= 12


def test_a_passage_is_shown_as_it_stands_in_the_document(folder: TaskFolder, model: Author, wanted: Given) -> None:
    result = run(folder, wanted)
    texts = {row["text"] for side in ("train", "heldout") for row in rows(folder, result, side)}
    assert all(any(passage_in(body) in text for text in texts) for body in model.asked)
