"""Candidate pairs of near duplicates: texts that agree on all rows of a band of their MinHash signatures.

Texts are numbered by their digests here, so what is a candidate depends on the set of texts alone. All pairs of a
bucket (texts equal in a band) of up to BUCKET_MAX texts are candidates. In a larger bucket each text meets the first
one and the NEIGHBOURS that follow it when the bucket is ordered by the rows after the band, so that likely pairs are
close (an LSH forest: Bawa, Condie, Ganesan 2005); every band orders by other rows. A pair whose signatures agree too
little to reach the threshold, by DEVIATIONS standard deviations, is no candidate. So the cost is linear in the texts.

Signatures are held as their lowest bytes: 112 bytes a text, on disk, mapped. Nothing is verified here.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.annotate.minhash import rows_of_band
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.curate.mapped import Rows, let_go
from atoll.data.engine.dedup import raw
from atoll.data.engine.dedup.exact import Indices
from atoll.data.engine.dedup.forest import Pairs, distinct, members_of, pairs_from
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.hashing import mix_one, powers
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.runtimes.stages import Stages

BUCKET_MAX = 16
NEIGHBOURS = 8
DEVIATIONS = 4.0

KEYS, SKETCH, FILLED, STANDING, PAIRS = "keys.u64", "sketch.u8", "filled.bool", "standing.i64", "pairs.u64"
BAND_TEXTS = 1 << 18
"""Texts times bands that one item looks at, about; a band of more is an item by itself."""

Sketch = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Candidates:
    """standing: int64, the first document of each text that has shingles. sketch: their signatures' lowest bytes, uint8
    (texts, permutations), mapped. pairs: files of Pairs of places in both, the smaller place first; no pair twice in a
    file."""

    standing: Indices
    sketch: Sketch
    pairs: list[Path]


@dataclass(frozen=True, slots=True)
class _Joined:
    batches: tuple[Batch, ...]
    noted: tuple[Path, ...]
    near: Near
    standing: Indices


@dataclass(frozen=True, slots=True)
class _Bands:
    numbers: range
    rows: int
    near: Near
    batch_rows: tuple[int, ...]
    keys: tuple[Path, ...]
    texts: Path


def candidates(corpus: Corpus, stages: Stages, near: Near, firsts: Indices) -> Candidates:
    """The candidate pairs of all texts of the corpus; by stages, with the keys of one band in memory. firsts: the first
    document of each text, ordered by digest."""
    rows = rows_of_band(near.threshold, near.permutations)
    bands = near.permutations // rows
    noted = stages.map("dedup-keys", _note_batch, [(batch, rows, bands) for batch in corpus])
    if not noted:
        return Candidates(np.empty(0, np.int64), np.empty((0, near.permutations), np.uint8), [])
    filled = np.concatenate([raw.read(place / FILLED, np.bool_) for place in noted])
    standing = firsts[filled[firsts]]
    joined = stages.map("dedup-sketch", _join_batches, [_Joined(tuple(corpus), tuple(noted), near, standing)], "file")
    keys, batch_rows = tuple(folder / KEYS for folder in noted), tuple(batch.rows for batch in corpus)
    at_once = max(1, BAND_TEXTS // max(1, len(standing)))
    numbers = [range(band, min(band + at_once, bands)) for band in range(0, bands, at_once)]
    items = [_Bands(some, rows, near, batch_rows, keys, joined[0]) for some in numbers]
    found = stages.map("dedup-bands", _pair_bands, items, "bands")
    return Candidates(standing, _sketch_in(joined[0], near), [folder / PAIRS for folder in found])


def agreements_min(near: Near) -> int:
    """How many of `permutations` entries two signatures must share to be candidates at the threshold."""
    deviation = (near.permutations * near.threshold * (1 - near.threshold)) ** 0.5
    return max(1, int(np.floor(near.permutations * near.threshold - DEVIATIONS * deviation)))


def pairs_of(keys: NDArray[np.uint64], sketch: Sketch | Rows, first_row: int, least: int) -> Pairs:
    """The candidate pairs among texts with these band keys, each once, ascending.

    sketch: uint8 (texts, permutations), of which some rows are in memory at a time. first_row: the row after the band.
    """
    order, starts = _buckets(keys)
    parts = []
    for begin, stop in _portions(starts):
        bounds = starts[begin : stop + 1]
        members = order[bounds[0] : bounds[-1]]
        by_number = np.argsort(members)
        numbers, places = members[by_number], np.empty_like(members)
        places[by_number] = np.arange(len(members))
        found = _pair_buckets(places, bounds - bounds[0], sketch[numbers], first_row, least, BUCKET_MAX, NEIGHBOURS)
        parts.append(pairs_from(numbers[members_of(found)]))
    return distinct(np.concatenate([np.empty(0, np.uint64), *parts]))


def likeness(sketch: Sketch, pairs: Indices) -> NDArray[np.int32]:
    """How many entries the signatures of each pair (int64 (pairs, 2)) share, one in 256 others taken for equal."""
    result = np.empty(len(pairs), np.int32)
    _count_agreements(sketch, pairs, result)
    return result


def _buckets(keys: NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """The places of keys that occur twice or more, group by group and ascending in each; where the groups start."""
    order = np.argsort(keys)
    ordered = keys[order]
    is_equal = ordered[1:] == ordered[:-1]
    in_group = np.zeros(len(keys), bool)
    in_group[1:] = is_equal
    in_group[:-1] |= is_equal
    begins = np.ones(len(keys), bool)
    begins[1:] = ~is_equal
    first = begins[in_group]
    placed = np.sort(np.cumsum(first) << 32 | order[in_group])  # faster than a stable sort of all keys
    return placed & 0xFFFFFFFF, np.append(np.flatnonzero(first), len(placed))


def _portions(starts: Indices, texts_max: int = 1 << 17) -> list[tuple[int, int]]:
    """Ranges of buckets of about so many texts, so that the pairs of one range fit in memory."""
    groups = len(starts) - 1
    marks = np.searchsorted(starts, np.arange(0, starts[-1] + texts_max, texts_max))
    edges = np.unique(np.minimum(marks, groups)).tolist()
    return list(pairwise(edges))


@kernel
def _key(signatures: NDArray[np.uint32], rows: int, powers: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    """keys[band]: what `band_keys` gives for each text."""
    for text in range(len(signatures)):
        for band in range(len(keys)):
            value = np.uint64(0)
            for row in range(rows):
                value += (np.uint64(signatures[text, band * rows + row]) + np.uint64(1)) * powers[row]
            keys[band, text] = mix_one(value)


@inner
def agreements(one: Sketch, other: Sketch) -> int:
    """How many entries two signatures share, one in 256 others taken for equal."""
    total = np.int64(0)
    for begin in range(0, len(one), 128):
        few = np.uint8(0)
        for place in range(begin, min(begin + 128, len(one))):
            few = np.uint8(few + np.uint8(one[place] == other[place]))  # narrow: as many at once as there are bytes
        total += np.int64(few)
    return int(total)


@kernel
def _count_agreements(sketch: Sketch, pairs: Indices, result: NDArray[np.int32]) -> None:
    for pair in range(len(pairs)):
        result[pair] = agreements(sketch[pairs[pair, 0]], sketch[pairs[pair, 1]])


@inner
def forest_value(entries: Sketch, first_row: int) -> np.uint64:
    """Eight entries from `first_row` on (around the end) as one word: near texts have near words, mostly."""
    value = np.uint64(0)
    for step in range(8):
        value = value << np.uint64(8) | np.uint64(entries[(first_row + step) % len(entries)])
    return value


@kernel
def _forest_order(members: Indices, sketch: Sketch, first_row: int) -> Indices:
    """The members in the order of their forest values, equal ones by number."""
    values = np.empty(len(members), np.uint64)
    for place in range(len(members)):
        values[place] = forest_value(sketch[members[place]], first_row)
    return members[np.argsort(values, kind="mergesort")]


@kernel
def _pair_buckets(
    members: Indices,
    starts: Indices,
    sketch: Sketch,
    first_row: int,
    least: int,
    bucket_max: int,
    neighbours: int,
) -> Pairs:
    count = 0
    for group in range(len(starts) - 1):
        size = starts[group + 1] - starts[group]
        count += size * (size - 1) // 2 if size <= bucket_max else size * (neighbours + 1)
    pairs = np.empty(count, np.uint64)
    count = 0
    for group in range(len(starts) - 1):
        bucket = members[starts[group] : starts[group + 1]]
        if len(bucket) <= bucket_max:
            count = _pair_window(bucket, len(bucket), sketch, least, pairs, count)
            continue
        first = bucket[0]
        ordered = _forest_order(bucket, sketch, first_row)
        count = _pair_window(ordered, neighbours, sketch, least, pairs, count)
        for place in range(1, len(bucket)):
            count = _pair(first, bucket[place], sketch, least, pairs, count)
    return pairs[:count].copy()


@inner
def _pair_window(ordered: Indices, window: int, sketch: Sketch, least: int, pairs: Pairs, count: int) -> int:
    for place in range(len(ordered)):
        for after in range(place + 1, min(place + 1 + window, len(ordered))):
            count = _pair(ordered[place], ordered[after], sketch, least, pairs, count)
    return count


@inner
def _pair(one: int, other: int, sketch: Sketch, least: int, pairs: Pairs, count: int) -> int:
    if agreements(sketch[one], sketch[other]) < least:
        return count
    pairs[count] = np.uint64(min(one, other)) << np.uint64(32) | np.uint64(max(one, other))
    return count + 1


def _note_batch(item: tuple[Batch, int, int], folder: Path) -> None:
    """The band keys (bands, documents), the sketch (documents, permutations) and who has shingles, of one batch."""
    batch, rows, bands = item
    signatures = np.asarray(batch.signatures)
    keys = np.empty((bands, batch.rows), np.uint64)
    _key(signatures, rows, powers(rows), keys)
    raw.write(folder / KEYS, keys)
    raw.write(folder / SKETCH, signatures.astype(np.uint8))
    raw.write(folder / FILLED, (signatures != 0xFFFFFFFF).any(axis=1))


def _join_batches(item: _Joined, folder: Path) -> None:
    """Which documents stand for their texts, and their sketches in that order, in one file."""
    standing, width = item.standing, item.near.permutations
    raw.write(folder / STANDING, standing)
    if not len(standing):
        raw.write(folder / SKETCH)
        return
    last = item.batches[-1]
    place_of = np.full(last.first + last.rows, -1, np.int64)
    place_of[standing] = np.arange(len(standing))
    with (folder / SKETCH).open("wb+") as file:
        _reserve(file.fileno(), len(standing) * width)
        mapped = mmap.mmap(file.fileno(), 0)
    sketch = np.frombuffer(mapped, np.uint8).reshape(len(standing), width)
    for batch, place in zip(item.batches, item.noted, strict=True):
        places = place_of[batch.first : batch.first + batch.rows]
        sketch[places[places >= 0]] = _sketch_in(place, item.near)[places >= 0]
        let_go(mapped)


def _reserve(file: int, size: int) -> None:
    """Make a file so large, on the disk: where there is no room, OSError now instead of a signal later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def _sketch_in(folder: Path, near: Near) -> Sketch:
    return raw.mapped(folder / SKETCH, np.uint8, near.permutations)


def _pair_bands(item: _Bands, folder: Path) -> None:
    standing = raw.read(item.texts / STANDING, np.int64)
    if not len(standing):
        return raw.write(folder / PAIRS)
    sketch = Rows(item.texts / SKETCH, item.near.permutations)
    parts = []
    for band in item.numbers:
        keys = np.concatenate([_keys_of(band, *place) for place in zip(item.keys, item.batch_rows, strict=True)])
        parts.append(pairs_of(keys[standing], sketch, (band + 1) * item.rows, agreements_min(item.near)))
    raw.write(folder / PAIRS, parts[-1] if len(item.numbers) == 1 else distinct(np.concatenate(parts)))


def _keys_of(band: int, path: Path, rows: int) -> NDArray[np.uint64]:
    return raw.read(path, np.uint64, rows, 8 * band * rows)
