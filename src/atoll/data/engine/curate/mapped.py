"""A batch's documents read by memory map, portion by portion, so that little of the file is resident at once."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

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


def let_go(mapped: mmap.mmap) -> None:
    """Have no page of a mapped file in memory; the file is what it was."""
    if _LET_GO is not None:
        mapped.madvise(_LET_GO)
