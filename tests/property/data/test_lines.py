"""Repeated lines against the plain definition."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.dedup import Dedup, Lines, repeats, shards
from duplicates import corpus_of, stages_in


def units(text: str, unit: str) -> list[str]:
    """The text cut in lines with their ends, or in paragraphs with the blank lines after each."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    if unit == "line":
        return lines
    result = [""]
    for line in lines:
        result[-1] += line
        if not line.strip():
            result.append("")
    return result


def oracle(texts: list[str], ranks: list[int], sources: list[bool], lines: Lines) -> list[str]:
    """The texts without the units that a source of lower rank has, where enough documents have them."""
    keys = [["".join(unit.split()) for unit in units(text, lines.unit)] for text in texts]
    result = []
    for number, text in enumerate(texts):
        left = ""
        for unit, key in zip(units(text, lines.unit), keys[number], strict=True):
            holders = [other for other in range(len(texts)) if sources[other] and key in keys[other]]
            is_earlier = any(ranks[other] < ranks[number] for other in holders)
            documents = len(set(holders) | {number})
            cut = len(key) >= lines.characters_min and is_earlier and documents >= lines.documents_min
            left += "" if cut else unit
        result.append(left)
    return result


LINE = st.sampled_from(["a b c", "abc", "ab\tc ", "\u3000海 島\u00a0", "海島", "x", "", "  ", "ABC", "\u2003a b c\r"])


@pytest.mark.parametrize("unit", ["line", "paragraph"])
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(LINE, max_size=8).map("\n".join), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
    st.integers(2, 3),
    st.sampled_from([1, shards.SHARD_BYTES_MIN]),
)
def test_what_is_cut_equals_the_definition_in_however_many_shards(
    unit: str, texts: list[str], random, characters_min: int, documents_min: int, shard_bytes_min: int
) -> None:
    lines = Lines(unit, characters_min, documents_min)
    ranks = random.sample(range(len(texts)), len(texts))
    sources = [random.random() < 0.8 for _ in texts]
    with tempfile.TemporaryDirectory() as folder, patch.object(shards, "SHARD_BYTES_MIN", shard_bytes_min):
        corpus = corpus_of(Path(folder) / "corpus", texts, batch_rows=2)
        taken = np.ones(len(texts), bool)
        stages = stages_in(Path(folder) / "stages")
        search = repeats.Search(corpus, stages, Dedup(lines=lines), taken, np.array(ranks, np.int64))
        cuts, lost = search.round(0, np.array(sources))
        left = [text for number, batch in enumerate(corpus) for text in cuts[number].apply(batch.texts).to_pylist()]
    assert left == oracle(texts, ranks, sources, lines)
    assert lost.tolist() == [len(text.encode()) - len(rest.encode()) for text, rest in zip(texts, left, strict=True)]
