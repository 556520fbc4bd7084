"""The documents of a synthesis: drawn from a dataset version, copied to the task's own folder, read by memory map.

When there are more than are wanted they are drawn by a hash of id and seed, whichever split they are in. Documents keep
their side: what is written about a held-out document is held out. A document too short or too odd to be asked about
counts as one without targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.compose.split import hash_ids
from atoll.data.engine.curate.corpus import TEXTS, Corpus, write_batch
from atoll.data.engine.hashing import U64, mix, seeded
from atoll.data.engine.runtimes.stages import perform
from atoll.data.engine.synthesis.passages import Target, targets_of
from atoll.data.engine.synthesis.wanted import Wanted
from atoll.data.manifest import Manifest, read_manifest, read_shard, split_of

SIDES = ("heldout", "train")
"""Held-out documents come first, so of two equal questions the held-out one stays."""

ABOUT = "documents.json"
BATCH_ROWS = 1000
CACHED = 256


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a folder of documents is made from."""

    store: BlobStore
    wanted: Wanted

    def label(self) -> str:
        """For messages."""
        return f"the documents of {self.wanted.manifest}"


class Documents:
    """The documents in `folder`, numbered from 0; their targets are numbered, `per_document` numbers for each."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        about = orjson.loads((folder / ABOUT).read_bytes())
        self._wanted = wanted
        self._corpus = Corpus.of([folder / name for name in about["folders"]], about["rows"])
        self._sides = about["sides"]
        self._ranks = np.array(about["ranks"], np.int64)
        self._counts = np.array(about["targets"], np.int64)
        self._targets = lru_cache(CACHED)(self._targets_of)

    def __len__(self) -> int:
        return len(self._corpus)

    def target(self, number: int) -> Target:
        """Target `number`."""
        document, slot = divmod(number, self._wanted.per_document)
        return self._targets(document)[slot]

    def numbers(self) -> Iterator[tuple[str, int]]:
        """Pairs (side, number) of all targets in the order of the dataset, held-out ones first."""
        for batch, side in zip(self._corpus, self._sides, strict=True):
            for document in range(batch.first, batch.first + batch.rows):
                for slot in range(int(self._counts[document])):
                    yield side, document * self._wanted.per_document + slot

    def order(self) -> list[int]:
        """The numbers of all targets in the order they are asked: the first of every document, as drawn, and so on.

        What a budget cuts off is then the least loss.
        """
        first = np.argsort(self._ranks, kind="stable")
        return [
            int(document) * self._wanted.per_document + slot
            for slot in range(self._wanted.per_document)
            for document in first[self._counts[first] > slot]
        ]

    def _targets_of(self, number: int) -> list[Target]:
        batch, row = self._corpus.place(number)
        name, text = (batch.documents.column(column)[row].as_py() for column in ("id", "text"))
        return targets_of(name, text, self._wanted)


def documents_of(store: BlobStore, wanted: Wanted, folder: Path) -> Documents:
    """The documents to ask about, in `folder`, drawn anew unless it is there. Invalid when nothing can be asked."""
    if not folder.exists():
        perform(draw, Drawing(store, wanted), folder)
    return Documents(folder, wanted)


def draw(drawing: Drawing, folder: Path) -> None:
    """Write the documents drawn and how many targets each gives."""
    manifest = read_manifest(drawing.store, drawing.wanted.manifest)
    sides = [side for side in SIDES if side in manifest.splits]
    limit = _limit(drawing, manifest, sides)
    about: dict[str, list[object]] = {name: [] for name in ("folders", "rows", "sides", "ranks", "targets")}
    for side, batch, keys in _batches(drawing, manifest, sides):
        drawn = np.flatnonzero(keys <= limit)
        if not len(drawn):
            continue
        name = f"{len(about['folders']):06d}"
        (folder / name).mkdir()
        taken = batch.take(pa.array(drawn))
        write_batch(folder / name / TEXTS, taken)
        pairs = zip(taken.column("id").to_pylist(), taken.column("text").to_pylist(), strict=True)
        about["folders"].append(name)
        about["rows"].append(taken.num_rows)
        about["sides"].append(side)
        about["ranks"] += (keys[drawn] >> np.uint64(1)).tolist()
        about["targets"] += [len(targets_of(*pair, drawing.wanted)) for pair in pairs]
    if not any(about["targets"]):
        hint = "curate documents of a few sentences each, in the splits train and heldout"
        raise Invalid("the dataset has no document that could be asked about", field="dataset", hint=hint)
    (folder / ABOUT).write_bytes(orjson.dumps(about))


def _limit(drawing: Drawing, manifest: Manifest, sides: Sequence[str]) -> np.uint64:
    """The greatest key that is drawn."""
    parts = [keys for _, _, keys in _batches(drawing, manifest, sides)]
    keys = np.concatenate([np.empty(0, np.uint64), *parts])
    most = drawing.wanted.documents_max
    return np.uint64(2**64 - 1) if len(keys) <= most else np.partition(keys, most - 1)[most - 1]


def _batches(drawing: Drawing, manifest: Manifest, sides: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch, U64]]:
    """The documents a few at a time: their side, id and text, and the key each is drawn by."""
    salt = seeded(2, drawing.wanted.seed)[1]  # not the split's word, by which held-out documents would all come first
    for side in sides:
        for shard in split_of(manifest, side).shards:
            table = read_shard(drawing.store, shard).select(["id", "text"]).combine_chunks()
            for batch in table.to_batches(BATCH_ROWS):
                yield side, batch, mix(hash_ids(batch.column("id")) ^ salt)
