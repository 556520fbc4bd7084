"""The hashes the engine stands on: fixed for ever, because a dataset's bytes follow from them.

A sequence x0, x1, … of 64-bit values hashes to mix(sum of (xi + 1) * FACTOR**i) modulo 2**64: short to say, quick to
compute over a stream, and equally quick over arrays. Not cryptographic: an opponent can build collisions.
`mix` is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from atoll.data.engine.arrays import U64 as U64
from atoll.data.engine.kernel import bare

FACTOR = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


def mix(values: U64) -> U64:
    """Spread every input bit over the whole word."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@bare
def mix_one(value: np.uint64) -> np.uint64:
    """`mix` of a single word, for kernels."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def powers(count: int) -> U64:
    """FACTOR**0 … FACTOR**(count - 1) modulo 2**64."""
    result = np.full(count, FACTOR, np.uint64)
    result[:1] = 1
    return np.multiply.accumulate(result)


def hash_runs(values: NDArray[np.uint32], starts: NDArray[np.int64]) -> U64:
    """One hash for each run of `values`; run i goes from starts[i] to starts[i + 1], none is empty."""
    if not len(starts):
        return np.empty(0, np.uint64)
    lengths = np.diff(starts, append=len(values))
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    terms = (values.astype(np.uint64) + np.uint64(1)) * powers(int(lengths.max()))[places]
    return mix(np.add.reduceat(terms, starts))


def hash_words(words: list[str]) -> U64:
    """The hash each word has as a token."""
    text = np.array([ord(character) for word in words for character in word], np.uint32)
    return hash_runs(text, np.cumsum([0] + [len(word) for word in words])[:-1])


def seeded(count: int, seed: int) -> U64:
    """`count` fixed pseudo-random words."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(FACTOR)
    return mix(steps + np.uint64(seed & MASK))


def hash_text(text: str, seed: int = 0) -> int:
    """A 64-bit hash of a text, for choices that must never change (xxHash64)."""
    return int(xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"), seed & MASK))
