"""Compiled and plain kernels of quality models give the same bits; their measures are what they say."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine import kernel
from atoll.data.engine.quality import features, perplexity
from atoll.data.engine.quality.measures import auc

WHOLE = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
TEXT = st.one_of(WHOLE, st.lists(st.sampled_from(["cat", "Dog", "7", " ", "猫", "和", "é", "\n", "—"])).map("".join))
ARGUMENTS = (np.uint64(54), 2, 4)


@cache
def plain() -> tuple[ModuleType, ModuleType]:
    """(features, perplexity) as they are where numba is not installed."""
    names = [module.__name__ for module in (features, perplexity)]
    kept, compiler = {name: sys.modules.pop(name) for name in names}, kernel.numba
    kernel.numba = None
    try:
        found = [importlib.import_module(name) for name in names]
    finally:
        kernel.numba = compiler
        sys.modules.update(kept)
        for name, module in kept.items():
            setattr(sys.modules["atoll.data.engine"], name.rpartition(".")[2], module)
    return found[0], found[1]


def visited(text: str, weights: features.Weights, slope: float, module: Any = features) -> tuple[float, int]:
    data = np.frombuffer(text.encode(), np.uint8)
    squares = np.zeros_like(weights)
    total, count = module.visit(data, *features.tables(), *ARGUMENTS, weights, squares, slope, 0.5)
    return float(total), int(count)


@settings(deadline=None, max_examples=60)
@given(TEXT, st.sampled_from([0.0, 0.25, -1.5]))
def test_compiled_and_plain_features_are_the_same_bits(text: str, slope: float) -> None:
    start = np.random.default_rng(5).normal(size=1 << 10).astype(np.float32)
    fast, slow = start.copy(), start.copy()
    assert visited(text, fast, slope) == visited(text, slow, slope, plain()[0])
    assert np.array_equal(fast, slow)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=5))
def test_a_text_is_scored_alike_alone_and_among_others(texts: list[str]) -> None:
    weights = np.random.default_rng(5).normal(size=1 << 10).astype(np.float32)
    data, starts = features.flat(pa.array(texts, pa.string()))
    for number, text in enumerate(texts):
        here = data[starts[number] : starts[number + 1]]
        squares = np.zeros_like(weights)
        found = features.visit(here, *features.tables(), *ARGUMENTS, weights, squares, 0.0, 0.0)
        assert found == visited(text, weights, 0.0)


@settings(deadline=None, max_examples=60)
@given(TEXT)
def test_case_spaces_and_digits_do_not_matter(text: str) -> None:
    weights = np.random.default_rng(5).normal(size=1 << 10).astype(np.float32)
    spaced = f"  {text}\t"
    assert visited(text.replace("7", "3"), weights, 0.0) == visited(text, weights, 0.0)
    assert visited(spaced.replace(" ", "\n"), weights, 0.0) == visited(spaced, weights, 0.0)


@settings(deadline=None, max_examples=20)
@given(st.lists(TEXT.filter(bool), min_size=1, max_size=4))
def test_compiled_and_plain_counts_of_words_are_the_same_bits(texts: list[str]) -> None:
    data, starts = features.flat(pa.array(texts))
    tables = []
    for module in (perplexity, plain()[1]):
        cells = [np.zeros(1 << 8, np.uint32) for _ in range(3)]
        totals = np.zeros(2, np.int64)
        surprise = np.zeros(len(texts))
        counted = (np.uint64(56), *cells, totals)
        module._count(data, starts, *features.tables(), *counted)
        module._surprise(data, starts, *features.tables(), *counted, surprise)
        tables.append([*cells, totals, surprise])
    assert all(np.array_equal(one, other) for one, other in zip(*tables, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(found: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in found])
    truth = np.array([label for _, label in found])
    good, other = scores[truth], scores[~truth]
    if len(good) and len(other):
        pairs = [(a > b) + (a == b) / 2 for a in good for b in other]
        assert auc(scores, truth) == pytest.approx(sum(pairs) / len(pairs))
