"""Files read by memory map, portion by portion, so that little of a file is resident at once: a batch's documents, and
rows of an array."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.scan import utf8_of

PORTION_BYTES = 2 << 20
_LET_GO = getattr(mmap, "MADV_DONTNEED", None)
"""Pages of a mapped file that are let go are read again where they are needed; None: not on this system."""


def portions(path: Path, portion_bytes: int) -> Iterator[tuple[slice, pa.RecordBatch]]:
    """The rows of the batch in an Arrow file, each time about `portion_bytes` of text, and which of all they are.

    What is yielded stays valid; pages of the file that were read for it do not stay in memory.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    batch = pa.ipc.open_file(pa.py_buffer(mapped)).get_batch(0)
    starts = utf8_of(batch.column("text"))[1]
    edges = np.flatnonzero(np.diff(starts[:-1] // portion_bytes)) + 1
    for start, stop in pairwise([0, *edges.tolist(), batch.num_rows]):
        yield slice(start, stop), batch.slice(start, stop - start)
        let_go(mapped)


class Rows:
    """An array of bytes in a file, uint8 (rows, width)."""

    def __init__(self, path: Path, width: int) -> None:
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._mapped, np.uint8).reshape(-1, width)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the rows at `places`, which ascend; uint8 (places, width)."""
        result = np.empty((len(places), self._rows.shape[1]), np.uint8)
        edges = np.flatnonzero(np.diff(places // (PORTION_BYTES // self._rows.shape[1]))) + 1
        for start, stop in pairwise([0, *edges.tolist(), len(places)]):
            np.take(self._rows, places[start:stop], axis=0, out=result[start:stop])
            let_go(self._mapped)
        return result


def let_go(mapped: mmap.mmap) -> None:
    """Have no page of a mapped file in memory; the file is what it was."""
    if _LET_GO is not None:
        mapped.madvise(_LET_GO)
