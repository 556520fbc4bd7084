"""Who stays of a group of duplicates: a total order of all documents, the same whatever order they came in.

`longest`: more characters first. `best`: a higher score of quality first, then more characters. `first`: the order of
the sources. Ties go to the smaller id.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atoll.core.errors import Invalid
from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.dedup.exact import Indices, Mask

POLICIES = ("longest", "best", "first")


def ranks(corpus: Corpus, keep: str, quality: str = "") -> Indices:
    """The rank of every document in the keep order; 0 stays before all others. int64 (documents,).

    Raises Invalid for a policy or a quality column there is not.
    """
    if keep not in POLICIES:
        raise Invalid(f"keep is {keep!r}", field="recipe.dedup.keep", hint=f"one of {', '.join(POLICIES)}")
    count = len(corpus)
    if keep == "first" or not count:
        return np.arange(count, dtype=np.int64)
    columns = {"characters": pa.array(corpus.column("characters"))}
    if keep == "best":
        scores = corpus.column(_quality_column(corpus, quality)).astype(np.float64)
        columns = {"quality": pa.array(np.nan_to_num(scores, nan=-np.inf))} | columns
    table = pa.table({**columns, "id": corpus.ids()})
    keys = [(name, "descending") for name in columns] + [("id", "ascending")]
    result = np.empty(count, np.int64)
    result[pc.sort_indices(table, sort_keys=keys).to_numpy()] = np.arange(count)
    return result


def losers(clusters: Indices, members: Mask, rank: Indices) -> Mask:
    """Which members are dropped: all but the one of least rank in each cluster. clusters: a group's number each."""
    best = np.full(len(clusters), len(clusters), np.int64)
    np.minimum.at(best, clusters[members], rank[members])
    lost: Mask = members & (rank != best[clusters])
    return lost


def _quality_column(corpus: Corpus, asked: str) -> str:
    names = [name for name in corpus.batches[0].notes.schema.names if name.startswith("quality_")]
    if asked in names or (names and not asked):
        return asked or names[0]
    raise Invalid(
        f"keep is 'best' but there is no column {asked or 'quality_…'!r}",
        field="recipe.dedup.keep",
        hint="name a model under `quality` in the recipe, or keep the longest",
    )
