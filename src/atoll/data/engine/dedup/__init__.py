"""Deduplication: exact, by URL, near, repeated lines and substrings, by meaning, and against an index of earlier runs.

Each kind looks at what the kinds before it left, in that order; of each cluster the document that is first in the keep
order stays. All of it depends on the documents alone, never on their order, batches, workers or interruptions (only
the policy `first` goes by the order of the sources). Heavy parts are stages; in memory are some words a document and
one part of a stage.

Not known here: rules, languages, and where a run's files are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup import exact, index, near, repeats, urls
from atoll.data.engine.dedup.cuts import Cuts, Spans
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.keep import losers, ranks
from atoll.data.engine.dedup.spec import Dedup, Lines, Near, Semantic, Substrings
from atoll.data.engine.runtimes.stages import Stages

if TYPE_CHECKING:
    from atoll.data.engine.dedup.embedder import Embed

__all__ = [
    "Cuts",
    "Dedup",
    "Indices",
    "Lines",
    "Mask",
    "Near",
    "Semantic",
    "Spans",
    "Substrings",
    "Verdict",
    "find_duplicates",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What deduplication decides.

    kept: the members that stay. reasons: who is dropped, by reason, in order, disjoint. clusters: int64 (documents,),
    for every document, member or not, the least document of its cluster, which no split may cut. cuts: what is cut out
    of the texts that stay, or None.
    """

    kept: Mask
    reasons: dict[str, Mask]
    clusters: Indices
    cuts: Cuts | None


def find_duplicates(corpus: Corpus, stages: Stages, spec: Dedup, members: Mask, embed: Embed | None = None) -> Verdict:
    """Find the duplicates among `members`, a mask over the documents of those no earlier step dropped.

    stages: their folder must belong to these documents, members and spec, for what it holds is not redone. embed: what
    `semantic` embeds with in place of the built-in model. Raises Invalid where the spec names what there is not.
    """
    rank = ranks(corpus, spec.keep, spec.quality)
    kept = members.copy()
    reasons: dict[str, Mask] = {}

    def drop(reason: str, lost: Mask) -> None:
        reasons[reason] = lost
        kept[lost] = False

    equal = exact.groups(corpus)
    if spec.exact:
        drop("exact_duplicate", losers(equal.first, kept, rank))
    if spec.url:
        drop("url_duplicate", losers(urls.groups(corpus, stages), kept, rank))
    clusters = near.find(corpus, stages, spec.near or Near(), kept, equal)
    if spec.near:
        drop("near_duplicate", losers(clusters.members, kept, rank))
    cuts = None
    if spec.lines or spec.substrings:
        cuts, lost = repeats.find(corpus, stages, spec, kept, rank)
        drop("repeated_text", lost)
    if spec.semantic:
        from atoll.data.engine.dedup import semantic  # it brings a client that nothing else here needs

        alike = semantic.clusters(corpus, stages, spec.semantic, kept, embed)
        drop("semantic_duplicate", losers(alike, kept, rank))
    if spec.index:
        drop("known_before", index.known(corpus, stages, spec, kept))
    return Verdict(kept, reasons, clusters.everything, cuts)
