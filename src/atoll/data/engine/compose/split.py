"""The split: which documents are held out from training, so that nothing held out was seen.

Whole clusters of near duplicates go to one side, chosen by a hash of the cluster's name and the seed, so a cluster
stays where it is when others come or go. A cluster's name is the least hash among its documents' ids, whatever their
order. Derived question pairs follow their document. Texts that are alike in meaning but not in words are not
recognised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.hashing import FACTOR, U64, mix, seeded
from atoll.data.engine.kernel import kernel
from atoll.data.engine.scan import utf8_of

TRAIN = 0
"""The side of what is learned from; held-out sides are 1, 2, …"""

_FACTOR, _ONE, _ZERO = np.uint64(FACTOR), np.uint64(1), np.uint64(0)


@kernel
def _hash_strings(data: NDArray[np.uint8], starts: NDArray[np.int64], result: U64) -> None:
    for text in range(len(starts) - 1):
        value, power = _ZERO, _ONE
        for place in range(starts[text], starts[text + 1]):
            value += (np.uint64(data[place]) + _ONE) * power
            power *= _FACTOR
        result[text] = value


def hash_ids(ids: pa.ChunkedArray | pa.StringArray) -> U64:
    """A 64-bit hash of each id, (n,): `hashing`'s hash of the bytes of its UTF-8. The same in every run."""
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    parts = [np.empty(len(chunk), np.uint64) for chunk in chunks]
    for chunk, part in zip(chunks, parts, strict=True):
        _hash_strings(*utf8_of(chunk), part)
    return mix(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def name_clusters(clusters: NDArray[np.int64], hashes: U64) -> U64:
    """The name of each document's cluster, (n,): the least of `hashes` (n,) among those with its number."""
    order = np.argsort(clusters, kind="stable")
    begins = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[:1]] - 1))
    least = np.minimum.reduceat(hashes[order], begins) if len(begins) else hashes
    names = np.empty_like(hashes)
    names[order] = np.repeat(least, np.diff(begins, append=len(order)))
    return names


def sides(names: U64, fractions: Sequence[float], seed: int) -> NDArray[np.int8]:
    """The side of every document by the name of its cluster: TRAIN, or i + 1 for about `fractions[i]` of the clusters.

    With clusters enough for all sides, each that has a fraction above 0 gets at least one, and so does training.
    Invalid when the fractions leave nothing to train on.
    """
    if min(fractions, default=0.0) < 0 or sum(fractions) >= 1:
        hint = "they must be at least 0 and together less than 1"
        raise Invalid(f"held-out fractions cannot be {list(fractions)}", field="split", hint=hint)
    places = mix(names ^ seeded(1, seed)[0])
    distinct, ranks = np.unique(places, return_inverse=True)
    side = np.searchsorted(_stops(distinct, fractions), ranks, side="right") + 1
    return np.where(side > len(fractions), TRAIN, side).astype(np.int8)


def _stops(distinct: U64, fractions: Sequence[float]) -> NDArray[np.int64]:
    """How many clusters, by place, lie below the end of each held-out side."""
    bounds = [min(int(bound * 2.0**64), 2**64 - 1) for bound in np.cumsum(fractions)]
    stops = np.searchsorted(distinct, np.array(bounds, np.uint64)).astype(np.int64)
    wanted = np.array(fractions) > 0
    at_least = np.cumsum(wanted) if len(distinct) > 1 else np.zeros(len(stops), np.int64)
    room = max(len(distinct) - 1, 0)
    reserve = int(room >= wanted.sum())  # clusters enough for every side
    for side in range(len(stops) - 1, -1, -1):
        stops[side] = min(max(stops[side], at_least[side]), room)
        room = stops[side] - reserve * wanted[side]
    return stops
