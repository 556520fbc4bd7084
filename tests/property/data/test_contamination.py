"""A document is contaminated when it shares a run of words, and only then."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.compose.contamination import build, find, token_spans

WORDS = st.lists(st.sampled_from(["a", "B", "c1", "礁", "é"]), max_size=30).map(" ".join)
N = 5


def words(text: str) -> list[str]:
    return [text[start:stop].lower() for start, stop in token_spans(text)]


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + length]) for i in range(len(found) - length + 1)}


def shares(text: str, exam: str) -> bool:
    size = len(words(exam))
    if size >= N:
        return bool(runs(text, N) & runs(exam, N))
    return size > 0 and (bool(runs(text, size) & runs(exam, size)) if size >= 3 else words(text) == words(exam))


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6), st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=1, max_size=4))
def test_it_agrees_with_comparing_every_run_of_words(texts, first, second) -> None:
    sets = {"a": [["x", *first]], "b": [second[:1], ["y"], second[1:]]}
    found = find(pa.array(texts, pa.string()), build(sets, N))
    exams = [["x", *first], ["y", *second]]
    for text, mask, place, length in zip(texts, found.masks, found.places, found.lengths, strict=True):
        assert [bool(mask >> bit & 1) for bit in (0, 1)] == [any(shares(text, e) for e in exam) for exam in exams]
        assert (place >= 0) == (mask > 0)
        if mask:
            run = tuple(words(text)[place : place + length])
            assert any(run in runs(e, len(run)) for exam in exams for e in exam)
