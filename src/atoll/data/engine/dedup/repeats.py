"""Repeated text: what lines and substrings cut together, and which documents are dropped because little is left.

A document is dropped when more than a share of its bytes would be cut. Source code is dropped like any text and never
cut, for a file with holes is no program: it stays whole or goes. What is cut always stands in a document that
stays: a dropped document proves nothing about later ones. Who is dropped depends on who is dropped before, so both are
found in turns, until nothing changes or ROUNDS_MAX; the last cuts are those of the documents that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.core.files import write_bytes
from atoll.data.engine.curate.corpus import Batch, Corpus
from atoll.data.engine.dedup import lines, raw, substrings
from atoll.data.engine.dedup.cuts import FILE, Cuts, Spans, snapped, united
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.dedup.shards import shards_of
from atoll.data.engine.dedup.spec import Dedup
from atoll.data.engine.dedup.verify import sizes
from atoll.data.engine.runtimes.stages import Stages

ROUNDS_MAX = 4
LOST = "lost"
"""What a batch's documents would lose, bytes of each; beside the cuts, which leave source code whole."""


@dataclass(frozen=True, slots=True)
class _Joined:
    number: int
    batches: int
    batch: Batch
    lines: Path | None
    anchors: Path | None
    repeated_lines: tuple[Path, ...]
    repeated_substrings: tuple[Path, ...]
    whole: bool


def find(corpus: Corpus, stages: Stages, spec: Dedup, members: Mask, ranks: Indices) -> tuple[Cuts, Mask]:
    """The cuts among `members`, and the members of which too much would be cut. ranks: the keep order.

    Documents of kind chat take no part: a conversation with holes is none.
    """
    taken = members & ~_chats(corpus)
    search = Search(corpus, stages, spec, taken, ranks)
    dropped = np.zeros(len(members), bool)
    for step in range(ROUNDS_MAX):
        cuts, lost = search.round(step, taken & ~dropped)
        over = taken & (lost > spec.repeated_max * search.sizes)
        if np.array_equal(over, dropped):
            break
        if step < ROUNDS_MAX - 1:
            dropped = over
    return cuts, dropped


class Search:
    """The stages of all rounds: texts are scanned once, repeats are found anew."""

    def __init__(self, corpus: Corpus, stages: Stages, spec: Dedup, taken: Mask, ranks: Indices) -> None:
        self._corpus, self._stages, self._spec = corpus, stages, spec
        self.sizes = sizes(corpus)
        self._shards = shards_of(int(self.sizes[taken].sum()))
        members = self._written("members", taken)
        self._ranks = self._written("ranks", ranks)
        nothing: list[Path | None] = [None] * len(corpus.batches)
        self._lines: Sequence[Path | None] = nothing
        self._anchors: Sequence[Path | None] = nothing
        if spec.lines:
            self._lines = lines.noted(corpus, stages, spec.lines, members, self._shards)
        if spec.substrings:
            self._anchors = substrings.noted(corpus, stages, spec.substrings, members, substrings.SHARDS * self._shards)

    def round(self, step: int, sources: Mask) -> tuple[Cuts, Indices]:
        """The cuts that the documents in `sources` prove, and the bytes each document loses, or would if cut."""
        path = self._written(f"sources-{step}", sources)
        found_lines, found_substrings = self._repeated_lines(step, path), self._repeated_substrings(step, path)
        count, found = len(self._lines), (found_lines, found_substrings)
        items = [
            _Joined(number, count, batch, self._lines[number], self._anchors[number], *found, self._spec.whole)
            for number, batch in enumerate(self._corpus)
        ]
        joined = self._stages.map(f"dedup-cuts-{step}", _join, items)
        cuts = Cuts(self._stages.folder / f"dedup-cuts-{step}")
        lost = [raw.read(folder / LOST, np.int64) for folder in joined]
        return cuts, np.concatenate([np.empty(0, np.int64), *lost])

    def _repeated_lines(self, step: int, sources: Path) -> tuple[Path, ...]:
        if self._spec.lines is None:
            return ()
        name, noted = f"dedup-lines-{step}", [path for path in self._lines if path]
        return tuple(lines.repeats(self._stages, name, noted, self._spec.lines, self._ranks, sources, self._shards))

    def _repeated_substrings(self, step: int, sources: Path) -> tuple[Path, ...]:
        if self._spec.substrings is None:
            return ()
        name, noted = f"dedup-substrings-{step}", [path for path in self._anchors if path]
        return tuple(
            substrings.repeats(
                self._corpus,
                self._stages,
                name,
                noted,
                self._spec.substrings,
                self._ranks,
                sources,
                substrings.SHARDS * self._shards,
            )
        )

    def _written(self, name: str, values: NDArray[np.generic]) -> Path:
        """A file of an array for the items of stages; the same bytes whenever it is written."""
        folder = self._stages.folder / "dedup"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, values.tobytes(), durable=False)
        return folder / name


def _chats(corpus: Corpus) -> Mask:
    return np.concatenate([np.empty(0, bool), *(_of_kind(batch, "chat") for batch in corpus)])


def _of_kind(batch: Batch, kind: str) -> Mask:
    found: Mask = pc.equal(batch.documents.column("kind"), kind).to_numpy(zero_copy_only=False).astype(bool)
    return found


def _join(item: _Joined, folder: Path) -> None:
    """The union of what a batch loses, on character boundaries: how much of each document, and what is cut."""
    parts: list[Spans] = []
    texts = item.batch.texts
    if item.anchors:
        found = substrings.spans_of(item.anchors, item.repeated_substrings, item.number, item.batches)
        parts.append(snapped(united(found), texts))
    if item.lines:
        parts.append(lines.spans_of(item.lines, item.repeated_lines, item.number, item.batches, item.batch.first))
    repeated = united(parts)
    raw.write(folder / LOST, repeated.bytes_cut(item.batch.rows))
    whole = np.ones(item.batch.rows, bool) if item.whole else _of_kind(item.batch, "code")
    repeated.without(whole).write(folder / FILE)
