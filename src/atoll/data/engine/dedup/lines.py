"""Repeated lines and paragraphs: what stood in an earlier document of the keep order is cut.

Two units are equal when they are after all white space is left out; letters keep their case. A unit is compared by a
64-bit hash: among a thousand million different ones about .03 pairs agree by chance. The first document of the keep
order that has a unit keeps every occurrence of it; it is cut from the later ones, with the line end that follows.
Blank lines are no units; a paragraph ends with a blank line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import TEXTS, Batch, Corpus
from atoll.data.engine.curate.mapped import PORTION_BYTES, portions
from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.cuts import Bytes, Spans, bytes_of
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.shards import Columns, columns_in, gathered, save_by_batch, save_by_hash
from atoll.data.engine.dedup.spec import Lines
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.runtimes.stages import Stages

_SORTED: Columns = {"hash": np.uint64, "document": np.uint32}
_NOTED: Columns = {**_SORTED, "start": np.uint32, "stop": np.uint32}
_LOST: Columns = {"unit": np.uint32}


@dataclass(frozen=True, slots=True)
class _Scan:
    batch: Batch
    members: Path
    lines: Lines
    shards: int


@dataclass(frozen=True, slots=True)
class _Shard:
    number: int
    noted: tuple[Path, ...]
    ranks: Path
    sources: Path
    shards: int
    documents_min: int


def noted(corpus: Corpus, stages: Stages, lines: Lines, members: Path, shards: int) -> list[Path]:
    """The units of every batch's members, by hash; a stage. members: a file of a mask over the documents."""
    return stages.map("dedup-lines", _note_units, [_Scan(batch, members, lines, shards) for batch in corpus])


def repeats(
    stages: Stages, name: str, noted: Sequence[Path], lines: Lines, ranks: Path, sources: Path, shards: int
) -> list[Path]:
    """Which units each batch loses, shard by shard; a stage `name`.

    A unit is cut from a document when a document of lower rank in the mask `sources` has it too, and `documents_min`
    have it. ranks, sources: files of an array over the documents.
    """
    items = [_Shard(shard, tuple(noted), ranks, sources, shards, lines.documents_min) for shard in range(shards)]
    return stages.map(name, _find_repeats, items, "shard")


def spans_of(noted: Path, repeats: Sequence[Path], number: int, batches: int, first: int) -> Spans:
    """What batch `number` of so many loses, whose documents start with `first`; not in order."""
    units = gathered(repeats, number, batches, _LOST)["unit"]
    found = columns_in(noted, len(repeats), _NOTED)
    rows = (found["document"][units] - np.uint32(first)).astype(np.int32)
    return Spans(rows, found["start"][units].astype(np.int64), found["stop"][units].astype(np.int64))


def units_of(data: Bytes, begins: Indices, taken: Mask, lines: Lines) -> tuple[U64, Spans]:
    """The units of the texts that are `taken`, in order: hash and span of each that is long enough."""
    count = int(np.count_nonzero(data == 10)) + len(taken)
    hashes, rows = np.empty(count, np.uint64), np.empty(count, np.int32)
    starts, stops = np.empty(count, np.int64), np.empty(count, np.int64)
    is_paragraph = lines.unit == "paragraph"
    count = _units(data, begins, taken, is_paragraph, lines.characters_min, hashes, rows, starts, stops)
    return hashes[:count], Spans(rows[:count], starts[:count], stops[:count])


def _note_units(item: _Scan, folder: Path) -> None:
    batch = item.batch
    taken = raw.read(item.members, np.bool_, batch.rows, batch.first)
    found = []
    for rows, part in portions(batch.folder / TEXTS, PORTION_BYTES):
        hashes, spans = units_of(*bytes_of(part.column("text")), taken[rows], item.lines)
        documents = (spans.rows + (batch.first + rows.start)).astype(np.uint32)
        found.append((hashes.copy(), documents, spans.starts.astype(np.uint32), spans.stops.astype(np.uint32)))
    hashes, documents, starts, stops = map(np.concatenate, zip(*found, strict=True))
    save_by_hash(folder, hashes, item.shards, {"document": documents, "start": starts, "stop": stops})


def _find_repeats(item: _Shard, folder: Path) -> None:
    found = gathered(item.noted, item.number, item.shards, _SORTED)
    ranks = raw.mapped(item.ranks, np.int64)[found["document"]]
    order = np.lexsort((ranks, found["hash"]))
    is_source = raw.mapped(item.sources, np.bool_)[found["document"]]
    lost = np.zeros(len(order), bool)
    _lose(found["hash"][order], ranks[order], is_source[order], item.documents_min, lost)
    gone = order[lost]
    units = found["place"][gone].astype(np.uint32)
    save_by_batch(folder, found["origin"][gone], len(item.noted), {"unit": units})


@kernel
def _lose(hashes: U64, ranks: Indices, is_source: Mask, documents_min: int, lost: Mask) -> None:
    """Mark what is lost of records ordered by hash, then rank."""
    begin = 0
    while begin < len(hashes):
        stop, sources, first = begin, 0, np.int64(-1)
        while stop < len(hashes) and hashes[stop] == hashes[begin]:
            if is_source[stop] and (stop == begin or ranks[stop] != ranks[stop - 1]):
                sources += 1
                if first < 0:
                    first = ranks[stop]
            stop += 1
        for place in range(begin, stop):
            documents = sources + (not is_source[place])
            lost[place] = 0 <= first < ranks[place] and documents >= documents_min
        begin = stop


@inner
def _space(data: Bytes, place: int, stop: int) -> int:
    """The bytes of the white-space character at `place`; 0 when it is none."""
    first = data[place]
    if first == 32 or 9 <= first <= 13 or 28 <= first <= 31:
        return 1
    if first == 0xC2 and place + 1 < stop:
        return 2 if data[place + 1] == 0x85 or data[place + 1] == 0xA0 else 0
    if 0xE1 <= first <= 0xE3 and place + 2 < stop:
        second, third = data[place + 1], data[place + 2]
        if first == 0xE2:
            is_space = (second == 0x80 and (third <= 0x8A or third in (0xA8, 0xA9, 0xAF))) or (
                second == 0x81 and third == 0x9F
            )
        else:
            is_space = (first == 0xE3 and second == third == 0x80) or (
                first == 0xE1 and second == 0x9A and third == 0x80
            )
        return 3 if is_space else 0
    return 0


@inner
def _line(data: Bytes, place: int, stop: int, value: np.uint64) -> tuple[int, int, np.uint64]:
    """Read a line: where the next one starts, how many characters that are not white space, the hash so far."""
    characters = 0
    while place < stop:
        if data[place] == 10:
            return place + 1, characters, value
        width = _space(data, place, stop)
        if width:
            place += width
            continue
        characters += (data[place] & 0xC0) != 0x80
        value = (value ^ np.uint64(data[place])) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
        place += 1
    return place, characters, value


@kernel
def _units(
    data: Bytes,
    begins: Indices,
    taken: Mask,
    is_paragraph: bool,
    characters_min: int,
    hashes: U64,
    rows: NDArray[np.int32],
    starts: Indices,
    stops: Indices,
) -> int:
    count = 0
    for row in range(len(taken)):
        begin, stop = begins[row], begins[row + 1]
        place, start, total, value = begin, begin, 0, np.uint64(0)
        while taken[row] and place < stop:
            place, characters, value = _line(data, place, stop, value)
            total += characters
            if is_paragraph and characters and place < stop:
                continue
            if total >= characters_min:
                hashes[count], rows[count] = value, row
                starts[count], stops[count] = start - begin, place - begin
                count += 1
            start, total, value = place, 0, np.uint64(0)
    return count
