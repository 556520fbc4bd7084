"""A kept index of earlier runs: what is in it, or near to something in it, is not new.

An index is a folder with one folder for each run that was added, named by the run's fingerprint and put there by one
rename: a run is in it whole or not at all, adding it again changes nothing, and a reader never sees half of one. What
a run holds of a document is said in `entries`.

Runs are looked at one after the other, so the cost of a lookup grows with their number.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.core.files import disk_full_named, read_json, sync
from atoll.data.engine.annotate.minhash import band_keys, rows_of_band
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup import urls
from atoll.data.engine.dedup.candidates import (
    BUCKET_MAX,
    NEIGHBOURS,
    Sketch,
    agreements,
    agreements_min,
    forest_value,
)
from atoll.data.engine.dedup.entries import (
    ABOUT,
    DIGESTS,
    KEYS,
    ROWS,
    SHINGLES,
    SKETCH,
    STARTS,
    URLS,
    entries_in,
    entries_of,
    halves,
    rows_in,
    write_run,
)
from atoll.data.engine.dedup.exact import Indices, Mask, digests
from atoll.data.engine.dedup.forest import members_of
from atoll.data.engine.dedup.spec import Dedup, Near
from atoll.data.engine.dedup.verify import common_of, shingled
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.runtimes.stages import Stages

KNOWN = "known.npy"
_FINGERPRINT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")

U32 = NDArray[np.uint32]


def add(folder: Path, corpus: Corpus, kept: Mask, spec: Dedup, fingerprint: str) -> bool:
    """Add the documents a run kept; False when that run is there already.

    Raises Invalid when the index was made with other shingles or signatures.
    """
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise Invalid(f"{fingerprint!r} cannot name a run", hint="letters, digits, - and _, 128 at most")
    near = spec.near or Near()
    numbers = np.flatnonzero(kept)
    return _put_run(
        folder,
        fingerprint,
        near,
        lambda making: write_run(making, entries_of(corpus, numbers, near), len(numbers), near),
    )


def add_tables(folder: Path, files: Sequence[Path], near: Near, fingerprint: str) -> bool:
    """Add the documents that tables of entries (Parquet files) tell of; False when that run is there already.

    The signatures in them must have the length, and the shingles the sizes, that `near` names.
    """
    return _put_run(
        folder, fingerprint, near, lambda making: write_run(making, entries_in(files), rows_in(files), near)
    )


def _put_run(folder: Path, fingerprint: str, near: Near, write: Callable[[Path], None]) -> bool:
    runs(folder, near)
    place, making = folder / fingerprint, folder / f".{fingerprint}.{os.getpid()}"
    if place.exists():
        return False
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        with disk_full_named(making):
            write(making)
        _put(making, place)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return True


def runs(folder: Path, near: Near, but: str = "") -> list[Path]:
    """The runs in an index, by name, without the one called `but`. Raises Invalid when one was made otherwise."""
    found = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        about = None if place.name.startswith(".") else read_json(place / ABOUT)
        if about is None or place.name == but:
            continue
        if about["near"] != asdict(near):
            raise Invalid(
                f"the index {folder} was made with {about['near']}, not {asdict(near)}",
                field="recipe.dedup.index",
                hint="use the near settings it was made with, or another folder",
            )
        found.append(place)
    return found


def describe(folder: Path) -> dict[str, Any]:
    """How many runs and documents an index holds, and its settings."""
    abouts = [about for place in sorted(folder.glob("*/")) if (about := read_json(place / ABOUT))]
    documents = sum(int(str(about["documents"])) for about in abouts)
    return {"runs": len(abouts), "documents": documents, "near": abouts[0]["near"] if abouts else None}


def known(corpus: Corpus, stages: Stages, spec: Dedup, members: Mask) -> Mask:
    """Which members are in the index, or near to what is; the run `spec.run` itself is not looked at. By stages."""
    near = spec.near or Near()
    places = tuple(runs(Path(spec.index), near, spec.run))
    rows = [np.flatnonzero(members[batch.first : batch.first + batch.rows]) for batch in corpus]
    items = [_Lookup(batch, some, places, near, spec) for batch, some in zip(corpus, rows, strict=True)]
    found = [np.load(folder / KNOWN) for folder in stages.map("dedup-known", _look_up, items)] if places else []
    result = np.zeros(len(corpus), bool)
    for batch, known_rows in zip(corpus, found, strict=False):
        result[batch.first + known_rows] = True
    return result


@dataclass(frozen=True, slots=True)
class _Lookup:
    batch: Batch
    rows: Indices
    runs: tuple[Path, ...]
    near: Near
    spec: Dedup


def _put(making: Path, place: Path) -> None:
    """Rename a finished run into place, durably; another process may have been first."""
    for path in making.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    sync(making)
    if not place.exists():
        making.rename(place)
    sync(place.parent)


def _look_up(item: _Lookup, folder: Path) -> None:
    corpus = Corpus([Batch(item.batch.folder, 0, item.batch.rows)])
    rows = item.rows
    is_known = np.zeros(len(rows), bool)
    high, low = digests(corpus)
    keys = urls.keys_of(item.batch.documents.column("url").take(rows).to_pylist()) if item.spec.url else None
    for run in item.runs:
        is_known |= _among(np.load(run / DIGESTS, mmap_mode="r"), high[rows], low[rows])
        if keys is not None:
            is_known |= _among(np.load(run / URLS, mmap_mode="r"), keys[:, 0], keys[:, 1]) & keys.any(axis=1)
        if item.spec.near:
            left = np.flatnonzero(~is_known)
            is_known[left] = _near_one(corpus, rows[left], run, item.near)
    np.save(folder / KNOWN, rows[is_known])


def _among(held: U64, high: U64, low: U64) -> Mask:
    """Which of the digests are among those held, which are in order."""
    result = np.zeros(len(high), np.bool_)
    _find(np.asarray(held), high, low, result)
    return result


def _near_one(corpus: Corpus, rows: Indices, run: Path, near: Near) -> Mask:
    """Which rows of the only batch of `corpus` are near to a document of `run`."""
    signatures = corpus.batches[0].signatures[rows]
    band_rows = rows_of_band(near.threshold, near.permutations)
    keys, order, held = (np.asarray(np.load(run / name, mmap_mode="r")) for name in (KEYS, ROWS, SKETCH))
    own = signatures.astype(np.uint8)
    filled = np.flatnonzero((signatures != 0xFFFFFFFF).any(axis=1))
    parts = [np.empty(0, np.uint64)]
    for band in range(len(keys)):
        wanted = band_keys(signatures, band, band_rows)
        found = _propose(
            wanted, filled, own, keys[band], order[band], held, (band + 1) * band_rows, agreements_min(near)
        )
        parts.append(found)
    return _verified(corpus, rows, np.unique(np.concatenate(parts)), run, near)


def _verified(corpus: Corpus, rows: Indices, pairs: U64, run: Path, near: Near) -> Mask:
    """Which rows have a pair of the Jaccard index asked for; pairs: place in `rows`, and row of the run."""
    members = members_of(pairs)
    some, places = np.unique(members[:, 0], return_inverse=True)
    starts = np.asarray(np.load(run / STARTS, mmap_mode="r"))
    shingles = np.asarray(np.memmap(run / SHINGLES, np.uint32, "r")) if starts[-1] else np.empty(0, np.uint32)
    is_near = np.zeros(len(some), np.bool_)
    done = 0
    for flat, begins in shingled(corpus, rows[some], near):
        count = len(begins) - 1
        chosen = (places >= done) & (places < done + count)
        part = is_near[done : done + count]
        _verify(places[chosen] - done, members[chosen, 1], halves(flat), begins, shingles, starts, near.threshold, part)
        done += count
    result = np.zeros(len(rows), bool)
    result[some] = is_near
    return result


@kernel
def _find(held: U64, high: U64, low: U64, result: Mask) -> None:
    for number in range(len(high)):
        begin, stop = 0, len(held)
        while begin < stop:
            middle = (begin + stop) // 2
            if held[middle, 0] < high[number] or (held[middle, 0] == high[number] and held[middle, 1] < low[number]):
                begin = middle + 1
            else:
                stop = middle
        result[number] = begin < len(held) and held[begin, 0] == high[number] and held[begin, 1] == low[number]


@inner
def _likely(begin: int, stop: int, value: np.uint64, order: U32, held: Sketch, first_row: int) -> tuple[int, int]:
    """The part of a large bucket around where a text with this forest value would stand."""
    low, high = begin, stop
    while low < high:
        middle = (low + high) // 2
        if forest_value(held[order[middle]], first_row) < value:
            low = middle + 1
        else:
            high = middle
    return max(begin, low - NEIGHBOURS), min(stop, low + NEIGHBOURS)


@kernel
def _propose(
    wanted: U64,
    filled: Indices,
    own: Sketch,
    keys: U64,
    order: U32,
    held: Sketch,
    first_row: int,
    agreements_least: int,
) -> U64:
    """Pairs of a text and a held one that agree in a band, as words with the text in the upper half."""
    pairs, count = np.empty(2 * BUCKET_MAX * len(filled), np.uint64), 0
    for text in filled:
        begin = np.searchsorted(keys, wanted[text])
        stop = np.searchsorted(keys, wanted[text], "right")
        if stop - begin > BUCKET_MAX:
            begin, stop = _likely(begin, stop, forest_value(own[text], first_row), order, held, first_row)
        for place in range(begin, stop):
            if agreements(own[text], held[order[place]]) >= agreements_least:
                pairs[count] = np.uint64(text) << np.uint64(32) | np.uint64(order[place])
                count += 1
    return pairs[:count].copy()


@kernel
def _verify(
    texts: Indices,
    others: Indices,
    halves: U32,
    begins: Indices,
    shingles: U32,
    starts: Indices,
    threshold: float,
    is_near: Mask,
) -> None:
    """Mark the texts that have the Jaccard index `threshold` with one of their pairs' others."""
    for pair in range(len(texts)):
        text = texts[pair]
        if not is_near[text]:
            one, other = (
                halves[begins[text] : begins[text + 1]],
                shingles[starts[others[pair]] : starts[others[pair] + 1]],
            )
            common = common_of(one, other)
            is_near[text] = common / max(1, len(one) + len(other) - common) >= threshold
