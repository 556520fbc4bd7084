"""An external sort: records of all batches, brought together shard by shard by the upper bits of their hash.

Each batch writes its records ordered by hash, with the places where the shards begin; a shard's item maps its slice of
every batch. What comes of a shard goes back the same way, ordered by batch. So no more than a shard, or a batch, is in
memory at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.exact import Indices
from atoll.data.engine.hashing import U64

SHARD_BYTES = 64 << 20
"""Bytes of text for each shard, about."""

SHARDS_FEW, SHARD_BYTES_MIN = 4, 4 << 20
"""A corpus that would fit in one is sorted in some shards all the same, of so many bytes or more: work for several."""

RECORDS = "records"
"""A file of records: where its parts begin (int64, one more than parts), then the columns one behind the other."""

Columns = Mapping[str, type[np.generic]]
"""Names of columns, and the kind of number of each, in the order they are written."""


def shards_of(text_bytes: int) -> int:
    """How many shards a corpus of so many bytes is sorted in: a power of two."""
    wanted = max(-(-text_bytes // SHARD_BYTES), min(SHARDS_FEW, text_bytes // SHARD_BYTES_MIN))
    return 1 << max(0, wanted - 1).bit_length()


def save_by_hash(folder: Path, hashes: U64, shards: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write `hash` and the columns ordered by hash (stable), and where each shard begins."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    step = 64 - (shards.bit_length() - 1)
    begins = [np.searchsorted(ordered, np.uint64(shard << step)) for shard in range(shards)] if shards > 1 else [0]
    _save(folder, [*begins, len(ordered)], [ordered, *(values[order] for values in columns.values())])


def save_by_batch(folder: Path, batches: NDArray[np.int32], count: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns ordered by batch (stable), and where each of the `count` batches begins."""
    order = np.argsort(batches, kind="stable")
    bounds = np.searchsorted(batches[order], np.arange(count + 1))
    _save(folder, bounds, [values[order] for values in columns.values()])


def gathered(folders: Sequence[Path], part: int, parts: int, columns: Columns) -> dict[str, NDArray[Any]]:
    """The columns of one of `parts` shards (or batches) from all folders, in their order. `origin` says which folder a
    record is from, int32; `place`, int64, where it stands among all in it."""
    found: dict[str, list[NDArray[Any]]] = {name: [np.empty(0, kind)] for name, kind in columns.items()}
    spans = [_read(folder / RECORDS, part, parts, columns, found) for folder in folders]
    counts = [stop - begin for begin, stop in spans]
    ranges = [np.empty(0, np.int64), *(np.arange(begin, stop) for begin, stop in spans)]
    found["origin"] = [np.repeat(np.arange(len(folders), dtype=np.int32), counts)]
    found["place"] = ranges
    return {name: np.concatenate(values) for name, values in found.items()}


def columns_in(folder: Path, parts: int, columns: Columns) -> dict[str, NDArray[Any]]:
    """The columns of all records of a folder, mapped."""
    data = raw.mapped(folder / RECORDS, np.uint8)
    head = data[: 8 * (parts + 1)]
    count = int(head.view(np.int64)[-1])
    result, begin = {}, len(head)
    for name, kind in columns.items():
        stop = begin + count * np.dtype(kind).itemsize
        result[name] = data[begin:stop].view(kind)
        begin = stop
    return result


def _read(path: Path, part: int, parts: int, columns: Columns, found: dict[str, list[NDArray[Any]]]) -> tuple[int, int]:
    """Add one part of a file of records to what was found; where the part begins and stops."""
    with path.open("rb") as file:
        bounds = np.fromfile(file, np.int64, parts + 1)
        begin, stop, first = int(bounds[part]), int(bounds[part + 1]), bounds.nbytes
        for name, kind in columns.items() if begin < stop else ():
            size = np.dtype(kind).itemsize
            file.seek(first + begin * size)
            found[name].append(np.fromfile(file, kind, stop - begin))
            first += int(bounds[-1]) * size
    return begin, stop


def _save(folder: Path, bounds: Sequence[int] | Indices, columns: Sequence[NDArray[Any]]) -> None:
    raw.write(folder / RECORDS, np.asarray(bounds, np.int64), *columns)
