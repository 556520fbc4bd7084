"""Counting: how many findings of each kind every text of a batch holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from atoll.data.engine.privacy.candidates import candidates
from atoll.data.engine.privacy.find import Finder
from atoll.data.engine.privacy.kinds import KINDS

COLUMNS = tuple(f"pii_{kind}" for kind in KINDS)


def count(texts: pa.StringArray, finder: Finder) -> pa.RecordBatch:
    """int32 columns `pii_<kind>` of every kind; 0 for kinds the finder does not look for."""
    numbers = np.zeros((len(KINDS), len(texts)), np.int32)
    scanned = candidates(texts)
    rows, starts = scanned.rows, scanned.starts
    edges = np.searchsorted(rows[:, 1], np.arange(len(texts) + 1))
    looked_at = range(len(texts)) if finder.names else np.flatnonzero(np.diff(edges)).tolist()
    for text in looked_at:
        candidate = rows[edges[text] : edges[text + 1]]
        for span in finder.verified(scanned.data, int(starts[text]), int(starts[text + 1]), candidate):
            numbers[KINDS.index(span.kind), text] += 1
    return pa.record_batch(list(numbers), names=list(COLUMNS))
