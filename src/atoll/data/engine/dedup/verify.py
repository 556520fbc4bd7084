"""Verification: the exact Jaccard index of the shingle sets of candidate pairs, computed from the texts themselves.

Pairs are verified portion by portion: a portion's texts are shingled once, and the values of one set are looked up in
a table of the other's, only as far as the two can still be alike enough, and only where the pairs before them left
something to connect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import IntegrityError
from atoll.data.engine.annotate.minhash import Shingler, next_shingles, shingler, shingles
from atoll.data.engine.curate.corpus import TEXTS, Corpus
from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.cuts import Bytes
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.forest import root
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.runtimes.stages import Stages
from atoll.data.engine.scan import scan_block

PORTION_BYTES = 4 << 20
CLUSTER_BYTES = 16 << 20
"""Bytes of texts of an item, about; and of texts that candidate pairs connect, up to which they stay together."""
SHINGLED_BYTES = 1 << 20
LOOK_EVERY = 64
NEAR = "near.bool"


@dataclass(frozen=True, slots=True)
class _Portion:
    """Texts, and pairs of their numbers here."""

    texts: Texts
    pairs: Indices
    near: Near

    def label(self) -> str:
        """For messages."""
        return f"{len(self.pairs)} pairs of {len(self.texts.sizes)} texts"


def sizes(corpus: Corpus) -> Indices:
    """The bytes of every text; int64 (documents,)."""
    parts = [np.diff(_offsets(batch.texts)).astype(np.int64) for batch in corpus]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Texts:
    """Where the texts of a corpus lie on disk, for those who want a few of every batch: `files` are one a batch, `file`
    (int32), `starts` and `sizes` (int64, bytes) are one a document."""

    files: tuple[Path, ...]
    file: NDArray[np.int32]
    starts: Indices
    sizes: Indices

    @classmethod
    def of(cls, corpus: Corpus) -> Texts:
        starts, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in corpus:
            begin, places = batch.text_bytes
            starts.append(begin + places[:-1])
            sizes.append(np.diff(places))
        rows = [batch.rows for batch in corpus]
        file = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
        return cls(tuple(batch.folder / TEXTS for batch in corpus), file, np.concatenate(starts), np.concatenate(sizes))

    def only(self, documents: Indices) -> Texts:
        """Those of some documents, ascending."""
        numbers, file = np.unique(self.file[documents], return_inverse=True)
        files = tuple(self.files[number] for number in numbers.tolist())
        return Texts(files, file.astype(np.int32), self.starts[documents], self.sizes[documents])

    def read(self) -> tuple[Bytes, Indices]:
        """The UTF-8 of all texts as one array, and where each starts in it (one more entry than texts)."""
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes)])
        data = np.empty(begins[-1], np.uint8)
        room = data.data
        bounds = np.searchsorted(self.file, np.arange(len(self.files) + 1)).tolist()
        for path, first, last in zip(self.files, bounds[:-1], bounds[1:], strict=True):
            places = zip(begins[first : last + 1].tolist(), begins[first + 1 : last + 1].tolist(), strict=False)
            with path.open("rb", buffering=0) as file:
                for (begin, stop), start in zip(places, self.starts[first:last].tolist(), strict=True):
                    _fill(room[begin:stop], file, start)
        return data, begins


def _fill(room: memoryview, file: FileIO, start: int) -> None:
    """Read as many bytes of a file from `start` on as there is room for."""
    done = 0
    while done < len(room):
        got = os.preadv(file.fileno(), [room[done:]], start + done)
        if not got:
            raise IntegrityError(
                f"{file.name} ends before byte {start + len(room)}", hint="remove the state of the run"
            )
        done += got


def verified(texts: Texts, stages: Stages, name: str, near: Near, pairs: Indices, clusters: Indices) -> Mask:
    """Which pairs (int64 (pairs, 2) of documents) have at least the Jaccard index of `near`; a stage `name`.

    clusters: ascending, a number of the documents that pairs connect. A pair may be left out that pairs of its cluster
    before it, if they have it, connect already; so likely pairs should come first.
    """
    if not len(pairs):
        return np.zeros(0, bool)
    items = []
    for part in np.split(pairs, _edges(texts.sizes, pairs, clusters)):
        documents, places = np.unique(part, return_inverse=True)
        items.append(_Portion(texts.only(documents), places.reshape(part.shape).astype(np.int64), near))
    folders = stages.map(name, _verify, items, "portion")
    return np.concatenate([raw.read(folder / NEAR, np.bool_) for folder in folders])


def _edges(sizes: Indices, pairs: Indices, clusters: Indices) -> Indices:
    """Where to cut the pairs: into portions of about PORTION_BYTES of texts, and not within a cluster that may stay
    together."""
    before, new = np.zeros(len(pairs) + 1, np.int64), np.ones(len(sizes), np.bool_)
    _count_new(sizes, pairs, new, before)
    starts = np.flatnonzero(np.diff(clusters, prepend=clusters[0] - 1))
    counts = np.diff(np.append(starts, len(pairs)))
    is_whole = before[starts + counts] - before[starts] <= CLUSTER_BYTES
    place = np.where(np.repeat(is_whole, counts), np.repeat(before[starts], counts), before[:-1])
    return np.flatnonzero(np.diff(place // PORTION_BYTES)) + 1


def jaccards(flat: U64, starts: Indices, pairs: Indices) -> NDArray[np.float64]:
    """The Jaccard index of each pair of sets; 0 for two empty ones. Set i is flat[starts[i] : starts[i + 1]], sorted,
    without repetitions; pairs: int64 (pairs, 2) of sets."""
    result = np.empty(len(pairs), np.float64)
    _jaccards(flat, starts, pairs, result)
    return result


def shingled(corpus: Corpus, documents: Indices, near: Near) -> Iterator[tuple[U64, Indices]]:
    """The shingle sets of `documents` (ascending), as `jaccards` takes them, portion by portion in order."""
    for texts in _portions(corpus, documents):
        yield shingles(texts, near.words, near.cjk_characters)


def shingle_sets(corpus: Corpus, documents: Indices, near: Near) -> tuple[U64, Indices]:
    """The shingle sets of `documents` (ascending) all together."""
    parts = list(shingled(corpus, documents, near))
    counts = [np.diff(starts) for _, starts in parts]
    flat = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in parts)])
    return flat, np.cumsum(np.concatenate([[0], *counts])).astype(np.int64)


def _portions(corpus: Corpus, documents: Indices) -> Iterator[pa.StringArray]:
    """The texts of `documents` in arrays of about SHINGLED_BYTES."""
    held: list[pa.StringArray] = []
    held_bytes = 0
    for batch in corpus:
        low, high = np.searchsorted(documents, [batch.first, batch.first + batch.rows])
        if low == high:
            continue
        texts, rows = batch.texts, documents[low:high] - batch.first
        ends = held_bytes + np.cumsum(np.diff(_offsets(texts))[rows])
        edges = np.flatnonzero(np.diff(ends // SHINGLED_BYTES, prepend=held_bytes // SHINGLED_BYTES))
        for number, part in enumerate(np.split(rows, edges)):
            if number:
                yield pa.concat_arrays(held)
                held = []
            held.append(texts.take(pa.array(part)))
        held_bytes = int(ends[-1])
    if held:
        yield pa.concat_arrays(held)


def _offsets(texts: pa.StringArray) -> NDArray[np.int32]:
    """Where the texts start in their buffer, mapped; one more entry than texts."""
    found: NDArray[np.int32] = np.frombuffer(texts.buffers()[1], np.int32)
    return found[texts.offset : texts.offset + len(texts) + 1]


def _verify(item: _Portion, folder: Path) -> None:
    sets = _sets(*item.texts.read(), item.near)
    raw.write(folder / NEAR, nears(*sets, item.pairs, item.near.threshold))


def _sets(data: Bytes, begins: Indices, near: Near) -> tuple[U64, Indices]:
    """The shingle sets of some texts, as `jaccards` takes them but in no order."""
    table = np.zeros(_slots(int(np.diff(begins).max(initial=0))), np.int32)
    flat, ends = np.empty(len(data), np.uint64), np.zeros(len(begins), np.int64)
    _collect(data, begins, shingler(near.words, near.cjk_characters), table, flat, ends)
    return flat[: ends[-1]], ends


def nears(flat: U64, starts: Indices, pairs: Indices, threshold: float) -> Mask:
    """Which pairs of sets, as `jaccards` takes them but in any order, have at least the Jaccard index `threshold` and
    connect sets that the pairs before them, as far as they have it, leave apart."""
    result = np.zeros(len(pairs), np.bool_)
    table = np.zeros(_slots(int(np.diff(starts).max(initial=0))), np.int32)
    _nears(flat, starts, pairs, threshold, np.arange(len(starts) - 1), table, result)
    return result


def _slots(values: int) -> int:
    """The slots of a table for so many values: a power of two, so that half of them stay free."""
    return 2 << max(0, values - 1).bit_length()


@inner
def common_of(one: NDArray[np.generic], other: NDArray[np.generic]) -> int:
    """How many values two ascending arrays have in common."""
    common, place, beside = 0, 0, 0
    while place < len(one) and beside < len(other):
        low, high = one[place], other[beside]
        common += low == high
        place += low <= high
        beside += high <= low
    return common


@inner
def _mask_of(values: int) -> int:
    """The last slot that a set of so many values uses of a table."""
    slots = 2
    while slots < 2 * values:
        slots *= 2
    return slots - 1


@inner
def _slot_of(value: np.uint64, values: U64, table: NDArray[np.int32], mask: int) -> int:
    """Where a value stands in the table (its place in `values`, from 1 on), or the free slot where it would."""
    slot = np.int64(value & np.uint64(mask))
    while table[slot] and values[table[slot] - 1] != value:
        slot = (slot + 1) & mask
    return int(slot)


@inner
def _enter(values: U64, count: int, table: NDArray[np.int32]) -> int:
    """Enter the first `count` values in the table, and move the different ones to their head; how many."""
    mask, kept = _mask_of(count), 0
    for slot in range(mask + 1):
        table[slot] = 0
    for place in range(count):
        value = values[place]
        slot = _slot_of(value, values, table, mask)
        if not table[slot]:
            values[kept] = value
            kept += 1
            table[slot] = kept
    return kept


@kernel
def _count_new(sizes: Indices, pairs: Indices, new: Mask, before: Indices) -> None:
    """before[i]: the bytes of the texts that the first i pairs have."""
    for pair in range(len(pairs)):
        before[pair + 1] = before[pair]
        for end in range(2):
            text = pairs[pair, end]
            if new[text]:
                new[text] = False
                before[pair + 1] += sizes[text]


@kernel
def _collect(
    data: NDArray[np.uint8], begins: Indices, room: Shingler, table: NDArray[np.int32], flat: U64, ends: Indices
) -> None:
    """Fill the last two arrays with the different shingles of each text and where they end, one text further on."""
    for text in range(len(begins) - 1):
        place, stop = begins[text], begins[text + 1]
        first, count = ends[text], 0
        room.tokens.held[0], room.tokens.partial[1] = 0, np.uint64(0)
        while place < stop:
            place = scan_block(data, place, stop, room.tables, room.tokens)
            new = next_shingles(room, place == stop, count)
            flat[first + count : first + count + new] = room.shingles[:new]
            count += new
        ends[text + 1] = first + _enter(flat[first : first + count], count, table)


@inner
def _is_near(one: U64, other: U64, table: NDArray[np.int32], threshold: float) -> bool:
    """Whether two sets, the first entered in the table, have at least the Jaccard index; looks no further when the
    values left are too few for it."""
    mask, total = _mask_of(len(one)), len(one) + len(other)
    least, common = int(threshold / (1 + threshold) * total) - 1, 0
    for begin in range(0, len(other), LOOK_EVERY):
        if common + len(other) - begin < least:
            return False
        for place in range(begin, min(begin + LOOK_EVERY, len(other))):
            common += table[_slot_of(other[place], one, table, mask)] > 0
    return total > common and common / (total - common) >= threshold


@kernel
def _nears(
    flat: U64,
    starts: Indices,
    pairs: Indices,
    threshold: float,
    parents: Indices,
    table: NDArray[np.int32],
    result: Mask,
) -> None:
    entered = -1
    for pair in range(len(pairs)):
        first, second = pairs[pair, 0], pairs[pair, 1]
        one, other = root(parents, first), root(parents, second)
        if one == other:
            continue
        values = flat[starts[first] : starts[first + 1]]
        if first != entered:
            _enter(values, len(values), table)
            entered = first
        if _is_near(values, flat[starts[second] : starts[second + 1]], table, threshold):
            result[pair] = True
            parents[max(one, other)] = min(one, other)


@kernel
def _jaccards(flat: U64, starts: Indices, pairs: Indices, result: NDArray[np.float64]) -> None:
    for pair in range(len(pairs)):
        one = flat[starts[pairs[pair, 0]] : starts[pairs[pair, 0] + 1]]
        other = flat[starts[pairs[pair, 1]] : starts[pairs[pair, 1] + 1]]
        common = common_of(one, other)
        union = len(one) + len(other) - common
        result[pair] = common / union if union else 0.0
