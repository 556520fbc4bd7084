"""The writing stage: a few batches of documents, treated, on their side of the split, as Parquet files.

An item's folder holds TABLE.parquet for each table that has rows, candidates for questions with their keys, and COUNTS.
Which questions stay is decided over all items afterwards (`asking`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.compose.pack import Packer
from atoll.data.engine.compose.split import TRAIN
from atoll.data.engine.compose.tokenizer import tokenizer_of
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.curate.decide import Decision, cuts_of
from atoll.data.engine.curate.judge import KEPT, Mask
from atoll.data.engine.curate.plan import Pack
from atoll.data.engine.curate.tables import Tables
from atoll.data.engine.curate.treat import Treated, Treatment, lengths_of, summed, treat
from atoll.data.engine.questions.asking import Asking, Pairs, readable

COUNTS = "counts.json"
SIDES = ("train", "heldout")
SAMPLES_MAX = 3
SAMPLE_CHARACTERS = 100
HIDDEN_NOTES = ("digest_low", "digest_high")
"""Columns that only the engine needs."""

SHARD_BYTES = 32 << 20
ITEMS_MIN = 16


@dataclass(frozen=True, slots=True)
class Writing:
    """How documents are written; the same for all items. `characters_min` holds again after treatment."""

    decision: Decision
    treatment: Treatment
    asking: Asking
    pack: Pack | None
    characters_min: int


@dataclass(frozen=True, slots=True)
class Item:
    """Consecutive batches, the first being number `first` of the corpus."""

    first: int
    batches: tuple[Batch, ...]
    writing: Writing

    def label(self) -> str:
        """For messages."""
        return f"documents {self.batches[0].first} to {self.batches[-1].first + self.batches[-1].rows - 1}"


def items_of(corpus: Corpus, writing: Writing) -> list[Item]:
    """The batches in groups of about SHARD_BYTES, less of a small corpus, so that there is work for many."""
    sizes = [batch.documents.column("text").nbytes for batch in corpus]
    most = max(1, min(SHARD_BYTES, sum(sizes) // ITEMS_MIN))
    items: list[Item] = []
    group: list[Batch] = []
    size = first = 0
    for number, batch in enumerate(corpus):
        if group and size + sizes[number] > most:
            items.append(Item(first, tuple(group), writing))
            group, size, first = [], 0, number
        group.append(batch)
        size += sizes[number]
    return [*items, Item(first, tuple(group), writing)] if group else items


def write_out(item: Item, folder: Path) -> None:
    """Write the documents of an item into `folder`."""
    writing = item.writing
    told = _Told()
    packer = Packer(tokenizer_of(writing.pack.tokenizer), writing.pack.length) if writing.pack else None
    cuts = cuts_of(writing.decision)
    with Tables(folder) as tables, Pairs(folder) as pairs:
        for number, batch in enumerate(item.batches, item.first):
            share = _share_of(batch, writing, None if cuts is None else cuts[number])
            share.add_to(tables, told)
            pairs.add(share.documents, share.side, share.kept, writing.asking)
            if packer is not None:
                train = share.taken("train")
                packer.add(train.column("id"), train.column("text"))
        told.rows = tables.rows
    if packer is not None and told.rows.get("train"):
        packed = packer.write(folder / "packed.parquet")
        told.rows = {**told.rows, "packed": packed.sequences}
    (folder / COUNTS).write_bytes(orjson.dumps(told.as_dict()))


class _Told:
    """What an item has to tell."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}
        self.documents = self.characters = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, slots=True)
class _Share:
    """A batch ready to be written: treated documents, as they are `shown`, reasons (KEPT or a place in `names`)."""

    batch: Batch
    documents: pa.RecordBatch
    shown: pa.RecordBatch
    treated: Treated
    names: tuple[str, ...]
    reasons: NDArray[np.int16]
    side: NDArray[np.int8]
    times: NDArray[np.int16]
    clusters: NDArray[np.int64]

    @property
    def kept(self) -> Mask:
        kept: Mask = self.reasons == KEPT
        return kept

    def taken(self, side: str) -> pa.RecordBatch:
        """id, text and source of the documents of a side, each as often as it is taken."""
        rows = np.flatnonzero(self.kept & (self.side == SIDES.index(side)))
        rows = np.repeat(rows, self.times[rows])
        return self.shown.select(["id", "text", "source"]).take(pa.array(rows))

    def add_to(self, tables: Tables, told: _Told) -> None:
        for side in SIDES:
            tables.add(side, self.taken(side))
        tables.add("notes", self._notes())
        tables.add("rejected", self._rejected())
        self._tell(told)

    def _reason_names(self) -> pa.StringArray:
        places = self.reasons.astype(np.int64) % (len(self.names) + 1)  # KEPT is behind the last name
        return pa.array([*self.names, ""], pa.string()).take(pa.array(places))

    def _notes(self) -> pa.RecordBatch:
        documents, notes = self.documents, self.batch.notes
        columns = {"id": documents.column("id"), "source": documents.column("source"), "reason": self._reason_names()}
        columns["cluster"] = pa.array(np.asarray(self.clusters))
        names = [name for name in notes.schema.names if name not in HIDDEN_NOTES]
        return pa.record_batch(columns | {name: notes.column(name) for name in names})

    def _rejected(self) -> pa.RecordBatch:
        columns = {name: self.documents.column(name) for name in ("id", "source")}
        columns |= {"reason": self._reason_names(), "text": self.shown.column("text")}
        return pa.record_batch(columns).filter(pa.array(~self.kept))

    def _tell(self, told: _Told) -> None:
        kept = self.kept
        told.documents += int(kept.sum())
        told.characters += int(lengths_of(self.shown.column("text"))[kept].sum())
        told.personal.update(summed([kinds for row, kinds in self.treated.found.items() if kept[row]]))
        if "language" in self.batch.notes.schema.names:
            told.languages.update(self.batch.notes.column("language").filter(pa.array(kept)).to_pylist())
        for place in np.unique(self.reasons[~kept]).tolist():
            rows = np.flatnonzero(self.reasons == place)
            name = self.names[place]
            told.dropped[name] += len(rows)
            samples = told.samples.setdefault(name, [])
            samples += [self._sample(row) for row in rows[: SAMPLES_MAX - len(samples)].tolist()]

    def _sample(self, row: int) -> str:
        start = self.shown.column("text")[row].as_py()[: 4 * SAMPLE_CHARACTERS]
        return f"{self.documents.column('id')[row].as_py()}: {' '.join(start.split())[:SAMPLE_CHARACTERS]}"


def names_of(decision: Decision) -> tuple[str, ...]:
    """Every reason there can be in the end: what was decided, and what only the treated text tells."""
    return tuple(dict.fromkeys([*decision.names, "privacy", "emptied"]))


def _share_of(batch: Batch, writing: Writing, spans: Any) -> _Share:
    decision = writing.decision
    here = slice(batch.first, batch.first + batch.rows)
    documents, notes = batch.documents, batch.notes
    treated = treat(documents.column("text"), documents.column("id"), notes, spans, writing.treatment)
    names = names_of(decision)
    reasons = np.array(decision.reasons[here])
    reasons[(reasons == KEPT) & treated.refused] = names.index("privacy")
    lengths = lengths_of(treated.texts)
    emptied = treated.changed & (lengths < max(1, writing.characters_min))
    reasons[(reasons == KEPT) & emptied] = names.index("emptied")
    place = documents.schema.get_field_index("text")
    written = documents.set_column(place, "text", treated.texts)
    sides, times, clusters = decision.sides[here], decision.times[here], decision.clusters[here]
    return _Share(batch, written, readable(written), treated, names, reasons, sides, times, clusters)


def counts_in(folder: Path) -> dict[str, Any]:
    """What an item's folder tells."""
    told: dict[str, Any] = orjson.loads((folder / COUNTS).read_bytes())
    return told


assert SIDES[TRAIN] == "train"
