"""Output: the rows of a split as Parquet shards in the blob store.

Shards are cut by size alone, so equal rows in equal order give equal bytes (with the same Arrow version). A shard
nobody's manifest names is invisible and collected later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atoll.core.blobs import BlobStore
from atoll.core.files import disk_full_named
from atoll.data.manifest import Shard, Split, arrow_schema

SHARD_BYTES = 32 << 20


class SplitWriter:
    """Takes the rows of one split in order; `close` gives the split."""

    def __init__(self, store: BlobStore, folder: Path, columns: dict[str, str], shard_bytes: int = SHARD_BYTES) -> None:
        self._store = store
        self._path = folder / "shard.parquet"
        self._schema = arrow_schema(columns)
        self._shard_bytes = shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._shards: list[Shard] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += sum(len(value) if isinstance(value, str) else 8 for value in row.values())
        if self._bytes >= self._shard_bytes:
            self._cut()

    def close(self) -> Split:
        """Write what is left; the split with all its shards."""
        if self._rows:
            self._cut()
        return Split(tuple(self._shards), sum(shard.rows for shard in self._shards))

    def _cut(self) -> None:
        table = pa.Table.from_pylist(self._rows, self._schema)
        with disk_full_named(self._path):
            pq.write_table(table, self._path, compression="zstd")
        blob = self._store.put_file(self._path)
        self._path.unlink()
        self._shards.append(Shard(blob.digest, table.num_rows, blob.size_bytes))
        self._rows, self._bytes = [], 0
