"""Rows of a split as numbers: what a row is called and what it holds, hashed, spilled to disk by bucket.

A row is known by XXH3-64 of its id, what it holds by XXH3-64 of its other columns (of ten million rows, two share a
number with probability 3e-6). Memory is bounded by one batch and one bucket, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from atoll.core.errors import IntegrityError
from atoll.data.archive import Opened
from atoll.data.manifest import Shard
from atoll.data.parquet import batches_in, open_parquet

BATCH_ROWS = 2_048
BUCKETS = 64
RECORD = np.dtype([("id", "<u8"), ("content", "<u8"), ("shard", "<u4"), ("row", "<u4")])
"""One row: hashes of its id and of what it holds, and where it stands."""

Place = tuple[int, int]
"""Number of the shard (in the list given) and of the row in it."""


def batches(
    opened: Opened, path: str, shard: Shard, columns: Collection[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one shard, a few at a time: all columns, or those of `columns` that are there, none without any.

    IntegrityError names a shard that is damaged.
    """
    try:
        with opened.open(path, shard) as stream:
            file = open_parquet(stream)
            wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
            if wanted != []:
                yield from batches_in(file, BATCH_ROWS, wanted)
    except (pa.ArrowException, OSError) as error:
        words = f"{opened.name}: {path} is damaged, it cannot be read as Parquet: {error}"
        raise IntegrityError(words, hint="export it again, or copy it again", path=path) from error


def record_batch(batch: pa.RecordBatch, shard: int, first_row: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The rows of a batch as RECORDs; a row without an id is known by what it holds."""
    records = np.zeros(batch.num_rows, RECORD)
    names = batch.schema.names
    told = [batch.column(i).to_pylist() for i, name in enumerate(names) if name != "id"]
    records["content"] = [_hash(values) for values in zip(*told, strict=True)] if told else 0
    ids = batch.column(names.index("id")).to_pylist() if "id" in names else None
    records["id"] = [_hash(name) for name in ids] if ids is not None else records["content"]
    records["shard"], records["row"] = shard, np.arange(first_row, first_row + batch.num_rows)
    return records


def spill(opened: Opened, shards: Sequence[tuple[str, Shard]], folder: Path) -> None:
    """Write the RECORDs of all rows into the bucket files of `folder`, by the highest bits of their id's hash."""
    folder.mkdir(parents=True)
    for number, (path, shard) in enumerate(shards):
        row = 0
        for batch in batches(opened, path, shard):
            records = record_batch(batch, number, row)
            row += batch.num_rows
            bucket_of = records["id"] >> np.uint64(58)
            for bucket in np.unique(bucket_of):
                with (folder / f"{bucket:02d}").open("ab") as file:
                    file.write(records[bucket_of == bucket].tobytes())


def bucket(folder: Path, number: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """One bucket, one RECORD for each id (the first), by id."""
    path = folder / f"{number:02d}"
    records = np.fromfile(path, RECORD) if path.exists() else np.zeros(0, RECORD)
    _, first = np.unique(records["id"], return_index=True)
    found: np.ndarray[tuple[int], np.dtype[np.void]] = records[first]
    return found


def rows_at(
    opened: Opened, shards: Sequence[tuple[str, Shard]], places: Sequence[Place]
) -> dict[Place, Mapping[str, object]]:
    """The rows at `places`; each shard concerned is read once."""
    found: dict[Place, Mapping[str, object]] = {}
    for number in sorted({shard for shard, _ in places}):
        wanted = {row for shard, row in places if shard == number}
        first = 0
        for batch in batches(opened, *shards[number]):
            for row in sorted(wanted):
                if first <= row < first + batch.num_rows:
                    found[number, row] = batch.slice(row - first, 1).to_pylist()[0]
            first += batch.num_rows
            if first > max(wanted):
                break
    return found


def _hash(value: object) -> int:
    return xxhash.xxh3_64_intdigest(repr(value).encode())
