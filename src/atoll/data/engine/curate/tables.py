"""Tables of a share of the output: Parquet files in one folder, written batch by batch.

Equal rows in equal batches give equal bytes (with the same Arrow version). What the rows mean is not known here.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

DICTIONARY_COLUMNS = ("source", "reason", "language")
"""Columns of few different values; the others are written as they are."""


class Tables:
    """Open Parquet files, one a table; a table nothing was added to has no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self.rows: dict[str, int] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, name: str, batch: pa.RecordBatch) -> None:
        """Add rows to a table, whose columns are those of its first rows."""
        if not batch.num_rows:
            return
        if name not in self._writers:
            self._writers[name] = _writer(self._folder / f"{name}.parquet", batch.schema)
        self._writers[name].write_batch(batch, row_group_size=max(1, batch.num_rows))
        self.rows[name] = self.rows.get(name, 0) + batch.num_rows


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    few = [name for name in DICTIONARY_COLUMNS if name in schema.names]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=few, write_statistics=few)
