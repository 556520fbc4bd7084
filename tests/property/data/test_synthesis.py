"""Synthesis finds quotations where they are nearest, asks nothing twice, and shows every part of a text once."""

from functools import cache
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.synthesis.answers import Pair
from atoll.data.engine.synthesis.content import content, numbers
from atoll.data.engine.synthesis.evidence import locate, nearest
from atoll.data.engine.synthesis.novelty import ALIKE, Asked
from atoll.data.engine.synthesis.passages import PASSAGE_BYTES_MIN, Target, passages, targets_of
from atoll.data.engine.synthesis.wanted import KINDS, Wanted

WORDS = st.lists(st.sampled_from("abcd"), max_size=9)
PARTS = ["Reefs grow", " slowly", ". ", "\n\n", "环礁很大", "。", " of 12", "   "]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=120).map("".join)
VOCABULARY = ["ring", "reef", "lagoon", "islands", "7", "8", "the", "when", "where", "环礁"]
QUESTIONS = st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=7).map(" ".join), max_size=25)


@cache
def edits(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    if not first or not second:
        return len(first) + len(second)
    same = edits(first[1:], second[1:]) + (first[0] != second[0])
    return min(same, edits(first[1:], second) + 1, edits(first, second[1:]) + 1)


@settings(deadline=None)
@given(WORDS.filter(bool), WORDS)
def test_the_nearest_part_differs_least_of_all_parts(pattern, words) -> None:
    start, stop, distance = nearest(pattern, words)
    parts = [tuple(words[i:j]) for i in range(len(words) + 1) for j in range(i, len(words) + 1)]
    assert distance == min(edits(tuple(pattern), part) for part in parts)
    assert distance == edits(tuple(pattern), tuple(words[start:stop]))


@settings(deadline=None)
@given(st.text("ab 环礁,.", max_size=60), st.integers(0, 60), st.integers(1, 60))
def test_every_verbatim_quotation_is_found(text, start, length) -> None:
    quotation = text[start : start + length]
    located = locate(quotation, text)
    if located is not None:
        assert located.alike >= 0.8
        assert 0 <= located.start < located.stop <= len(text)
    else:
        assert len(content(quotation.replace(" ", ""))) < 9


@settings(deadline=None)
@given(QUESTIONS)
def test_exactly_those_questions_are_new_that_are_like_none_before(questions) -> None:
    seen, kept = Asked(), []
    for text in questions:
        pair = Pair(Target("x", KINDS[0], "d", "", 0, ""), text, "", 0, 0, 1.0)
        alike = [other for other in kept if numbers(other) == numbers(text) and jaccard(other, text) >= ALIKE]
        is_new = not alike and text not in kept
        assert seen.is_new(pair) == is_new
        if is_new:
            kept.append(text)


def jaccard(first: str, second: str) -> float:
    whole = content(first) | content(second)
    return len(content(first) & content(second)) / len(whole) if whole else -inf


@settings(deadline=None)
@given(TEXTS, st.integers(200, 400), st.integers(1, 9), st.integers(0, 9))
def test_passages_hold_a_text_in_order_without_overlap(text, most, count, seed) -> None:
    wanted = Wanted("", "m", "p", "", passage_characters=most, per_document=count, seed=seed, kinds=KINDS)
    place = 0
    for start, stop in passages(text, wanted):
        assert place <= start < stop <= start + most
        left_out = text[place:start].strip()
        assert not left_out or len(left_out.encode()) < PASSAGE_BYTES_MIN * 60
        assert text[start:stop] == text[start:stop].strip()
        place = stop
    targets = targets_of("d", text, wanted)
    assert len({(target.start, target.sentence) for target in targets}) <= len(targets) <= count
    assert all(
        text.startswith(target.passage, target.start) and target.sentence in target.passage for target in targets
    )
