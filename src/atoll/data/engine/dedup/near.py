"""Near duplicates: candidates of MinHash bands, every one verified by the exact Jaccard index before it counts.

A cluster is a connected component of two kinds of edges: documents of equal texts, and candidate pairs (`candidates`)
whose shingle sets have at least the Jaccard index asked for. So clusters depend on the set of texts alone, not on
their order, the batches or who computed what; and only pairs that could still connect something are verified.
Pairs the signatures miss (less than 1 % at the threshold, next to none above it) stay apart unless others connect them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup.candidates import Candidates, candidates
from atoll.data.engine.dedup.exact import Indices, Mask, groups
from atoll.data.engine.dedup.forest import Pairs, apart, flatten, join, members_of, spanning
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.dedup.verify import sizes, verified
from atoll.data.engine.runtimes.stages import Stages

PAIRS_AT_ONCE = 1 << 20
REFUSED_MAX = 4 << 20
"""So many refused pairs are remembered; more are verified again when another band proposes them."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """For every document the least document of its cluster: among the members alone (others are alone), and among
    all documents; int64 (documents,) each."""

    members: Indices
    everything: Indices


def find(corpus: Corpus, stages: Stages, near: Near, members: Mask) -> Clusters:
    """The clusters of near duplicates; heavy parts are stages named `dedup-…`."""
    equal = groups(corpus)
    found = candidates(corpus, stages, near)
    is_member = np.zeros(len(corpus), bool)
    is_member[equal[members]] = True  # by the document that stands for the text
    search = _Search(corpus, stages, near, found)
    search.join("members", is_member[found.standing])
    among_members = search.roots(equal, members)
    if not members.all():
        search.join("all", np.ones(len(found.standing), bool))
    return Clusters(among_members, search.roots(equal, np.ones(len(corpus), bool)))


class _Search:
    """The forest over the texts, which grows by verified pairs."""

    def __init__(self, corpus: Corpus, stages: Stages, near: Near, found: Candidates) -> None:
        self._corpus, self._stages, self._near, self._found = corpus, stages, near, found
        self._sizes = sizes(corpus)
        self._parents = np.arange(len(found.standing))
        self._refused = np.empty(0, np.uint64)

    def join(self, name: str, taken: Mask) -> None:
        """Join all candidate pairs of texts in `taken` that verify."""
        for number, waiting in enumerate(self._waiting(taken)):
            pairs, step = waiting, 0
            while len(pairs):
                pairs = self._round(f"dedup-verify/{name}-{number:04d}-{step:02d}", pairs, 1 << step)
                step += 1

    def roots(self, equal: Indices, members: Mask) -> Indices:
        """The least document of each document's cluster; one that is no member is alone."""
        flatten(self._parents)
        count = len(equal)
        label = equal.copy()
        label[self._found.standing] = self._found.standing[self._parents]
        label = label[equal]
        least = np.full(count, count, np.int64)
        np.minimum.at(least, label[members], np.flatnonzero(members))
        return np.where(members, least[label], np.arange(count))

    def _waiting(self, taken: Mask) -> Iterator[Pairs]:
        """The pairs within `taken` that are neither connected nor refused, about PAIRS_AT_ONCE together, each once."""
        held: list[Pairs] = []
        for path in self._found.pairs:
            band = np.load(path, mmap_mode="r")
            for start in range(0, len(band), PAIRS_AT_ONCE):
                held.append(self._open(np.array(band[start : start + PAIRS_AT_ONCE]), taken))
                if sum(map(len, held)) >= PAIRS_AT_ONCE:
                    yield self._open(np.unique(np.concatenate(held)), taken)
                    held = []
        if held:
            yield self._open(np.unique(np.concatenate(held)), taken)

    def _open(self, pairs: Pairs, taken: Mask) -> Pairs:
        members = members_of(pairs)
        pairs = pairs[taken[members].all(axis=1) & apart(self._parents, members)]
        places = np.minimum(np.searchsorted(self._refused, pairs), max(len(self._refused) - 1, 0))
        return pairs[self._refused[places] != pairs] if len(self._refused) else pairs

    def _round(self, name: str, pairs: Pairs, trees: int) -> Pairs:
        """Verify as many of the pairs as `trees` spanning forests hold; those still to be looked at."""
        members = members_of(pairs)
        chosen = np.zeros(len(pairs), bool)
        whole = self._parents.copy()
        spanning(whole, members, chosen)
        for _ in range(trees - 1):
            spanning(self._parents.copy(), members, chosen)
        flatten(whole)
        asked = np.flatnonzero(chosen)
        asked = asked[np.argsort(whole[members[asked, 0]], kind="stable")]  # one cluster's texts are shingled once
        documents = self._found.standing[members[asked]]
        is_near = verified(self._corpus, self._stages, name, self._near, documents, self._sizes)
        join(self._parents, members[asked[is_near]])
        self._refuse(pairs[asked[~is_near]])
        left = ~chosen
        left[left] = apart(self._parents, members[left])
        return pairs[left]

    def _refuse(self, pairs: Pairs) -> None:
        both = np.union1d(self._refused, pairs)
        self._refused = both if len(both) <= REFUSED_MAX else np.sort(pairs)[:REFUSED_MAX]
