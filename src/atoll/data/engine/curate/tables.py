"""Tables of a share of the output: Parquet files in one folder, written batch by batch.

Equal rows in equal batches give equal bytes (with the same Arrow version). What the rows mean is not known here.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

DICTIONARY_COLUMNS = ("source", "reason", "language")
"""Columns of few different values; the others are written as they are."""


ROW_GROUP_BYTES = 4 << 20
"""A row group has at least so much, as it is in memory, but for the last of a table."""

PAGE_BYTES = 256 << 10
"""A page, which is encoded and compressed as a whole, and with it what that takes, is about so large."""

PAGE_LOOK_ROWS = 64
"""How often is looked whether a page is full; a page is never cut sooner."""


class Tables:
    """Open Parquet files, one a table; a table nothing was added to has no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._held: dict[str, list[pa.RecordBatch]] = {}
        self._held_bytes: Counter[str] = Counter()
        self.rows: dict[str, int] = {}

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            for name in self._held if error is None else ():
                self._write(name)
        finally:
            for name, writer in self._writers.items():
                writer.close()
                _begin_to_save(self._path(name))

    def add(self, name: str, batch: pa.RecordBatch) -> None:
        """Add rows to a table, whose columns are those of its first rows."""
        self.hold(name, batch)
        self.write_full()

    def hold(self, name: str, batch: pa.RecordBatch) -> None:
        """Add rows to a table, to be written at the next occasion."""
        if batch.num_rows:
            self._held.setdefault(name, []).append(batch)
            self._held_bytes[name] += batch.nbytes
            self.rows[name] = self.rows.get(name, 0) + batch.num_rows

    def write_full(self) -> None:
        """Write the tables of which enough is held for a row group."""
        for name, held_bytes in self._held_bytes.items():
            if held_bytes >= ROW_GROUP_BYTES:
                self._write(name)

    def _write(self, name: str) -> None:
        """Write what is held of a table as a row group."""
        held, self._held[name], self._held_bytes[name] = self._held[name], [], 0
        if not held:
            return
        if name not in self._writers:
            self._writers[name] = _writer(self._path(name), held[0].schema)
        table = pa.Table.from_batches(held)
        self._writers[name].write_table(table, row_group_size=table.num_rows)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


def _begin_to_save(path: Path) -> None:
    """Have the kernel begin to write the file to disk, so that whoever syncs it later waits less."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    few = [name for name in DICTIONARY_COLUMNS if name in schema.names]
    sizes = {"data_page_size": PAGE_BYTES, "write_batch_size": PAGE_LOOK_ROWS}
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=few, write_statistics=few, **sizes)
