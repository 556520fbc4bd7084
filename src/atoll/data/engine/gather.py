"""Gather: strings picked row by row, some with others in their place, copied once into memory of exactly their size.

Arrow's own take, filter and replace_with_mask grow what they build, which touches twice the memory. Columns have no
nulls here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.kernel import kernel
from atoll.data.engine.scan import utf8_of

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

OWN = -1
"""In the table of replacements: the row is taken as it is."""


def gathered(texts: pa.StringArray, rows: I64, instead: Mapping[int, bytes] | None = None) -> pa.StringArray:
    """The strings of `rows`, int64 in any order and as often as named; `instead` has the UTF-8 of some rows.

    ArrowCapacityError where they have more bytes than one column holds.
    """
    assert not texts.null_count, "a column of strings has nulls"
    data, starts = utf8_of(texts)
    instead = instead or {}
    places = np.full(len(texts), OWN, np.int64)
    places[list(instead)] = np.arange(len(instead))
    others = np.frombuffer(b"".join(instead.values()), np.uint8)
    begins = np.cumsum([0, *map(len, instead.values())], dtype=np.int64)
    lengths = np.diff(starts)[rows]
    replaced = places[rows] != OWN
    lengths[replaced] = np.diff(begins)[places[rows[replaced]]]
    stops = np.cumsum(lengths)
    size = int(stops[-1]) if len(stops) else 0
    if size > np.iinfo(np.int32).max:
        raise pa.ArrowCapacityError(f"{size} bytes of text in one column, it can have {np.iinfo(np.int32).max}")
    offsets = np.zeros(len(rows) + 1, np.int32)
    offsets[1:] = stops
    picked = np.empty(size, np.uint8)
    _copy(data, starts, others, begins, places, rows, offsets, picked)
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(picked))


@kernel
def _copy(
    data: U8, starts: I64, others: U8, begins: I64, places: I64, rows: I64, offsets: NDArray[np.int32], picked: U8
) -> None:
    for number in range(len(rows)):
        row = rows[number]
        start, stop = offsets[number], offsets[number + 1]
        if places[row] == OWN:
            picked[start:stop] = data[starts[row] : starts[row + 1]]
        else:
            begin = begins[places[row]]
            picked[start:stop] = others[begin : begin + stop - start]
