"""Duplicates: exact by hash, near by MinHash candidates that are verified by the exact Jaccard index.

Clusters are the connected components of the verified pairs, so they depend on the set of texts alone, never on the
order or batches they came in. A candidate that verification refuses is never joined; a pair the signatures miss
(less than 1 % at the threshold, next to none above it) stays apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.hashing import U64
from atoll.data.engine.minhash import Signatures, band_keys, rows_of_band

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

SHINGLES_BYTES_MAX = 64 << 20


class Forest:
    """Disjoint sets of 0 … size - 1 (Tarjan): `join` two members, ask for `roots`."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size)

    def root(self, member: int) -> int:
        parents = self._parents
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = int(parents[member])
        return member

    def join(self, one: int, other: int) -> None:
        """Make one set of two; its root is the smaller of the two roots."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low

    def roots(self) -> Indices:
        """The root of every member."""
        parents = self._parents
        while not np.array_equal(parents, parents[parents]):
            parents = parents[parents]
        self._parents = parents
        return parents.copy()


class ShingleSets:
    """The distinct shingles of texts as sorted arrays, computed when asked for; the latest are kept."""

    def __init__(self, shingles_of: Callable[[int], U64]) -> None:
        self._shingles_of = shingles_of
        self._kept: OrderedDict[int, U64] = OrderedDict()
        self._kept_bytes = 0

    def __getitem__(self, text: int) -> U64:
        if text in self._kept:
            self._kept.move_to_end(text)
            return self._kept[text]
        found = np.unique(self._shingles_of(text))
        self._kept[text] = found
        self._kept_bytes += found.nbytes
        while self._kept_bytes > SHINGLES_BYTES_MAX and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return found


def jaccard(one: U64, other: U64) -> float:
    """The Jaccard index of two sets given as sorted arrays without repetitions; 0 for two empty ones."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 0.0


class Duplicates:
    """Finds the clusters of n texts.

    digests: one exact digest a text. signatures: uint32 (n, permutations). shingles_of(i): the shingle hashes of text
    i. Clusters may be asked for growing sets of texts; what was verified is not verified again.
    """

    def __init__(
        self,
        digests: Sequence[bytes],
        signatures: Signatures,
        shingles_of: Callable[[int], U64],
        threshold: float,
    ) -> None:
        self._exact = exact_groups(digests)
        self._signatures = signatures
        self._sets = ShingleSets(shingles_of)
        self._threshold = threshold
        self._forest = Forest(len(digests))
        self._refused: set[tuple[int, int]] = set()

    def cluster(self, members: Mask, report: Callable[[int, int], None] = lambda done, total: None) -> Indices:
        """For every text the least text of its cluster, joining only texts in `members` (and those joined before).

        `members` holds all texts of a digest or none, as rules over statistics do.
        """
        for text in np.flatnonzero(members & (self._exact != np.arange(len(members)))):
            self._forest.join(int(text), int(self._exact[text]))
        # equal texts have equal signatures: one of each group stands for all
        standing = np.unique(self._exact[members & (self._signatures != 0xFFFFFFFF).any(axis=1)])
        rows = rows_of_band(self._threshold, self._signatures.shape[1])
        bands = self._signatures.shape[1] // rows
        for band in range(bands):
            for bucket in buckets(band_keys(self._signatures[standing], band, rows)):
                self._join_bucket(standing[bucket])
            report(band + 1, bands)
        return self._forest.roots()

    def _join_bucket(self, bucket: Indices) -> None:
        """Join all pairs of a bucket that verify. Pairs already connected need no look, so equal ones cost little."""
        groups: dict[int, list[int]] = {}
        for one in bucket.tolist():
            root = self._forest.root(one)
            for other in [group for group in groups if group != root]:
                if any(self._is_near(one, member) for member in groups[other]):
                    self._forest.join(one, other)
                    merged = groups.pop(other) + groups.pop(root, [])
                    root = self._forest.root(one)
                    groups[root] = merged
            groups.setdefault(root, []).append(one)

    def _is_near(self, one: int, other: int) -> bool:
        pair = (min(one, other), max(one, other))
        if pair in self._refused:
            return False
        is_near = jaccard(self._sets[one], self._sets[other]) >= self._threshold
        if not is_near:
            self._refused.add(pair)
        return is_near


def exact_groups(digests: Sequence[bytes]) -> Indices:
    """For every text the first text with an equal digest."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, text) for text, digest in enumerate(digests)], np.int64)


def buckets(keys: U64) -> Iterator[Indices]:
    """The groups of places, ascending, whose keys are equal; groups of one are left out."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order], append=~keys[order[-1:]])) + 1
    starts = np.concatenate([[0], ends[:-1]])
    for group in np.flatnonzero(ends - starts > 1).tolist():
        yield order[starts[group] : ends[group]]


def losers(clusters: Indices, members: Mask, characters: Indices, ids: Sequence[str]) -> Mask:
    """Which members are dropped: all but the longest of each cluster, of equally long ones the smallest id."""
    best: dict[int, int] = {}
    for text in np.flatnonzero(members).tolist():
        rival = best.setdefault(int(clusters[text]), text)
        if (-characters[text], ids[text]) < (-characters[rival], ids[rival]):
            best[int(clusters[text])] = text
    lost = members.copy()
    lost[list(best.values())] = False
    return lost
