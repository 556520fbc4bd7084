"""The split: which documents are held out from training, so that nothing held out was seen.

Whole clusters of near duplicates go to one side, chosen by a hash of the cluster's name and the seed, so a cluster
stays where it is when others come or go. Derived question pairs follow their document. Texts that are alike in
meaning but not in words are not recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from atoll.data.engine.hashing import hash_text


def cluster_names(clusters: Iterable[int], ids: Sequence[str]) -> list[str]:
    """For every document the smallest id in its cluster, whatever the order of the documents."""
    names: dict[int, str] = {}
    numbers = [int(cluster) for cluster in clusters]
    for number, name in zip(numbers, ids, strict=True):
        names[number] = min(name, names.get(number, name))
    return [names[number] for number in numbers]


def heldout_names(names: Iterable[str], fraction: float, seed: int) -> frozenset[str]:
    """The clusters to hold out, about `fraction` of them.

    With a fraction above 0 and two clusters or more, each side gets at least one.
    """
    ranked = sorted({(hash_text(name, seed), name) for name in names})
    if fraction <= 0 or len(ranked) < 2:
        return frozenset()
    below = sum(place < fraction * 2**64 for place, _ in ranked)
    count = min(max(below, 1), len(ranked) - 1)
    return frozenset(name for _, name in ranked[:count])
