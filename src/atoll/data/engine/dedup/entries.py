"""Entries: what a kept index holds of documents, as files of a run to look up in, and as a table of a dataset.

Of each document: the digest, the URL's digest, the MinHash signature, and the shingle set as the upper halves of the
hashes, which moves a Jaccard index by less than .001 in texts of up to a million words. Texts themselves are not held.
In the files of a run a signature is its lowest bytes and the keys of its bands, which serve one threshold; the table
has it whole and names the document, so any threshold can be served from it, and an erasure finds its rows by id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atoll.core.files import write_json
from atoll.data.engine.annotate.minhash import band_keys, rows_of_band
from atoll.data.engine.arrays import I64, U32
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup import urls
from atoll.data.engine.dedup.candidates import Sketch, forest_value
from atoll.data.engine.dedup.exact import Indices, digests
from atoll.data.engine.dedup.spec import Near
from atoll.data.engine.dedup.verify import shingled
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import kernel
from atoll.data.parquet import batches_in, open_parquet

ABOUT, DIGESTS, URLS, KEYS, ROWS, SKETCH, STARTS, SHINGLES = (
    *("run.json", "digests.npy", "urls.npy", "keys.npy", "rows.npy", "sketch.npy", "starts.npy", "shingles.u32"),
)
"""Files of a run."""

TABLE = "index"
"""What the table is called in a dataset."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("digest_high", pa.uint64()),
        ("digest_low", pa.uint64()),
        ("url_high", pa.uint64()),
        ("url_low", pa.uint64()),
        ("signature", pa.binary()),
        ("shingles", pa.list_(pa.uint32())),
    ]
)
"""The table of a dataset; both words of a URL's digest are 0 where there is none."""

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Entries:
    """Of n documents in order: digests and URLs' digests uint64 (n, 2), signatures uint32 (n, permutations), shingles
    uint32 one set after the other, and how many each has (n,)."""

    digests: U64
    urls: U64
    signatures: U32
    shingles: U32
    counts: I64


def entries_of(corpus: Corpus, numbers: Indices, near: Near) -> Iterator[Entries]:
    """Those of the documents `numbers` (ascending), batch by batch."""
    for batch in corpus:
        low, high = np.searchsorted(numbers, [batch.first, batch.first + batch.rows])
        if low < high:
            yield _entries(batch, numbers[low:high] - batch.first, near)


def entries_in(files: Sequence[Path]) -> Iterator[Entries]:
    """Those of the tables in Parquet files, portion by portion."""
    for file in files:
        with open_parquet(file) as opened:
            for batch in batches_in(opened, ROWS_AT_ONCE):
                yield _from_table(batch)


def rows_in(files: Sequence[Path]) -> int:
    """How many documents the tables tell of."""
    return sum(int(pq.read_metadata(file).num_rows) for file in files)


def table_of(batch: Batch, rows: Indices, near: Near) -> pa.RecordBatch:
    """The entries of some rows of a batch as a table; SCHEMA."""
    found = _entries(batch, rows, near)
    ends = np.concatenate([[0], np.cumsum(found.counts)]).astype(np.int32)
    width = 4 * found.signatures.shape[1]
    places = (np.arange(len(rows) + 1) * width).astype(np.int32)
    signatures = np.ascontiguousarray(found.signatures, "<u4")
    columns = [
        batch.documents.column("id").take(pa.array(rows)),
        *(pa.array(column.copy()) for pair in (found.digests, found.urls) for column in pair.T),
        pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(places), pa.py_buffer(signatures)]),
        pa.ListArray.from_arrays(pa.array(ends), pa.array(found.shingles)),
    ]
    return pa.record_batch(columns, SCHEMA)


def write_run(folder: Path, parts: Iterable[Entries], count: int, near: Near) -> None:
    """The files of a run with `count` documents in all."""
    band_rows = rows_of_band(near.threshold, near.permutations)
    bands = near.permutations // band_rows
    told, known_urls = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]
    sketches, counts = [np.empty((0, near.permutations), np.uint8)], [np.empty(0, np.int64)]
    keys = np.empty((bands, count), np.uint64)
    done = 0
    with (folder / SHINGLES).open("wb") as file:
        for part in parts:
            told.append(part.digests)
            known_urls.append(part.urls[part.urls.any(axis=1)])
            sketches.append(part.signatures.astype(np.uint8))
            counts.append(part.counts)
            file.write(part.shingles.tobytes())
            for band in range(bands):
                keys[band, done : done + len(part.counts)] = band_keys(part.signatures, band, band_rows)
            done += len(part.counts)
    assert done == count, "a run holds what it says"
    np.save(folder / DIGESTS, _sorted(np.concatenate(told)))
    np.save(folder / URLS, _sorted(np.concatenate(known_urls)))
    np.save(folder / STARTS, np.cumsum(np.concatenate([[0], *counts])).astype(np.int64))
    _write_bands(folder, np.concatenate(sketches), keys, band_rows)
    write_json(folder / ABOUT, {"near": asdict(near), "documents": count})


def halves(flat: U64) -> U32:
    """The upper halves of shingles, ascending; equal ones of a text stay, there are next to none."""
    return (flat >> np.uint64(32)).astype(np.uint32)


def _write_bands(folder: Path, sketch: Sketch, keys: U64, band_rows: int) -> None:
    """The sketches, and for each band the keys in order with the rows they belong to, likely pairs side by side."""
    order = np.empty(keys.shape, np.uint32)
    for band in range(len(keys)):
        order[band] = np.lexsort((_forest_values(sketch, (band + 1) * band_rows), keys[band]))
        keys[band] = keys[band, order[band]]
    np.save(folder / SKETCH, sketch)
    np.save(folder / KEYS, keys)
    np.save(folder / ROWS, order)


def _entries(batch: Batch, rows: Indices, near: Near) -> Entries:
    alone = Corpus([Batch(batch.folder, 0, batch.rows)])
    high, low = digests(alone)
    keys = urls.keys_of(batch.documents.column("url").take(pa.array(rows)).to_pylist())
    parts, counts = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    for flat, starts in shingled(alone, rows, near):
        parts.append(halves(flat))
        counts.append(np.diff(starts))
    pair = np.stack([high[rows], low[rows]], axis=1)
    return Entries(pair, keys, batch.signatures[rows], np.concatenate(parts), np.concatenate(counts))


def _from_table(batch: pa.RecordBatch) -> Entries:
    words = [batch.column(name).to_numpy() for name in ("digest_high", "digest_low", "url_high", "url_low")]
    signatures = np.frombuffer(b"".join(batch.column("signature").to_pylist()), "<u4").astype(np.uint32)
    sets = batch.column("shingles")
    counts = pc.list_value_length(sets).to_numpy().astype(np.int64)
    flat: U32 = sets.flatten().to_numpy()
    shaped = signatures.reshape(batch.num_rows, -1)
    return Entries(np.stack(words[:2], axis=1), np.stack(words[2:], axis=1), shaped, flat, counts)


def _sorted(pairs: U64) -> U64:
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _forest_values(sketch: Sketch, first_row: int) -> U64:
    result = np.empty(len(sketch), np.uint64)
    _fill_forest_values(sketch, first_row, result)
    return result


@kernel
def _fill_forest_values(sketch: Sketch, first_row: int, result: U64) -> None:
    for row in range(len(sketch)):
        result[row] = forest_value(sketch[row], first_row)
