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

from atoll.data.engine.dedup.exact import Indices
from atoll.data.engine.hashing import U64

SHARD_BYTES = 64 << 20
"""Bytes of text for each shard, about."""

BOUNDS = "bounds.npy"


def shards_of(text_bytes: int) -> int:
    """How many shards a corpus of so many bytes is sorted in: a power of two."""
    return 1 << max(0, -(-text_bytes // SHARD_BYTES) - 1).bit_length()


def save_by_hash(folder: Path, hashes: U64, shards: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns and `hash` ordered by hash (stable), and where each shard begins."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    step = 64 - (shards.bit_length() - 1)
    begins = [np.searchsorted(ordered, np.uint64(shard << step)) for shard in range(shards)] if shards > 1 else [0]
    _save(folder, np.array([*begins, len(ordered)]), {"hash": ordered} | {k: v[order] for k, v in columns.items()})


def save_by_batch(folder: Path, batches: NDArray[np.int32], count: int, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns ordered by batch (stable), and where each of the `count` batches begins."""
    order = np.argsort(batches, kind="stable")
    bounds = np.searchsorted(batches[order], np.arange(count + 1))
    _save(folder, bounds, {name: values[order] for name, values in columns.items()})


def gathered(folders: Sequence[Path], part: int, columns: Mapping[str, type[np.generic]]) -> dict[str, NDArray[Any]]:
    """The columns of one shard (or batch) from all folders, in their order; `origin` says which folder: int32.

    columns: the kind of number of each, as it was written.
    """
    bounds = [np.load(folder / BOUNDS)[part : part + 2].tolist() for folder in folders]
    result = {name: _joined(folders, bounds, name, kind) for name, kind in columns.items()}
    counts = [stop - begin for begin, stop in bounds]
    return result | {"origin": np.repeat(np.arange(len(folders), dtype=np.int32), counts)}


def _joined(folders: Sequence[Path], bounds: list[list[int]], name: str, kind: type[np.generic]) -> NDArray[Any]:
    size = np.dtype(kind).itemsize
    parts = [np.empty(0, kind)]
    for folder, (begin, stop) in zip(folders, bounds, strict=True):
        if begin < stop:
            parts.append(np.fromfile(folder / name, kind, stop - begin, offset=begin * size))
    return np.concatenate(parts)


def _save(folder: Path, bounds: Indices, columns: Mapping[str, NDArray[Any]]) -> None:
    np.save(folder / BOUNDS, bounds)
    for name, values in columns.items():
        values.tofile(folder / name)
