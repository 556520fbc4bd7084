"""The pure parts of synthesis: passages, content, evidence, answers, steps, novelty, pace and journal."""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from atoll.data.engine.synthesis.answers import Pair, Rejection, Said, is_approved, read
from atoll.data.engine.synthesis.content import content, is_cjk, numbers
from atoll.data.engine.synthesis.evidence import locate, nearest, strange_numbers, support
from atoll.data.engine.synthesis.journal import Journal
from atoll.data.engine.synthesis.novelty import Asked
from atoll.data.engine.synthesis.pace import Pace
from atoll.data.engine.synthesis.passages import Target, passages, targets_of
from atoll.data.engine.synthesis.prompts import write_request
from atoll.data.engine.synthesis.steps import next_step, outcome_of
from atoll.data.engine.synthesis.wanted import Wanted

WANTED = Wanted("sha256:0", "m", "red", "http://door")
PASSAGE = (
    "The lighthouse on the northern reef was built in 1872. It is 41 metres tall, and can be seen from 20 miles away. "
    "The keeper lived beside the tower until 1965."
)
CHINESE = "北礁的灯塔建于1872年、高41米、二十海里以外都能看见。守塔人一直住到1965年。"
TARGET = Target("d#s1", "question_answer", "d", PASSAGE, 100, "It is 41 metres tall.")


def said(**fields: Any) -> Said:
    truth = {
        "question": "How tall is the lighthouse on the northern reef?",
        "evidence": "It is 41 metres tall",
        "answer": "The lighthouse is 41 metres tall.",
    }
    return Said(200, json.dumps(truth | fields), "stop", 50)


def changed(**fields: Any) -> Wanted:
    return Wanted(**{name: getattr(WANTED, name) for name in Wanted.__slots__} | fields)


# passages


def test_passages_end_with_paragraphs_and_long_ones_with_sentences() -> None:
    text = "\n\n".join([PASSAGE, "  " + PASSAGE * 3, "short", ""])
    spans = passages(text, changed(passage_characters=300))
    shown = [text[slice(*span)] for span in spans]
    assert shown[0] == PASSAGE
    assert all(len(part) <= 300 and part == part.strip() for part in shown)
    assert all(part.endswith((".", "short")) for part in shown)


def test_text_without_an_end_is_cut_where_it_must_be() -> None:
    assert passages("x" * 1000, changed(passage_characters=300)) == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert passages("  \n ", WANTED) == []


def test_targets_are_spread_over_passages_and_kinds_take_turns() -> None:
    text = "\n\n".join(PASSAGE.replace("lighthouse", f"tower{n}") for n in range(4))
    wanted = changed(passage_characters=200, per_document=6, kinds=("question_answer", "instruction"))
    targets = targets_of("d", text, wanted)
    assert len(targets) == 6
    assert len({target.start for target in targets[:4]}) == 4
    assert len({(target.start, target.sentence) for target in targets}) == 6
    assert {a.kind != b.kind for a, b in pairwise(targets)} == {True}
    assert all(text[t.start :].startswith(t.passage) and t.sentence in t.passage for t in targets)
    assert targets_of("d", text, wanted) == targets


# content and evidence


def test_content_words_are_compared_without_their_endings_and_function_words() -> None:
    assert content("The towers were BUILT of stones") == content("tower were built stone")
    assert content("北礁的灯塔") == {"北礁", "灯塔"}
    assert content("") == frozenset()
    assert numbers("1,872 ships in １８７２年, v1.2.") == {"1872", "1.2"}
    assert is_cjk(CHINESE) and not is_cjk(PASSAGE) and not is_cjk("42")


@pytest.mark.parametrize(
    "quotation",
    [
        "It is 41 metres tall, and can be seen",
        "\u201cit is 41 METRES tall - and can be seen\u201d",
        "it's 41 metres tall and can be seen from 20 miles away",
    ],
)
def test_a_quotation_is_found_exactly_or_nearly(quotation: str) -> None:
    located = locate(quotation, PASSAGE)
    assert located is not None
    assert PASSAGE[located.start : located.stop].startswith(("It is 41", "41"))
    assert 0.8 <= located.alike <= 1


def test_a_chinese_quotation_is_found_by_its_characters() -> None:
    located = locate("灯塔建于1872年 高41米", CHINESE)
    assert located is not None
    assert CHINESE[located.start : located.stop] == "灯塔建于1872年、高41米"
    assert located.alike == 1.0


@pytest.mark.parametrize("quotation", ["", "tall", "The keeper rowed across the lagoon every second morning"])
def test_what_does_not_stand_there_is_not_found(quotation: str) -> None:
    assert locate(quotation, PASSAGE) is None


def test_the_nearest_part_is_the_one_with_the_fewest_edits() -> None:
    words = ["a", "b", "c", "d", "e", "f"]
    assert nearest(["c", "x", "e"], words) == (2, 5, 1)
    assert nearest(["c", "e"], words) == (2, 5, 1) or nearest(["c", "e"], words)[2] == 1
    assert nearest(["x"], words) == (0, 0, 1)
    assert nearest(words, words) == (0, 6, 0)


def test_support_is_the_share_of_content_the_evidence_holds() -> None:
    evidence, question = "It is 41 metres tall", "How tall is the lighthouse?"
    assert support("The lighthouse is 41 metres tall.", evidence, question, PASSAGE) == 1.0
    assert support("The castle is 41 metres tall.", evidence, "How tall is the castle?", PASSAGE) == 0.75
    assert support("", evidence, question, PASSAGE) == 0.0
    assert strange_numbers("41 metres and 12 feet", evidence, question) == {"12"}


# answers


def test_a_supported_answer_becomes_a_pair_with_its_span() -> None:
    pair = read(TARGET, said(), WANTED)
    assert isinstance(pair, Pair)
    assert PASSAGE[pair.start - 100 : pair.stop - 100] == "It is 41 metres tall"
    assert (pair.support, pair.question) == (1.0, "How tall is the lighthouse on the northern reef?")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Said(500, "broken", "", 0), "model_failed"),
        (Said(200, '{"question": "How', "length", 9), "cut_off"),
        (Said(200, " ", "stop", 9), "no_answer"),
        (Said(200, "Sure! Here is a question:", "stop", 9), "not_json"),
        (Said(200, "I cannot help with that.", "stop", 9), "refused"),
        (Said(200, "[1]", "stop", 9), "wrong_shape"),
        (said(evidence=None), "wrong_shape"),
        (said(answer="I'm sorry, the text does not say."), "refused"),
        (said(question="Tall?"), "too_short"),
        (said(answer="灯塔高41米左右。"), "wrong_language"),
        (said(question="What does the passage say about the tower?"), "refers_to_text"),
        (said(question="The lighthouse is 41 metres tall."), "no_question"),
        (said(question="Is the lighthouse 41 metres tall?"), "echo"),
        (said(question="What is the answer to how tall it is?"), "refers_to_text"),
        (said(evidence="It is painted red and white every spring"), "evidence_not_found"),
        (said(answer="The lighthouse is 42 metres tall."), "strange_number"),
        (said(answer="Mariners praise golden dolphins around harbours."), "unsupported"),
    ],
)
def test_what_is_no_pair_says_why(answer: Said, reason: str) -> None:
    outcome = read(TARGET, answer, WANTED)
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason


def test_an_instruction_rests_on_its_whole_passage() -> None:
    target = Target("d#s1", "instruction", "d", PASSAGE, 0, "It is 41 metres tall.")
    told = {"instruction": "Summarise this.", "evidence": "The keeper lived beside the tower"}
    answer = Said(200, json.dumps(told | {"response": "A lighthouse of 1872 with a keeper until 1965."}), "stop", 9)
    pair = read(target, answer, WANTED)
    assert isinstance(pair, Pair)
    assert pair.question == f"Summarise this.\n\n{PASSAGE}"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"supported": "yes"}', True),
        ('{"supported": "No "}', False),
        ('{"supported": 3}', None),
        ("yes", None),
        ("[]", None),
    ],
)
def test_a_judge_says_yes_or_no_or_nothing(text: str, verdict: bool | None) -> None:
    assert is_approved(Said(200, text, "stop", 1)) is verdict


# steps


def test_a_rejected_answer_is_asked_for_again_with_another_seed() -> None:
    bad = Said(200, "nonsense", "stop", 1)
    name, first = next_step(TARGET, {}, WANTED)  # type: ignore[misc]
    again, second = next_step(TARGET, {name: bad}, WANTED)  # type: ignore[misc]
    assert (name, again) == ("write1", "write2")
    assert first.body["seed"] != second.body["seed"]
    assert next_step(TARGET, {"write1": bad, "write2": bad}, WANTED) == Rejection("not_json", "nonsense")
    assert isinstance(next_step(TARGET, {"write1": bad, "write2": said()}, WANTED), Pair)
    assert outcome_of(TARGET, {"write1": bad}, WANTED) == Rejection("not_asked")


def test_a_judge_is_asked_last_and_may_send_back() -> None:
    wanted = changed(judge="j")
    name, ask = next_step(TARGET, {"write1": said()}, wanted)  # type: ignore[misc]
    assert (name, ask.body["model"]) == ("judge1", "j")
    yes, no = Said(200, '{"supported": "yes"}', "stop", 1), Said(200, '{"supported": "no"}', "stop", 1)
    assert isinstance(next_step(TARGET, {"write1": said(), "judge1": yes}, wanted), Pair)
    assert next_step(TARGET, {"write1": said(), "judge1": no}, wanted)[0] == "write2"  # type: ignore[index]


def test_requests_follow_the_language_and_bound_every_string() -> None:
    english = write_request(TARGET, 1, WANTED)
    chinese = write_request(Target("d#s1", "question_answer", "d", CHINESE, 0, CHINESE), 1, WANTED)
    assert "请用中文" in chinese.body["messages"][-1]["content"]
    for ask in (english, chinese):
        properties = ask.body["response_format"]["json_schema"]["schema"]["properties"]
        assert list(properties) == ["question", "evidence", "answer"]
        assert all(0 < field["maxLength"] <= 600 for field in properties.values())
        assert ask.tokens_max > ask.body["max_tokens"]


# novelty


def asked(question: str, answer: str = "The answer says something.", kind: str = "question_answer") -> Pair:
    return Pair(Target("x", kind, "d", PASSAGE, 0, ""), question, answer, 0, 1, 1.0)


def test_a_question_is_new_unless_it_was_asked_in_nearly_these_words() -> None:
    seen = Asked()
    assert seen.is_new(asked("When was the lighthouse on the reef built?"))
    assert not seen.is_new(asked("when was the Lighthouse on the reef  built?"))
    assert not seen.is_new(asked("When was a lighthouse built on reefs?"))
    assert seen.is_new(asked("Where was the lighthouse on the reef built?"))
    assert seen.is_new(asked("When was lighthouse 2 on the reef built?"))
    assert seen.is_new(asked("When was lighthouse 3 on the reef built?"))
    assert seen.is_new(asked("???"))


def test_instructions_about_one_passage_are_told_apart_by_their_answers() -> None:
    seen = Asked()
    assert seen.is_new(asked("Summarise this.", "A tower of 1872.", "instruction"))
    assert seen.is_new(asked("Summarise this.", "Keepers lived there for a century.", "instruction"))
    assert not seen.is_new(asked("Sum it up.", "A tower of 1872!", "instruction"))


# pace and journal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_tokens_are_reserved_and_the_rest_comes_back() -> None:
    pace = Pace(100, spent=20)
    assert pace.begin(50)
    pace.settle(50, 10)
    assert pace.begin(70)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(pace.begin(40)))
    thread.start()
    pace.settle(70, 65)
    thread.join(60)
    assert (ended, pace.spent) == ([False], 95)
    assert "budget of 100 tokens" in pace.ended


def test_waits_double_with_push_backs_in_a_row_and_are_as_long_as_asked() -> None:
    clock = Clock()
    pace = Pace(None, 0, clock)
    waits = []
    for again_s in (0.0, 0.0, 7.0, 0.0):
        pace.pushed_back(0, again_s)
        waits.append(pace._not_before - clock.now)
        clock.now = pace._not_before
    assert waits == [0.25, 0.5, 7.0, 2.0]
    pace.settle(0, 0)
    pace.pushed_back(0, 0.0)
    assert pace._not_before - clock.now == 0.25


def test_a_torn_line_is_cut_off_and_another_input_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "a")
    journal.add(3, "write1", Said(200, "环礁", "stop", 7))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"target": 3, "step": "wr')
    journal = Journal(path, "a")
    assert (journal.said(3), journal.said(4), journal.tokens) == ({"write1": Said(200, "环礁", "stop", 7)}, {}, 7)
    journal.add(4, "write1", Said(500, "x", "", 0))
    journal.close()
    assert path.read_bytes().startswith(whole)
    assert len(path.read_bytes().splitlines()) == 3
    other = Journal(path, "b")
    assert (other.said(3), other.tokens) == ({}, 0)
    other.close()
