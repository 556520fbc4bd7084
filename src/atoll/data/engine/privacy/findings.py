"""Findings: where in the texts of a batch personal data stands. They are places; no value is in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.privacy.find import Finder
from atoll.data.engine.privacy.kinds import KINDS, Span
from atoll.data.engine.scan import utf8_of

Findings = NDArray[np.int32]
"""int32 (n, 4): text, first byte, byte behind the last, place of the kind in KINDS; in order, in a text disjoint."""

COLUMNS = tuple(f"pii_{kind}" for kind in KINDS)

_PLACES = {kind: place for place, kind in enumerate(KINDS)}


def found_in(texts: pa.StringArray, finder: Finder) -> Findings:
    """Every finding in `texts`."""
    found = finder.found(*utf8_of(texts))
    rows = [(text, span.start, span.stop, _PLACES[span.kind]) for text, spans in found for span in spans]
    return np.array(rows, np.int32).reshape(-1, 4)


def by_text(found: Findings) -> dict[int, list[Span]]:
    """The findings of each text that has any, in bytes."""
    spans: dict[int, list[Span]] = {}
    for text, start, stop, kind in found.tolist():
        spans.setdefault(text, []).append(Span(start, stop, KINDS[kind]))
    return spans


def counted(found: Findings, texts: int) -> pa.RecordBatch:
    """int32 columns `pii_<kind>` of every kind: how many findings of it each of `texts` texts has."""
    numbers = [np.bincount(found[found[:, 3] == kind, 0], minlength=texts) for kind in range(len(KINDS))]
    return pa.record_batch([column.astype(np.int32) for column in numbers], names=list(COLUMNS))


def count(texts: pa.StringArray, finder: Finder) -> pa.RecordBatch:
    """int32 columns `pii_<kind>` of every kind; 0 for kinds the finder does not look for."""
    return counted(found_in(texts, finder), len(texts))
