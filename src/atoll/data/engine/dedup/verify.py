"""Verification: the exact Jaccard index of the shingle sets of candidate pairs, computed from the texts themselves.

Pairs are verified portion by portion: a portion's texts are shingled once, and sorted sets are merged by compiled code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.annotate.minhash import shingles
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.runtimes.stages import Stages

PORTION_BYTES = 4 << 20
SHINGLED_BYTES = 1 << 20
PAIRS, NEAR = "pairs.npy", "near.npy"


def sizes(corpus: Corpus) -> Indices:
    """The bytes of every text; int64 (documents,)."""
    parts = [np.diff(_offsets(batch.texts)).astype(np.int64) for batch in corpus]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def verified(corpus: Corpus, stages: Stages, name: str, near: Near, pairs: Indices, bytes_each: Indices) -> Mask:
    """Which pairs (int64 (pairs, 2) of documents) have at least the Jaccard index of `near`; a stage `name`."""
    if not len(pairs):
        return np.zeros(0, bool)
    cost = np.cumsum(bytes_each[pairs].sum(axis=1))
    edges = np.flatnonzero(np.diff(cost // PORTION_BYTES, prepend=-1))
    items = [(corpus.batches, part, near) for part in np.split(pairs, edges[1:])]
    folders = stages.map(name, _verify, items, "portion")
    return np.concatenate([np.load(folder / NEAR) for folder in folders])


def jaccards(flat: U64, starts: Indices, pairs: Indices) -> NDArray[np.float64]:
    """The Jaccard index of each pair of sets; 0 for two empty ones. Set i is flat[starts[i] : starts[i + 1]], sorted,
    without repetitions; pairs: int64 (pairs, 2) of sets."""
    result = np.empty(len(pairs), np.float64)
    _jaccards(flat, starts, pairs, result)
    return result


def shingled(corpus: Corpus, documents: Indices, near: Near) -> Iterator[tuple[U64, Indices]]:
    """The shingle sets of `documents` (ascending), as `jaccards` takes them, portion by portion in order."""
    for texts in _portions(corpus, documents):
        yield shingles(texts, near.words, near.cjk_characters)


def shingle_sets(corpus: Corpus, documents: Indices, near: Near) -> tuple[U64, Indices]:
    """The shingle sets of `documents` (ascending) all together."""
    parts = list(shingled(corpus, documents, near))
    counts = [np.diff(starts) for _, starts in parts]
    flat = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in parts)])
    return flat, np.cumsum(np.concatenate([[0], *counts])).astype(np.int64)


def _portions(corpus: Corpus, documents: Indices) -> Iterator[pa.StringArray]:
    """The texts of `documents` in arrays of about SHINGLED_BYTES."""
    held: list[pa.StringArray] = []
    held_bytes = 0
    for batch in corpus:
        low, high = np.searchsorted(documents, [batch.first, batch.first + batch.rows])
        if low == high:
            continue
        texts, rows = batch.texts, documents[low:high] - batch.first
        ends = held_bytes + np.cumsum(np.diff(_offsets(texts))[rows])
        edges = np.flatnonzero(np.diff(ends // SHINGLED_BYTES, prepend=held_bytes // SHINGLED_BYTES))
        for number, part in enumerate(np.split(rows, edges)):
            if number:
                yield pa.concat_arrays(held)
                held = []
            held.append(texts.take(pa.array(part)))
        held_bytes = int(ends[-1])
    if held:
        yield pa.concat_arrays(held)


def _offsets(texts: pa.StringArray) -> NDArray[np.int32]:
    """Where the texts start in their buffer, mapped; one more entry than texts."""
    found: NDArray[np.int32] = np.frombuffer(texts.buffers()[1], np.int32)
    return found[texts.offset : texts.offset + len(texts) + 1]


def _verify(item: tuple[list[Batch], Indices, Near], folder: Path) -> None:
    batches, pairs, near = item
    documents, places = np.unique(pairs, return_inverse=True)
    flat, starts = shingle_sets(Corpus(batches), documents, near)
    found = jaccards(flat, starts, places.reshape(pairs.shape).astype(np.int64))
    np.save(folder / NEAR, found >= near.threshold)


@inner
def common_of(one: NDArray[np.generic], other: NDArray[np.generic]) -> int:
    """How many values two ascending arrays have in common."""
    common, place, beside = 0, 0, 0
    while place < len(one) and beside < len(other):
        low, high = one[place], other[beside]
        common += low == high
        place += low <= high
        beside += high <= low
    return common


@kernel
def _jaccards(flat: U64, starts: Indices, pairs: Indices, result: NDArray[np.float64]) -> None:
    for pair in range(len(pairs)):
        one = flat[starts[pairs[pair, 0]] : starts[pairs[pair, 0] + 1]]
        other = flat[starts[pairs[pair, 1]] : starts[pairs[pair, 1] + 1]]
        common = common_of(one, other)
        union = len(one) + len(other) - common
        result[pair] = common / union if union else 0.0
