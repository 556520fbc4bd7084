"""Equal texts: documents of one 128-bit digest.

The digest is XXH3-128: texts that merely happen to be collide less than once in 10**20 corpora of a thousand million
texts; an opponent who builds collisions can only get a document of his own dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import Corpus

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Equal(NamedTuple):
    """first: int64, for every document the first with an equal text. firsts: those, ordered by digest."""

    first: Indices
    firsts: Indices


def groups(corpus: Corpus) -> Equal:
    """Which documents have equal texts."""
    return Equal(*grouped(*digests(corpus)))


def digests(corpus: Corpus) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The upper and lower halves of every document's digest."""
    if not len(corpus):
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    return corpus.column("digest_high").astype(np.uint64), corpus.column("digest_low").astype(np.uint64)


def grouped(*keys: NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Places with equal keys: for every place the first with its key; and those firsts, ordered by key."""
    order = np.lexsort(keys[::-1])
    is_first = np.zeros(len(order), bool)
    is_first[:1] = True
    for key in keys:
        sorted_key = key[order]
        is_first[1:] |= sorted_key[1:] != sorted_key[:-1]
    firsts = order[is_first]  # a stable sort puts the least place of a group first
    result = np.empty(len(order), np.int64)
    result[order] = firsts[np.cumsum(is_first) - 1]
    return result, firsts
