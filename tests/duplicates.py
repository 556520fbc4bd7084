"""Small corpora on disk for the tests of deduplication: texts in batches, with digests and signatures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import xxhash

from atoll.data.engine.annotate.minhash import shingler, signatures
from atoll.data.engine.curate.corpus import NOTES, SCHEMA, SIGNATURES, TEXTS, Corpus, write_batch
from atoll.data.engine.dedup import Near
from atoll.data.engine.runtimes.stages import Call, Stages

NEAR = Near()


def corpus_of(
    folder: Path,
    texts: Sequence[str],
    ids: Sequence[str] = (),
    batch_rows: int = 1000,
    near: Near = NEAR,
    notes: Mapping[str, Sequence[float]] = MappingProxyType({}),
    **columns: Sequence[str],
) -> Corpus:
    """A corpus of `texts` below `folder`; ids default to d000, d001 …, other columns of the schema to empty ones."""
    ids = ids or [f"d{number:03d}" for number in range(len(texts))]
    folders, rows = [], []
    for start in range(0, len(texts), batch_rows):
        part = slice(start, start + batch_rows)
        given = {"id": ids, "text": texts} | columns
        values = [given.get(name, [""] * len(texts))[part] for name in SCHEMA.names]
        place = folder / f"{len(folders):06d}"
        place.mkdir(parents=True)
        batch = pa.record_batch([pa.array(value, pa.string()) for value in values], SCHEMA)
        write_batch(place / TEXTS, batch)
        write_batch(place / NOTES, _notes(texts[part], {name: value[part] for name, value in notes.items()}))
        room = shingler(near.words, near.cjk_characters)
        np.save(place / SIGNATURES, signatures(batch.column("text"), near.permutations, room)[0])
        folders.append(place)
        rows.append(batch.num_rows)
    return Corpus.of(folders, rows)


class Direct:
    """Items one after the other, written in place: for tests that run many and are never killed."""

    def run(self, calls: Sequence[Call]) -> Iterator[Path]:
        for work, item, place, _ in calls:
            place.mkdir()
            work(item, place)
            yield place


def stages_in(folder: Path) -> Stages:
    return Stages(folder, Direct())


def _notes(texts: Sequence[str], more: Mapping[str, Sequence[float]]) -> pa.RecordBatch:
    digests = [xxhash.xxh3_128_intdigest(text.encode()) for text in texts]
    columns = {
        "digest_low": pa.array([digest % 2**64 for digest in digests], pa.uint64()),
        "digest_high": pa.array([digest >> 64 for digest in digests], pa.uint64()),
        "characters": pa.array([len(text) for text in texts], pa.int64()),
    }
    return pa.record_batch(columns | {name: pa.array(values, pa.float64()) for name, values in more.items()})
