"""What is cut out of texts: spans of bytes, batch by batch, on disk.

Spans lie on character boundaries, are disjoint and in order. Nothing here decides what is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.exact import Indices
from atoll.data.engine.kernel import kernel

FILE = "cuts"

SPAN_BYTES = 20

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Spans:
    """rows: int32, of the batch; starts, stops: int64, bytes of the UTF-8 of the row's text."""

    rows: NDArray[np.int32]
    starts: Indices
    stops: Indices

    @classmethod
    def none(cls) -> Spans:
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def bytes_cut(self, count: int) -> Indices:
        """How many bytes go of each of the batch's `count` rows; spans must be disjoint."""
        return np.bincount(self.rows, (self.stops - self.starts).astype(np.float64), count).astype(np.int64)

    def without(self, rows: NDArray[np.bool_]) -> Spans:
        """The spans of the other rows; `rows` is a mask over the batch."""
        left = ~rows[self.rows]
        return Spans(self.rows[left], self.starts[left], self.stops[left])

    def apply(self, texts: pa.StringArray) -> pa.StringArray:
        """The texts of the whole batch without the spans."""
        data, starts = bytes_of(texts)
        left = np.empty(len(data) - int((self.stops - self.starts).sum()), np.uint8)
        offsets = np.zeros(len(texts) + 1, np.int32)
        _copy_rest(data, starts, self.rows, self.starts, self.stops, left, offsets)
        return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(left))

    def write(self, path: Path) -> None:
        raw.write(path, self.starts, self.stops, self.rows)

    @classmethod
    def read(cls, path: Path) -> Spans:
        """What `write` wrote."""
        count = path.stat().st_size // SPAN_BYTES
        starts, stops = raw.read(path, np.int64, 2 * count).reshape(2, count)
        return cls(raw.read(path, np.int32, count, 16 * count), starts, stops)


@dataclass(frozen=True, slots=True)
class Cuts:
    """The spans of every batch of a corpus: `cuts[number]`; one folder a batch below `folder`."""

    folder: Path

    def __getitem__(self, batch: int) -> Spans:
        return Spans.read(self.folder / f"{batch:06d}" / FILE)


def united(parts: Sequence[Spans]) -> Spans:
    """The union of spans: what overlaps or touches becomes one."""
    rows = np.concatenate([np.empty(0, np.int32), *(part.rows for part in parts)])
    starts = np.concatenate([np.empty(0, np.int64), *(part.starts for part in parts)])
    stops = np.concatenate([np.empty(0, np.int64), *(part.stops for part in parts)])
    order = np.lexsort((starts, rows))
    rows, starts, stops = rows[order], starts[order], stops[order]
    count = _unite(rows, starts, stops)
    return Spans(rows[:count].copy(), starts[:count].copy(), stops[:count].copy())


def snapped(spans: Spans, texts: pa.StringArray) -> Spans:
    """The spans without the characters they hold only a part of; `texts` are those of the batch."""
    data, begins = bytes_of(texts)
    starts, stops = spans.starts.copy(), spans.stops.copy()
    _snap(data, begins, spans.rows, starts, stops)
    kept = starts < stops
    return Spans(spans.rows[kept], starts[kept], stops[kept])


def bytes_of(texts: pa.StringArray) -> tuple[Bytes, Indices]:
    """The UTF-8 of all texts as one array, mapped, and where each starts in it (one more entry than texts)."""
    _, offsets, content = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
    return data[starts[0] : starts[-1]], starts - starts[0]


@kernel
def _unite(rows: NDArray[np.int32], starts: Indices, stops: Indices) -> int:
    """Unite sorted spans in place; how many are left."""
    count = 0
    for place in range(len(rows)):
        if count and rows[count - 1] == rows[place] and starts[place] <= stops[count - 1]:
            stops[count - 1] = max(stops[count - 1], stops[place])
        else:
            rows[count], starts[count], stops[count] = rows[place], starts[place], stops[place]
            count += 1
    return count


@kernel
def _snap(data: Bytes, begins: Indices, rows: NDArray[np.int32], starts: Indices, stops: Indices) -> None:
    for place in range(len(rows)):
        begin, end = begins[rows[place]], begins[rows[place] + 1]
        while starts[place] < stops[place] and data[begin + starts[place]] & 0xC0 == 0x80:
            starts[place] += 1
        while starts[place] < stops[place] < end - begin and data[begin + stops[place]] & 0xC0 == 0x80:
            stops[place] -= 1


@kernel
def _copy_rest(
    data: Bytes,
    begins: Indices,
    rows: NDArray[np.int32],
    starts: Indices,
    stops: Indices,
    left: Bytes,
    offsets: NDArray[np.int32],
) -> None:
    written, span = 0, 0
    for row in range(len(begins) - 1):
        place = begins[row]
        while span < len(rows) and rows[span] == row:
            stop = begins[row] + starts[span]
            left[written : written + stop - place] = data[place:stop]
            written += stop - place
            place = begins[row] + stops[span]
            span += 1
        stop = begins[row + 1]
        left[written : written + stop - place] = data[place:stop]
        written += stop - place
        offsets[row + 1] = written
