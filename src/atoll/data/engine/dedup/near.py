"""Near duplicates: candidates of MinHash bands, every one verified by the exact Jaccard index before it counts.

A cluster is a connected component of two kinds of edges: documents of equal texts, and candidate pairs (`candidates`)
whose shingle sets have at least the Jaccard index asked for. So clusters depend on the set of texts alone, not on
their order, the batches or who computed what; and only pairs that could still connect something are verified.
Pairs the signatures miss (less than 1 % at the threshold, next to none above it) stay apart unless others connect them.

Clusters are wanted twice: among the members, by pairs of members alone, and among all documents. One look at a pair
serves both. Texts that candidate pairs connect, however far, are verified together where they fit in one item, the
likeliest pairs first, so that each is shingled once and most pairs are connected by the time they come. Where they do
not fit, the likeliest pairs that would connect as much as all do are verified first, in rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.candidates import Candidates, candidates, likeness
from atoll.data.engine.dedup.exact import Equal, Indices, Mask
from atoll.data.engine.dedup.forest import Pairs, apart, distinct, flatten, join, members_of, spanning
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.dedup.verify import CLUSTER_BYTES, Texts, verified
from atoll.data.engine.runtimes.stages import Stages

PAIRS_AT_ONCE = 2 << 20
REFUSED_MAX = 4 << 20
"""So many refused pairs are remembered; more are verified again when another band proposes them."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """For every document the least document of its cluster: among the members alone (others are alone), and among
    all documents; int64 (documents,) each."""

    members: Indices
    everything: Indices


def find(corpus: Corpus, stages: Stages, near: Near, members: Mask, equal: Equal) -> Clusters:
    """The clusters of near duplicates; heavy parts are stages named `dedup-…`."""
    found = candidates(corpus, stages, near, equal.firsts)
    is_member = np.zeros(len(corpus), bool)
    is_member[equal.first[members]] = True  # by the document that stands for the text
    search = _Search(corpus, stages, near, found, is_member[found.standing])
    search.join()
    everything = np.ones(len(corpus), bool)
    return Clusters(
        _least(equal.first, found.standing, search.members, members),
        _least(equal.first, found.standing, search.everything, everything),
    )


def _least(equal: Indices, standing: Indices, parents: Indices, members: Mask) -> Indices:
    """The least document of each document's cluster; one that is no member is alone."""
    flatten(parents)
    count = len(equal)
    label = equal.copy()
    label[standing] = standing[parents]
    label = label[equal]
    least = np.full(count, count, np.int64)
    np.minimum.at(least, label[members], np.flatnonzero(members))
    return np.where(members, least[label], np.arange(count))


class _Search:
    """Two forests over the texts, which grow by verified pairs: of pairs of members, and of all."""

    def __init__(self, corpus: Corpus, stages: Stages, near: Near, found: Candidates, is_member: Mask) -> None:
        self._texts, self._stages, self._near, self._found = Texts.of(corpus), stages, near, found
        self._is_member = is_member
        self._bytes = self._texts.sizes[found.standing]
        self.members, self.everything = np.arange(len(is_member)), np.arange(len(is_member))
        self._refused = np.empty(0, np.uint64)

    def join(self) -> None:
        """Join all candidate pairs that verify."""
        for number, waiting in enumerate(self._waiting()):
            pairs, step = self._ordered(waiting), 0
            while len(pairs):
                pairs = self._round(f"dedup-verify/{number:04d}-{step:02d}", pairs, 1 << step)
                step += 1

    def _waiting(self) -> Iterator[Pairs]:
        """The pairs that are neither connected nor refused, about PAIRS_AT_ONCE together, each once."""
        held: list[Pairs] = []
        for path in self._found.pairs:
            for start in range(0, path.stat().st_size, 8 * PAIRS_AT_ONCE):
                held.append(self._open(raw.read(path, np.uint64, PAIRS_AT_ONCE, start)))
                if sum(map(len, held)) >= PAIRS_AT_ONCE:
                    yield self._open(distinct(np.concatenate(held)))
                    held = []
        if held:
            yield self._open(distinct(np.concatenate(held)))

    def _ordered(self, pairs: Pairs) -> Pairs:
        """Pairs of members first, for those are not skipped for what others connect; likely pairs before others."""
        ends = members_of(pairs)
        likely = likeness(self._found.sketch, ends).astype(np.int64)
        return pairs[np.lexsort((pairs, -likely, ~self._of_members(ends)))]

    def _open(self, pairs: Pairs) -> Pairs:
        pairs = pairs[self._are_apart(members_of(pairs))]
        places = np.minimum(np.searchsorted(self._refused, pairs), max(len(self._refused) - 1, 0))
        return pairs[self._refused[places] != pairs] if len(self._refused) else pairs

    def _are_apart(self, ends: Indices) -> Mask:
        """Which pairs could connect something: any texts, or two members that only others connect."""
        result = self._of_members(ends)
        result &= apart(self.members, ends)
        result |= apart(self.everything, ends)
        return result

    def _of_members(self, ends: Indices) -> Mask:
        both: Mask = self._is_member[ends[:, 0]] & self._is_member[ends[:, 1]]
        return both

    def _round(self, name: str, pairs: Pairs, trees: int) -> Pairs:
        """Verify of the pairs all that fit, and as many of the others as `trees` spanning forests hold; those still to
        be looked at."""
        ends = members_of(pairs)
        chosen, cluster = self._chosen(ends, trees)
        asked = np.flatnonzero(chosen)
        asked = asked[np.argsort(cluster[asked], kind="stable")]
        documents = self._found.standing[ends[asked]]
        is_near = verified(self._texts, self._stages, name, self._near, documents, cluster[asked])
        near = ends[asked[is_near]]
        join(self.everything, near)
        join(self.members, near[self._of_members(near)])
        self._refuse(pairs[asked[~is_near]])
        left = ~chosen
        left[left] = self._are_apart(ends[left])
        return pairs[left]

    def _chosen(self, ends: Indices, trees: int) -> tuple[Mask, Indices]:
        """Which pairs to verify now, and for each pair a number of the texts that pairs connect with its own."""
        flatten(self.everything)
        edges = self.everything[ends]
        whole = np.arange(len(self.everything))
        join(whole, edges)
        flatten(whole)
        is_asked = np.zeros(len(whole), bool)
        is_asked[ends] = True
        together = np.bincount(whole[self.everything[is_asked]], self._bytes[is_asked], len(whole))
        cluster = whole[edges[:, 0]]
        chosen = (together[cluster] <= CLUSTER_BYTES) | (edges[:, 0] == edges[:, 1])
        for _ in range(0 if chosen.all() else trees):
            spanning(np.arange(len(whole)), edges, chosen)
        return chosen, cluster

    def _refuse(self, pairs: Pairs) -> None:
        both = distinct(np.concatenate([self._refused, pairs]))
        self._refused = both if len(both) <= REFUSED_MAX else np.sort(pairs)[:REFUSED_MAX]
