"""Reading Parquet in the thread that asks.

Arrow's own readers go on in threads after the call has returned, with streams of Python in their hands; a process that
ends meanwhile is aborted, or never ends (apache/arrow issues 34314 and 50482). What we read is small enough for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 1 << 16


def open_parquet(source: Any, buffer_bytes: int = 0) -> pq.ParquetFile:
    """The file at a path or in a stream; ArrowInvalid when it is not Parquet. buffer_bytes: what is held of it at a
    time, 0: a column of a row group."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, pre_buffer=False, buffer_size=buffer_bytes)


def batches_in(
    file: pq.ParquetFile,
    rows: int = BATCH_ROWS,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Some rows at a time: of all columns, or of those named; of all row groups, or of those numbered."""
    yield from file.iter_batches(rows, row_groups=groups, columns=list(columns) if columns else None, use_threads=False)


def table_in(source: Any) -> pa.Table:
    """All of the file at a path or in a stream."""
    with open_parquet(source) as file:
        return file.read(use_threads=False)
