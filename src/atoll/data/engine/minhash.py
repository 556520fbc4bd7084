"""MinHash: the shingles of a text, and signatures whose agreement estimates the Jaccard index of two texts.

A shingle is five tokens in a row (all tokens of a shorter text), hashed to 64 bits. A signature entry is the least
value of the shingles under one of `permutations` maps x -> factor * x + term modulo 2**32 with odd factors
(Broder 1997). Banding (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4) makes candidates of texts that
agree on all rows of a band. Signatures only propose; `dedup` verifies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.hashing import U64, mix, powers, seeded
from atoll.data.engine.scan import Scan, compiled

SHINGLE_TOKENS = 5
RECALL_MIN = 0.99

Signatures = NDArray[np.uint32]


def shingles(tokens: U64) -> U64:
    """The shingle hashes of one text in order, with repetitions; none when there are no tokens."""
    width = min(SHINGLE_TOKENS, len(tokens))
    count = len(tokens) - width + 1 if width else 0
    total = np.zeros(count, np.uint64)
    for place, power in enumerate(powers(width)):
        total += (tokens[place : place + count] + np.uint64(1)) * power
    return mix(total)


def signatures(scan: Scan, permutations: int) -> Signatures:
    """uint32 (texts, permutations); all ones for a text without tokens."""
    return signatures_compiled(scan, permutations) if compiled() else signatures_plain(scan, permutations)


def signatures_compiled(scan: Scan, permutations: int) -> Signatures:
    """Signatures by the compiled kernel; needs numba."""
    from atoll.data.engine import kernels

    parts = _short_shingles(scan)
    starts = np.cumsum([0] + [len(part) for part in parts])
    result = np.full((len(parts), permutations), 0xFFFFFFFF, np.uint32)
    joined = np.concatenate(parts) if parts else np.empty(0, np.uint32)
    kernels.signatures(joined, starts, *_maps(permutations), result)
    return result


def signatures_plain(scan: Scan, permutations: int) -> Signatures:
    """Signatures by numpy alone: the meaning of the compiled kernel, bit for bit."""
    factors, terms = _maps(permutations)
    result = np.full((len(scan.counts), permutations), 0xFFFFFFFF, np.uint32)
    for row, values in zip(result, _short_shingles(scan), strict=True):
        for place in range(permutations if len(values) else 0):
            row[place] = (values * factors[place] + terms[place]).min()
    return result


def rows_of_band(threshold: float, permutations: int) -> int:
    """The most rows a band may have so that pairs at `threshold` become candidates with RECALL_MIN probability."""
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL_MIN:
            return rows
    return 1


def band_keys(signatures: Signatures, band: int, rows: int) -> U64:
    """One word for each text; texts that agree on all rows of `band` have equal words."""
    part = signatures[:, band * rows : (band + 1) * rows].astype(np.uint64)
    return mix((part + np.uint64(1)) @ powers(rows))


def _short_shingles(scan: Scan) -> list[NDArray[np.uint32]]:
    """The distinct upper halves of each text's shingle hashes: what the permutations permute."""
    return [(shingles(scan.tokens_of(i)) >> np.uint64(32)).astype(np.uint32) for i in range(len(scan.counts))]


def _maps(permutations: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    words = seeded(permutations, seed=1)
    factors = (words >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return factors, (words & np.uint64(0xFFFFFFFF)).astype(np.uint32)
