"""The writing stage: a few batches of documents, treated, on their side of the split, as Parquet files.

An item's folder holds TABLE.parquet for each table that has rows, candidates for questions with their keys, and COUNTS.
Which questions stay is decided over all items afterwards (`asking`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.compose.pack import Packer
from atoll.data.engine.compose.split import TRAIN
from atoll.data.engine.compose.tokenizer import tokenizer_of
from atoll.data.engine.curate.corpus import TEXTS, Batch, Corpus
from atoll.data.engine.curate.decide import Decision, cuts_of
from atoll.data.engine.curate.intake import findings_in
from atoll.data.engine.curate.judge import KEPT, Mask
from atoll.data.engine.curate.mapped import PORTION_BYTES, portions
from atoll.data.engine.curate.plan import Near, Pack
from atoll.data.engine.curate.tables import Tables
from atoll.data.engine.curate.treat import Treated, Treatment, lengths_of, summed, treat, treated_titles
from atoll.data.engine.dedup import Spans
from atoll.data.engine.dedup.entries import TABLE, table_of
from atoll.data.engine.gather import gathered
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
    """How documents are written; the same for all items. `characters_min` holds again after treatment. `index`: the
    settings of the index that is kept of the documents as they were read, None for none.
    """

    decision: Decision
    treatment: Treatment
    asking: Asking
    pack: Pack | None
    characters_min: int
    index: Near | None = None


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
            for share in _shares_of(batch, writing, None if cuts is None else cuts[number]):
                share.add_to(tables, told)
                pairs.add(share.documents, share.decided.sides, share.kept, writing.asking)
                if packer is not None:
                    train = share.taken("train")
                    packer.add(train.column("id"), train.column("text"))
                del share  # or it would be in memory while rows are written, and the next is made
                tables.write_full()
            if writing.index is not None:
                tables.add(TABLE, _index_of(batch, writing.decision, writing.index))
        told.rows = tables.rows
    if packer is not None and told.rows.get("train"):
        packed = packer.write(folder / "packed.parquet")
        told.rows = {**told.rows, "packed": packed.sequences}
    (folder / COUNTS).write_bytes(orjson.dumps(told.as_dict()))


def _index_of(batch: Batch, decision: Decision, near: Near) -> pa.RecordBatch:
    """What later runs know the batch's documents by that were decided to stay."""
    reasons = decision.reasons[batch.first : batch.first + batch.rows]
    return table_of(batch, np.flatnonzero(reasons == KEPT), near)


class _Told:
    """What an item has to tell."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self.personal: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}
        self.documents = self.documents_cut = self.characters = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class _Decided(NamedTuple):
    """The decision about some rows."""

    reasons: NDArray[np.int16]
    sides: NDArray[np.int8]
    times: NDArray[np.int16]
    clusters: NDArray[np.int64]

    @classmethod
    def of(cls, decision: Decision, rows: slice) -> _Decided:
        return cls(decision.reasons, decision.sides, decision.times, decision.clusters).within(rows)

    def within(self, rows: slice) -> _Decided:
        return _Decided(self.reasons[rows], self.sides[rows], self.times[rows], self.clusters[rows])


@dataclass(frozen=True, slots=True)
class _Share:
    """Some rows of a batch ready to be written: treated documents, as they are `shown`, and what was decided, with
    reasons that are KEPT or a place in `names`.
    """

    notes: pa.RecordBatch
    documents: pa.RecordBatch
    shown: pa.RecordBatch
    treated: Treated
    names: tuple[str, ...]
    decided: _Decided

    @property
    def kept(self) -> Mask:
        kept: Mask = self.decided.reasons == KEPT
        return kept

    def taken(self, side: str) -> pa.RecordBatch:
        """id, text and source of the documents of a side, each as often as it is taken."""
        rows = np.flatnonzero(self.kept & (self.decided.sides == SIDES.index(side)))
        return self._picked(np.repeat(rows, self.decided.times[rows]), ("id", "text", "source"))

    def add_to(self, tables: Tables, told: _Told) -> None:
        for side in SIDES:
            tables.hold(side, self.taken(side))
        tables.hold("notes", self._notes())
        tables.hold("rejected", self._rejected())
        self._tell(told)

    def _reason_names(self) -> pa.StringArray:
        places = self.decided.reasons.astype(np.int64) % (len(self.names) + 1)  # KEPT is behind the last name
        return pa.array([*self.names, ""], pa.string()).take(pa.array(places))

    def _notes(self) -> pa.RecordBatch:
        documents, notes = self.documents, self.notes
        columns = {"id": documents.column("id"), "source": documents.column("source"), "reason": self._reason_names()}
        columns["cluster"] = pa.array(np.asarray(self.decided.clusters))
        names = [name for name in notes.schema.names if name not in HIDDEN_NOTES]
        return pa.record_batch(columns | {name: notes.column(name) for name in names})

    def _rejected(self) -> pa.RecordBatch:
        rows = np.flatnonzero(~self.kept)
        picked = self._picked(rows, ("id", "source", "text"))
        return picked.add_column(2, "reason", self._reason_names().take(pa.array(rows)))

    def _picked(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.RecordBatch:
        """Columns of some rows, as they are shown."""
        return pa.record_batch({name: gathered(self.shown.column(name), rows) for name in names})

    def _tell(self, told: _Told) -> None:
        kept = self.kept
        told.documents += int(kept.sum())
        told.documents_cut += int((self.treated.cut & kept).sum())
        told.characters += int(lengths_of(self.shown.column("text"))[kept].sum())
        told.personal.update(summed([kinds for row, kinds in self.treated.found.items() if kept[row]]))
        if "language" in self.notes.schema.names:
            told.languages.update(self.notes.column("language").filter(pa.array(kept)).to_pylist())
        for place in np.unique(self.decided.reasons[~kept]).tolist():
            rows = np.flatnonzero(self.decided.reasons == place)
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


def _shares_of(batch: Batch, writing: Writing, cut: Spans | None) -> Iterator[_Share]:
    """The batch in portions of about PORTION_BYTES of text, of which one at a time is in memory."""
    decided = _Decided.of(writing.decision, slice(batch.first, batch.first + batch.rows))
    notes, findings = batch.notes, findings_in(batch.folder)
    for rows, documents in portions(batch.folder / TEXTS, PORTION_BYTES):
        found = None if findings is None else _rows_of(findings, rows)
        treated = treat(
            documents.column("text"), notes[rows], found, None if cut is None else _cut_of(cut, rows), writing.treatment
        )
        yield _share_of(documents, notes[rows], treated, decided.within(rows), writing)
        del treated


def _share_of(
    documents: pa.RecordBatch, notes: pa.RecordBatch, treated: Treated, decided: _Decided, writing: Writing
) -> _Share:
    names = names_of(writing.decision)
    written = documents.set_column(documents.schema.get_field_index("text"), "text", treated.texts)
    if writing.asking.is_wanted:
        titles = treated_titles(documents.column("title"), writing.treatment)
        written = written.set_column(documents.schema.get_field_index("title"), "title", titles)
    reasons = _final(decided.reasons, treated, names, writing.characters_min)
    return _Share(notes, written, readable(written), treated, names, decided._replace(reasons=reasons))


def _final(
    reasons: NDArray[np.int16], treated: Treated, names: tuple[str, ...], characters_min: int
) -> NDArray[np.int16]:
    """The reasons, with what only the treated text tells."""
    reasons = np.array(reasons)
    reasons[(reasons == KEPT) & treated.refused] = names.index("privacy")
    emptied = treated.changed & (lengths_of(treated.texts) < max(1, characters_min))
    reasons[(reasons == KEPT) & emptied] = names.index("emptied")
    return reasons


def _rows_of(table: NDArray[np.int32], rows: slice) -> NDArray[np.int32]:
    """Those rows of a table whose first column, ascending, says which they belong to; counted from the first."""
    low, high = np.searchsorted(table[:, 0], [rows.start, rows.stop])
    return table[low:high] - np.array([rows.start, *[0] * (table.shape[1] - 1)], np.int32)


def _cut_of(cut: Spans, rows: slice) -> Spans:
    low, high = np.searchsorted(cut.rows, [rows.start, rows.stop])
    return Spans(cut.rows[low:high] - np.int32(rows.start), cut.starts[low:high], cut.stops[low:high])


def counts_in(folder: Path) -> dict[str, Any]:
    """What an item's folder tells."""
    told: dict[str, Any] = orjson.loads((folder / COUNTS).read_bytes())
    return told


assert SIDES[TRAIN] == "train"
