"""What is cut equals what the definition says, position by position."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup import Dedup, Substrings, repeats, substrings
from duplicates import corpus_of, stages_in

LENGTH = 32


def oracle(texts: list[bytes], ranks: list[int], kept: list[bool], sources: list[bool], length: int) -> list[set[int]]:
    """The positions of each kept text in a window of `length` bytes that a source of lower rank or an earlier place
    of the same text has too."""
    known: set[bytes] = set()
    result: list[set[int]] = [set() for _ in texts]
    for number in sorted(range(len(texts)), key=ranks.__getitem__):
        own: set[bytes] = set()
        for start in range(len(texts[number]) - length + 1 if kept[number] else 0):
            window = texts[number][start : start + length]
            if window in known or window in own:
                result[number].update(range(start, start + length))
            own.add(window)
        if sources[number]:
            known |= own
    return result


def on_characters(text: bytes, positions: set[int]) -> set[int]:
    """The positions whose whole character is in the same stretch of positions."""
    result: set[int] = set()
    place = 0
    for character in text.decode():
        own = set(range(place, place + len(character.encode())))
        result |= own if own <= positions else set()
        place += len(own)
    return result


def cut_of(corpus: Corpus, folder: Path, kept: np.ndarray, ranks: np.ndarray, sources: np.ndarray) -> list[set[int]]:
    """What the stages cut, as positions."""
    search = repeats.Search(corpus, stages_in(folder), Dedup(substrings=Substrings(LENGTH)), kept, ranks)
    cuts, _ = search.round(0, sources)
    result: list[set[int]] = [set() for _ in range(len(corpus))]
    for number, batch in enumerate(corpus):
        spans = cuts[number]
        for row, start, stop in zip(spans.rows, spans.starts, spans.stops, strict=True):
            result[batch.first + row].update(range(start, stop))
    return result


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    """Texts put together from a few pieces, so that repeats of every length begin and end anywhere."""
    letters = st.text(st.sampled_from("ab \n海島"), min_size=1, max_size=40)
    pieces = draw(st.lists(letters, min_size=1, max_size=5))
    pieces += ["-" * draw(st.integers(1, 90)), "ab" * draw(st.integers(1, 40)), "abcdefg" * draw(st.integers(1, 20))]
    texts = st.lists(st.sampled_from(pieces), max_size=8).map("".join)
    return draw(st.lists(texts, min_size=1, max_size=7))


@pytest.mark.parametrize("small_group_max", [64, 1])
@settings(max_examples=60, deadline=None)
@given(corpora(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_what_is_cut_equals_the_definition(small_group_max: int, texts: list[str], random, batch_rows: int) -> None:
    ranks = random.sample(range(len(texts)), len(texts))
    kept = [random.random() < 0.9 for _ in texts]
    sources = [is_kept and random.random() < 0.8 for is_kept in kept]
    before = substrings.SMALL_GROUP_MAX
    substrings.SMALL_GROUP_MAX = small_group_max
    try:
        with tempfile.TemporaryDirectory() as folder:
            corpus = corpus_of(Path(folder) / "corpus", texts, batch_rows=batch_rows)
            found = cut_of(
                corpus, Path(folder) / "stages", np.array(kept), np.array(ranks, np.int64), np.array(sources)
            )
    finally:
        substrings.SMALL_GROUP_MAX = before
    data = [text.encode() for text in texts]
    expected = oracle(data, ranks, kept, sources, LENGTH)
    assert found == [on_characters(text, cut) for text, cut in zip(data, expected, strict=True)]
