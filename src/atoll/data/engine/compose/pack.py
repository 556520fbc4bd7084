"""Packing: texts as token sequences of one length, so that training pads almost nothing and cuts almost nothing.

A document that fits into a sequence is never cut: documents are laid into sequences by best fit, longest first
(best-fit decreasing; for language models: Ding et al. 2024, "Fewer Truncations Improve Language Modeling"). Only what
is longer than a sequence is cut, into full ones and a rest. Where a piece of a document begins is kept, so attention
need not cross. What does not fill up is padding after `used` tokens; it repeats the end-of-text token.
Sequences that hold long documents come first; order them anew for training. Which tokenizer a model wants is not known
here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atoll.core.files import disk_full_named
from atoll.data.engine.compose.tokenizer import I32, I64, Tokenizer
from atoll.data.engine.scan import utf8_of

PACKED_COLUMNS = {"tokens": "list<int32>", "starts": "list<int32>", "used": "int32", "documents": "list<string>"}
"""`tokens`: exactly the length asked for. `starts`: where each piece begins, the first at 0. `used`: tokens before the
padding. `documents`: the id of each piece's document."""

SCHEMA = pa.schema(
    [
        ("tokens", pa.list_(pa.int32())),
        ("starts", pa.list_(pa.int32())),
        ("used", pa.int32()),
        ("documents", pa.list_(pa.string())),
    ]
)
ENCODE_BYTES = 1 << 20
ROW_GROUP_TOKENS = 4 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """What packing came to. `cut` counts documents longer than a sequence, `padding` tokens that say nothing."""

    sequences: int
    tokens: int
    padding: int
    documents: int
    cut: int


class Packer:
    """Takes documents, then gives their sequences of `length` tokens; an end-of-text token ends every document."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._tokens: list[I32] = []
        self._sizes: list[I64] = []
        self._ids: list[pa.Array] = []

    def add(self, ids: pa.StringArray, texts: pa.StringArray) -> None:
        """Take documents, in order; memory is about four bytes a token."""
        for start, stop in _portions(texts):
            tokens, sizes = self._tokenizer.encode(texts.slice(start, stop - start))
            self._tokens.append(np.insert(tokens, np.cumsum(sizes), np.int32(self._tokenizer.end)))
            self._sizes.append(sizes + 1)
            self._ids.append(ids.slice(start, stop - start))

    def table(self) -> pa.Table:
        """The sequences as columns of PACKED_COLUMNS; equal documents in equal order give equal bytes."""
        pieces = _pieces(np.concatenate([np.zeros(0, np.int64), *self._sizes]), self._length)
        bins = best_fit((pieces.stops - pieces.starts).tolist(), self._length)
        order = np.array([piece for held in bins for piece in held], np.int64)
        laid = _Pieces(pieces.documents[order], pieces.starts[order], pieces.stops[order])
        counts = np.array([len(held) for held in bins], np.int64)
        tokens, starts, used = self._lay(laid, counts)
        ids = pa.concat_arrays([pa.array([], pa.string()), *self._ids]).take(pa.array(laid.documents))
        bounds = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        every = pa.array(np.arange(len(counts) + 1) * self._length, pa.int32())
        lists = pa.ListArray.from_arrays
        columns = [lists(every, tokens), lists(bounds, starts), pa.array(used), lists(bounds, ids)]
        return pa.table(columns, schema=SCHEMA)

    def write(self, path: Path) -> Packed:
        """Write the sequences as Parquet, and say what they came to."""
        table = self.table()
        rows = max(1, ROW_GROUP_TOKENS // self._length)
        with disk_full_named(path):
            pq.write_table(table, path, compression="zstd", row_group_size=rows, use_dictionary=False)
        return self._packed(table)

    def _lay(self, pieces: _Pieces, counts: I64) -> tuple[I32, I32, I32]:
        """All sequences one after the other, where pieces start in theirs, and what each sequence uses.

        The next counts[i] of `pieces` are in sequence i.
        """
        sizes = pieces.stops - pieces.starts
        sequences = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(sizes) - sizes
        starts = before - before[(np.cumsum(counts) - counts)[sequences]]
        used = np.zeros(len(counts), np.int64)
        np.add.at(used, sequences, sizes)
        source = np.concatenate([np.zeros(0, np.int32), *self._tokens])
        tokens = np.full(len(counts) * self._length, self._tokenizer.end, np.int32)
        places = (sequences * self._length + starts).tolist()
        for place, start, stop in zip(places, pieces.starts.tolist(), pieces.stops.tolist(), strict=True):
            tokens[place : place + stop - start] = source[start:stop]
        return tokens, starts.astype(np.int32), used.astype(np.int32)

    def _packed(self, table: pa.Table) -> Packed:
        used = int(pc.sum(table["used"]).as_py() or 0)
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        cut = int(np.count_nonzero(_kept(sizes, self._length) > self._length))
        return Packed(table.num_rows, used, table.num_rows * self._length - used, len(sizes), cut)


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Which of `sizes`, none above `room`, go together: each into the fullest sequence that holds it, longest first."""
    bins: list[list[int]] = []
    free: list[int] = []  # distinct rests that are open, rising
    open_at: dict[int, list[int]] = {}
    for piece in sorted(range(len(sizes)), key=lambda piece: -sizes[piece]):
        size = sizes[piece]
        assert 0 < size <= room, f"piece {piece} has {size} tokens, a sequence has room for {room}"
        place = bisect_left(free, size)
        if place == len(free):
            rest, number = room, len(bins)
            bins.append([])
        else:
            rest = free[place]
            number = open_at[rest].pop()
            if not open_at[rest]:
                del open_at[rest], free[place]
        bins[number].append(piece)
        if rest > size:
            if rest - size not in open_at:
                insort(free, rest - size)
            open_at.setdefault(rest - size, []).append(number)
    return bins


def concatenated(sizes: Sequence[int], room: int) -> tuple[int, int]:
    """What concatenating and cutting would make of `sizes`: sequences, and documents cut that would fit into one."""
    stops = np.cumsum(np.array(sizes, np.int64))
    starts = stops - np.array(sizes, np.int64)
    is_cut = (starts // room != (stops - 1) // room) & (np.array(sizes) <= room)
    return -(-int(stops[-1] if len(stops) else 0) // room), int(np.count_nonzero(is_cut))


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Parts of documents no longer than a sequence: their document's number, and where they are among all tokens."""

    documents: I64
    starts: I64
    stops: I64


def _pieces(sizes: I64, length: int) -> _Pieces:
    """Documents of so many tokens, one after the other, as full sequences and rests."""
    begins = np.cumsum(sizes) - sizes
    kept = _kept(sizes, length)
    counts = -(-kept // length)
    documents = np.repeat(np.arange(len(sizes)), counts)
    within = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = begins[documents] + within * length
    return _Pieces(documents, starts, np.minimum(starts + length, (begins + kept)[documents]))


def _kept(sizes: I64, length: int) -> I64:
    """Tokens of each document that are laid: an end of text that would stand alone in a sequence is left out."""
    kept: I64 = sizes - ((sizes > 1) & (sizes % length == 1))
    return kept


def _portions(texts: pa.StringArray) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about ENCODE_BYTES, so that a tokenizer's own memory stays small."""
    stops = utf8_of(texts)[1][1:]
    start = 0
    while start < len(texts):
        before = int(stops[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(stops, before + ENCODE_BYTES, side="right")))
        yield start, stop
        start = stop
