# ruff: noqa: RUF001 - texts in many scripts
"""The word scan finds exactly what a search unit by unit finds, whatever the list and the text."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.words import WordFinder

LETTERS = st.text(alphabet="abA 坏人国é９9_.😀\n", max_size=6)
TEXTS = st.text(alphabet="abA 坏人国é９9_.😀\n", max_size=40)
BUDGET = settings(deadline=None, max_examples=200)


def units(text: str) -> list[tuple[str, int, int]]:
    """Folded unit, start and stop."""
    found: list[tuple[str, int, int]] = []
    previous = ""
    for place, letter in enumerate(text):
        kind = "run" if letter in "abAé９9_" else "blank" if letter in " \n" else ""
        folded = {"A": "a", "９": "9", "\n": " "}.get(letter, letter)
        if kind and kind == previous:
            unit, start, _ = found.pop()
            found.append((unit + folded if kind == "run" else " ", start, place + 1))
        else:
            found.append((folded, place, place + 1))
        previous = kind
    return found


def searched(entries: list[str], text: str) -> list[tuple[int, int]]:
    wanted = {tuple(unit for unit, _, _ in units(" ".join(entry.split()))) for entry in entries} - {()}
    line = units(text)
    found, place = [], 0
    while place < len(line):
        stops = [
            stop for stop in range(place + 1, len(line) + 1) if tuple(unit for unit, _, _ in line[place:stop]) in wanted
        ]
        if stops:
            found.append((line[place][1], line[stops[-1] - 1][2]))
        place = stops[-1] if stops else place + 1
    return found


@BUDGET
@given(st.lists(LETTERS, max_size=6), TEXTS)
def test_scan_equals_search(entries: list[str], text: str) -> None:
    assert WordFinder(entries).find(text) == searched(entries, text)


@BUDGET
@given(st.lists(st.text(max_size=4), max_size=5), st.text(max_size=40))
def test_spans_lie_in_the_text_and_what_is_outside_stays(entries: list[str], text: str) -> None:
    finder = WordFinder(entries)
    spans = finder.find(text)
    assert all(start < stop <= len(text) for start, stop in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    kept = [text[stop:start] for (_, stop), (start, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True)]
    assert finder.mask(text, "\0") == "\0".join(kept)
