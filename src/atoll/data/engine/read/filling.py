"""Filling a record batch: texts go into one buffer, so a batch is in memory once and never copied as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import SCHEMA
from atoll.data.engine.read.item import Found

_PLAIN = ("id", "source", "title", "kind", "url")


class Filling:
    """A batch with room for `size` bytes of text. `prefix` is put before ids, `source` before the names of files."""

    def __init__(self, size: int, prefix: str = "", source: str = "") -> None:
        self._prefix, self._source = prefix, source
        self._data = np.empty(size, np.uint8)
        self._used = 0
        self._offsets: list[NDArray[np.int32]] = [np.zeros(1, np.int32)]
        self._plain: dict[str, list[str]] = {name: [] for name in _PLAIN}

    def has_room(self, size: int) -> bool:
        return self._used + size <= len(self._data)

    def add(self, rows: Sequence[Found], texts: pa.StringArray) -> None:
        """Append documents with these texts instead of their own."""
        _, offsets, data = texts.buffers()
        places = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
        size = int(places[-1] - places[0])
        if size:
            content = np.frombuffer(data, np.uint8, size, int(places[0]))
            self._data[self._used : self._used + size] = content
        self._offsets.append(places[1:] + np.int32(self._used - places[0]))
        self._used += size
        for name, column in zip(_PLAIN, self._columns(rows), strict=True):
            self._plain[name] += column

    def batch(self) -> pa.RecordBatch:
        """What has been added, with the columns of SCHEMA."""
        offsets = np.concatenate(self._offsets)
        buffers = (pa.py_buffer(offsets), pa.py_buffer(self._data[: self._used]))
        arrays = {name: pa.array(column, pa.string()) for name, column in self._plain.items()}
        arrays["text"] = pa.StringArray.from_buffers(len(offsets) - 1, *buffers)
        return pa.record_batch([arrays[name] for name in SCHEMA.names], SCHEMA)

    def _columns(self, rows: Sequence[Found]) -> tuple[Sequence[str], ...]:
        ids, _, files, titles, kinds, urls = zip(*rows, strict=True)
        prefix, source = self._prefix, self._source
        named = [prefix + name for name in ids] if prefix else ids
        return named, [source + file for file in files], titles, kinds, urls
