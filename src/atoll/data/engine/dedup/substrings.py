"""Exact repeats of at least L bytes, wherever lines end, are cut from all places but the first.

Cut is exactly what a suffix array of all texts in keep order would give: every byte of a window of L bytes that also
occurs in a document of lower rank, or earlier in the same document. A suffix array of 2 GB needs 10 GB or a merge on
disk; this needs 16 bytes for about every (L / 3)-th byte, sorted on disk shard by shard. Equal windows have an anchor
in common (`anchors`), so only places with equal anchors are compared, each with its surroundings of less than 2 L
bytes: equal surroundings by a hash, the others byte by byte in small groups and window by window in large ones. The
cost is linear in the text; a gram that has many different surroundings costs L windows a place, never a square.

Surroundings of more than SMALL_GROUP_MAX places and equal ones are told by 64-bit hashes, within places whose grams
are equal by another; texts built to collide can lose a stretch that is no repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup import raw, surroundings
from atoll.data.engine.dedup.anchors import anchors_of, gram_bytes
from atoll.data.engine.dedup.cuts import Bytes, Spans, bytes_of
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.shards import Columns, gathered, save_by_batch, save_by_hash
from atoll.data.engine.dedup.spec import Substrings
from atoll.data.engine.hashing import U64, mix
from atoll.data.engine.runtimes.stages import Stages

SMALL_GROUP_MAX = 64
CONTEXTS_BYTES = 8 << 20
SHARDS = 4
"""Shards for each of the lines' (see `shards`): what is known of an anchor takes more room than a line."""
HASHES_AT_ONCE = 1 << 20

RUNS = "runs"

_ANCHORS: Columns = {"hash": np.uint64, "document": np.uint32, "start": np.uint32}
_SPANS: Columns = {"row": np.int32, "start": np.uint32, "stop": np.uint32}


@dataclass(frozen=True, slots=True)
class _Scan:
    batch: Batch
    members: Path
    length: int
    shards: int


@dataclass(frozen=True, slots=True)
class _Shard:
    number: int
    batches: tuple[Batch, ...]
    noted: tuple[Path, ...]
    length: int
    shards: int
    ranks: Path
    sources: Path


@dataclass(frozen=True, slots=True)
class Places:
    """Anchors in groups of equal grams, in keep order within each: number of the batch, row, place in the text, and
    whether the document is a source."""

    grams: U64
    batches: NDArray[np.int32]
    documents: Indices
    places: Indices
    is_source: Mask

    def __len__(self) -> int:
        return len(self.grams)

    def only(self, chosen: Mask | Indices | slice) -> Places:
        return Places(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def starts(self) -> Indices:
        """Where the groups start, and where the last one stops."""
        edges = np.ones(len(self) + 1, bool)
        edges[1:-1] = self.grams[1:] != self.grams[:-1]
        return np.flatnonzero(edges)

    def grouped(self) -> Places:
        """Without those that are alone."""
        starts = self.starts
        return self.only(np.repeat(np.diff(starts) > 1, np.diff(starts)))


def noted(corpus: Corpus, stages: Stages, substrings: Substrings, members: Path, shards: int) -> list[Path]:
    """The anchors of every batch's members, by hash; a stage. members: a file of a mask over the documents."""
    items = [_Scan(batch, members, substrings.bytes_min, shards) for batch in corpus]
    return stages.map("dedup-anchors", _note_anchors, items)


def repeats(
    corpus: Corpus,
    stages: Stages,
    name: str,
    noted: Sequence[Path],
    substrings: Substrings,
    ranks: Path,
    sources: Path,
    shards: int,
) -> list[Path]:
    """Which spans each batch loses, shard by shard; a stage `name`. ranks, sources: files of an array over the
    documents; a document outside `sources` is cut but proves nothing about others."""
    batches = tuple(corpus)
    length = substrings.bytes_min
    items = [_Shard(shard, batches, tuple(noted), length, shards, ranks, sources) for shard in range(shards)]
    return stages.map(name, _find_repeats, items, "shard")


def spans_of(noted: Path, repeats: Sequence[Path], number: int, batches: int) -> list[Spans]:
    """What batch `number` of so many loses, in bytes that may halve a character; overlapping and not in order."""
    found = gathered(repeats, number, batches, _SPANS)
    by_itself = Spans.read(noted / RUNS)
    return [by_itself, Spans(found["row"], found["start"].astype(np.int64), found["stop"].astype(np.int64))]


def _note_anchors(item: _Scan, folder: Path) -> None:
    batch = item.batch
    taken = raw.read(item.members, np.bool_, batch.rows, batch.first)
    found = anchors_of(*bytes_of(batch.texts), taken, item.length)
    found.runs.write(folder / RUNS)
    documents = (found.rows + np.uint32(batch.first)).astype(np.uint32)
    hashes = mix(found.hashes)  # the least of a window's hashes are all small: shards would be uneven
    save_by_hash(folder, hashes, item.shards, {"document": documents, "start": found.places})


def _find_repeats(item: _Shard, folder: Path) -> None:
    places = _ordered(item)
    starts, stops = _covered(_Texts(item.batches, item.length), places)
    cut = np.flatnonzero(starts < stops)
    firsts = np.array([batch.first for batch in item.batches], np.int64)
    rows = (places.documents[cut] - firsts[places.batches[cut]]).astype(np.int32)
    columns = {"row": rows, "start": starts[cut].astype(np.uint32), "stop": stops[cut].astype(np.uint32)}
    save_by_batch(folder, places.batches[cut], len(item.batches), columns)


def _ordered(item: _Shard) -> Places:
    """The shard's anchors whose gram occurs twice or more."""
    found = gathered(item.noted, item.number, item.shards, _ANCHORS)
    order = np.argsort(found["hash"], kind="stable")
    hashes = found["hash"][order]
    is_equal = hashes[1:] == hashes[:-1]
    is_shared = np.zeros(len(order), bool)
    is_shared[1:] = is_equal
    is_shared[:-1] |= is_equal
    order = order[is_shared]
    documents = found["document"][order].astype(np.int64)
    ranks = raw.mapped(item.ranks, np.int64)[documents]
    sources = raw.mapped(item.sources, np.bool_)[documents]
    places = Places(
        found["hash"][order], found["origin"][order], documents, found["start"][order].astype(np.int64), sources
    )
    return places.only(np.lexsort((places.places, ranks, places.grams)))


class _Texts:
    """The texts of all batches, each mapped once, when it is first asked for."""

    def __init__(self, batches: Sequence[Batch], length: int) -> None:
        self.length = length
        self._batches = batches
        self._mapped: dict[int, tuple[Bytes, Indices]] = {}

    def by_batch(self, places: Places) -> Iterator[tuple[Indices, Bytes, Indices, Indices]]:
        """The places of each batch: their numbers, the bytes of its texts, where those start, and the places' rows."""
        order = np.argsort(places.batches, kind="stable")
        bounds = np.searchsorted(places.batches[order], np.arange(len(self._batches) + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            some = order[bounds[number] : bounds[number + 1]]
            if number not in self._mapped:
                self._mapped[number] = bytes_of(self._batches[number].texts)
            yield some, *self._mapped[number], places.documents[some] - self._batches[number].first


def _covered(texts: _Texts, places: Places) -> tuple[Indices, Indices]:
    """For every place the span of its text that its repeats cover; start and stop are equal where there are none."""
    starts, stops = places.places.copy(), places.places.copy()
    if not len(places):
        return starts, stops
    hashes, lefts, rights = _hashed(texts, places)
    is_repeat = surroundings.repeated(places.grams, hashes, places.documents, places.is_source)
    starts[is_repeat] -= lefts[is_repeat]
    stops[is_repeat] += rights[is_repeat]
    open_places = np.flatnonzero(~is_repeat)
    rest = places.only(open_places)
    sizes = np.repeat(np.diff(rest.starts), np.diff(rest.starts))
    for chosen, compare in ((sizes > SMALL_GROUP_MAX, _by_windows), (sizes <= SMALL_GROUP_MAX, _by_bytes)):
        some = open_places[chosen & (sizes > 1)]
        starts[some], stops[some] = compare(texts, places.only(some))
    return starts, stops


def _hashed(texts: _Texts, places: Places) -> tuple[U64, Indices, Indices]:
    """The hash of each place's surroundings, and how far they go to the left and to the right."""
    hashes = np.empty(len(places), np.uint64)
    reach = np.empty((2, len(places)), np.int64)
    gram = gram_bytes(texts.length)
    for some, data, begins, rows in texts.by_batch(places):
        hashes[some], reach[:, some] = surroundings.hashed(data, begins, rows, places.places[some], texts.length, gram)
    return hashes, reach[0], reach[1]


def _by_bytes(texts: _Texts, places: Places) -> tuple[Indices, Indices]:
    """The spans of places in small groups, each compared with those before it byte by byte."""
    starts, stops = places.places.copy(), places.places.copy()
    at_once = max(1, CONTEXTS_BYTES // (2 * texts.length))
    for begin, stop in _portions(places.starts, at_once):
        part = places.only(slice(begin, stop))
        contexts = surroundings.Contexts.empty(len(part), texts.length, gram_bytes(texts.length))
        for some, data, begins, rows in texts.by_batch(part):
            contexts.fill(some, data, begins, rows, part.places[some])
        lefts, rights = contexts.matched(part.starts, part.documents, part.is_source)
        starts[begin:stop] -= lefts
        stops[begin:stop] += rights
    return starts, stops


def _by_windows(texts: _Texts, places: Places) -> tuple[Indices, Indices]:
    """The spans of places in large groups: the windows around each place are looked up among those before it."""
    starts, stops = places.places.copy(), places.places.copy()
    groups, shifts = places.starts, texts.length - gram_bytes(texts.length) + 1
    count = min(shifts, max(4, HASHES_AT_ONCE // max(1, len(places))))
    for shift in range(0, shifts, count):
        hashes = np.zeros((len(places), count), np.uint64)
        for some, data, begins, rows in texts.by_batch(places):
            hashes[some] = surroundings.windows(data, begins, rows, places.places[some], texts.length, shift, count)
        before = places.places - shift
        surroundings.meet(groups, hashes, places.documents, places.is_source, before, texts.length, starts, stops)
    return starts, stops


def _portions(starts: Indices, at_once: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole groups, of about `at_once` places each."""
    edges = starts[
        np.unique(np.searchsorted(starts, np.arange(0, starts[-1] + at_once, at_once)).clip(max=len(starts) - 1))
    ]
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
