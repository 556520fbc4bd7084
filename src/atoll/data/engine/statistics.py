"""The statistics of documents as an Arrow table: one row a document, one column a number a rule may speak of.

The columns and their meaning are `atoll.data.rules.COLUMNS`. Everything comes from one scan of each text; nothing is
estimated. What a number says about quality is for rules to decide.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from atoll.data.engine.hashing import mix
from atoll.data.engine.scan import COUNTS, Scan, utf8_of
from atoll.data.rules import COLUMNS

Numbers = NDArray[np.float64]

DIGEST_BYTES = 16


def statistics(texts: pa.StringArray, scan: Scan) -> pa.RecordBatch:
    """One row of COLUMNS for each of `texts`, which `scan` was made of."""
    count = dict(zip(COUNTS, scan.counts.T, strict=True))
    words, lines = np.diff(scan.token_starts), np.diff(scan.line_starts)
    solid = count["characters"] - count["spaces"]
    columns = {
        "characters": count["characters"],
        "bytes": np.diff(utf8_of(texts)[1]),
        "words": words,
        "lines": lines,
        "mean_word_length": _ratio(count["word_characters"], words),
        "mean_line_length": _ratio(count["characters"], lines),
        "alpha_ratio": _ratio(count["letters"], solid),
        "digit_ratio": _ratio(count["digits"], solid),
        "symbol_ratio": _ratio(solid - count["letters"] - count["digits"], solid),
        "duplicate_line_ratio": _ratio(lines - _distinct_lines(scan), lines),
        "stop_words": count["stop_words"],
        "stop_word_ratio": _ratio(count["stop_words"], words),
        "latin_share": _ratio(count["latin"], count["letters"]),
        "cjk_share": _ratio(count["cjk"], count["letters"]),
    }
    return pa.record_batch({name: np.ascontiguousarray(columns[name]) for name in COLUMNS})


def exact_digests(texts: pa.StringArray) -> list[bytes]:
    """XXH3-128 of each text: equal for equal texts."""
    data, starts = utf8_of(texts)
    view = data.data
    return [xxhash.xxh3_128_digest(view[start:stop]) for start, stop in pairwise(starts.tolist())]


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Numbers:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _distinct_lines(scan: Scan) -> NDArray[np.int64]:
    """How many different lines each text has."""
    texts = np.repeat(np.arange(len(scan.counts)), np.diff(scan.line_starts))
    # a text's number mixed into its line hashes: then one sort finds the repetitions of every text
    keys = scan.lines ^ mix(texts.astype(np.uint64))
    first = np.unique(keys, return_index=True)[1]
    return np.bincount(texts[first], minlength=len(scan.counts))
