"""The decision: which documents stay, why each other goes, which side each is on, and what is cut out of it.

Global and deterministic: it follows from the notes and signatures of all documents, whatever the batches were worked
off by. What it comes to is a small folder that the writing stage maps. Texts are seen only by the stages of
deduplication, decontamination and the counting of tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.compose import contamination
from atoll.data.engine.compose.evaluation_texts import texts_of
from atoll.data.engine.compose.mix import approximate_tokens, draw, source_codes
from atoll.data.engine.compose.split import TRAIN, hash_ids, name_clusters, sides
from atoll.data.engine.compose.tokenizer import BYTES, tokenizer_of
from atoll.data.engine.curate.corpus import TEXTS, Batch, Corpus, write_array
from atoll.data.engine.curate.judge import KEPT, Mask, checks_of, first_reasons
from atoll.data.engine.curate.mapped import PORTION_BYTES, portions
from atoll.data.engine.curate.plan import Decontaminate, Mix, Pack, Plan
from atoll.data.engine.dedup import Cuts, Dedup, find_duplicates
from atoll.data.engine.runtimes.stages import Stages
from atoll.data.layout import MANIFEST, path_of
from atoll.data.manifest import decode_manifest

DECISION = "decision.json"
REASONS, CLUSTERS, SIDES, TIMES = "reasons.npy", "clusters.npy", "sides.npy", "times.npy"
DUPLICATES = "dedup"
TOKENS = "tokens.npy"
ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as it lies in `folder`, mapped.

    `names` are the reasons in the order they were given; `portions` what mixing took; `contamination` what was found
    of each evaluation set. `cuts` is the folder of what is cut out of texts, from beside `folder`; "" for nothing.
    """

    folder: Path
    names: tuple[str, ...]
    cuts: str
    portions: tuple[dict[str, Any], ...] = ()
    contamination: tuple[dict[str, Any], ...] = ()

    @property
    def reasons(self) -> NDArray[np.int16]:
        """For each document the place of its reason in `names`, or KEPT."""
        return self._array(REASONS)

    @property
    def clusters(self) -> NDArray[np.int64]:
        """For each document the least number of its cluster."""
        return self._array(CLUSTERS)

    @property
    def sides(self) -> NDArray[np.int8]:
        """TRAIN or 1, held out; of no meaning for what is dropped."""
        return self._array(SIDES)

    @property
    def times(self) -> NDArray[np.int16]:
        """How often each document is written."""
        return self._array(TIMES)

    def _array(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self.folder / name, mmap_mode="r")
        return found


@dataclass(slots=True)
class _Reasons:
    """The reasons given so far."""

    names: list[str]
    given: NDArray[np.int16]

    @property
    def kept(self) -> Mask:
        kept: Mask = self.given == KEPT
        return kept

    def give(self, name: str, dropped: Mask) -> None:
        """Give the reason to those of `dropped` that have none."""
        self.given[dropped & self.kept] = len(self.names)
        self.names.append(name)


@dataclass(slots=True)
class _Choice:
    """What else is decided, on the way."""

    clusters: NDArray[np.int64]
    cuts: str = ""
    portions: list[dict[str, Any]] = field(default_factory=list)
    contamination: list[dict[str, Any]] = field(default_factory=list)


def decide(plan: Plan, corpus: Corpus, stages: Stages, folder: Path, run: str) -> None:
    """Decide about every document of the corpus, into `folder`. `stages` keep the heavy parts; `run` names the run
    where an index is kept.
    """
    checks = checks_of(plan)
    given = [first_reasons(checks, notes) for notes in _together(corpus)]
    reasons = _Reasons([check.name for check in checks], np.concatenate([np.empty(0, np.int16), *given]))
    hashes = hash_ids(corpus.ids())
    reasons.give("duplicate_id", repeated(hashes, reasons.kept))
    found = []
    if plan.decontaminate is not None:  # before duplicates, or what goes here would have cost others their text
        found = _decontaminated(plan.decontaminate, corpus, stages, reasons)
    choice = _deduplicated(dedup_of(plan, run), corpus, stages, reasons)
    choice.contamination = found
    side = np.zeros(len(corpus), np.int8)
    kept = reasons.kept
    fractions = [plan.split.heldout_fraction]
    side[kept] = sides(name_clusters(choice.clusters, hashes)[kept], fractions, plan.seed)
    times = np.ones(len(corpus), np.int16)
    if plan.mix is not None:
        drawn = kept & (side == TRAIN)
        tokens = _tokens(plan.pack, corpus, stages, drawn)
        times[drawn] = _mixed(plan.mix, plan, corpus, hashes, tokens, drawn, choice)
        reasons.give("not_sampled", times == 0)
    if choice.cuts:
        choice.cuts = os.path.relpath(choice.cuts, folder.parent)
    _save(folder, reasons, choice, {SIDES: side, TIMES: times})


def _together(corpus: Corpus) -> Iterator[pa.Table]:
    """The notes of all batches, of some at a time: over few rows a rule takes longer to look up than to decide."""
    for _, some in groupby(corpus, lambda batch: batch.first // ROWS_AT_ONCE):
        yield pa.Table.from_batches([batch.notes for batch in some])


def decision_in(folder: Path) -> Decision:
    """The decision that lies in `folder`."""
    told = orjson.loads((folder / DECISION).read_bytes())
    names, cuts = tuple(told["names"]), told["cuts"]
    return Decision(folder, names, cuts, tuple(told["portions"]), tuple(told["contamination"]))


def repeated(hashes: NDArray[np.uint64], members: Mask) -> Mask:
    """Those of `members` whose id an earlier member has."""
    numbers = np.flatnonzero(members)
    again = np.ones(len(numbers), bool)
    again[np.unique(hashes[numbers], return_index=True)[1]] = False
    result = np.zeros(len(members), bool)
    result[numbers[again]] = True
    return result


def dedup_of(plan: Plan, run: str) -> Dedup:
    """What is asked of deduplication; `run` is not looked for in an index."""
    is_code = plan.recipe.get("preset") == "code"
    return Dedup.of({**asdict(plan.dedup), "run": run, "whole": is_code})


def _deduplicated(spec: Dedup, corpus: Corpus, stages: Stages, reasons: _Reasons) -> _Choice:
    if not reasons.kept.any():
        return _Choice(np.arange(len(corpus)))
    verdict = find_duplicates(corpus, stages.below(DUPLICATES), spec, reasons.kept.copy())
    for name, dropped in verdict.reasons.items():
        reasons.give(name, dropped)
    return _Choice(verdict.clusters, "" if verdict.cuts is None else str(verdict.cuts.folder))


def _decontaminated(wanted: Decontaminate, corpus: Corpus, stages: Stages, reasons: _Reasons) -> list[dict[str, Any]]:
    table = stages.map("contamination-table", build_table, [wanted], "table")[0] / "table.npz"
    items = [(batch.folder / TEXTS, table) for batch in corpus]
    found = contamination.collect(stages.map("contamination", contamination.find_in_batch, items))
    among = reasons.kept
    reasons.give("contaminated", found.is_contaminated)
    return contamination.report(found, contamination.load(table), corpus, among)


def build_table(wanted: Decontaminate, folder: Path) -> None:
    """A stage of one item: the table of the evaluation sets."""
    sets = {name: _texts_in(path) for name, path in told_apart(wanted.sets).items()}
    contamination.build(sets, wanted.words).save(folder / "table.npz")


def told_apart(paths: Sequence[str]) -> dict[str, str]:
    """Paths by a name for each: the shortest end of it that is no other's."""
    parts = {path: Path(path).parts for path in paths}
    found: dict[str, str] = {}
    for path, own in parts.items():
        ends = (own[-length:] for length in range(1, len(own) + 1))
        lone = (end for end in ends if sum(other[-len(end) :] == end for other in parts.values()) == 1)
        found["/".join(next(lone, (path,)))] = path
    return found


def _texts_in(path: str) -> Iterator[list[str]]:
    """The texts of a file, or of a dataset's folder: of its splits where a manifest names them, else of all its Parquet
    files. Invalid when there are none."""
    folder = Path(path)
    if not folder.is_dir():
        return texts_of(path)
    files = _split_files(folder) if (folder / MANIFEST).is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        hint = "a folder that `atoll data curate` made or one of Parquet files; else name each file"
        raise Invalid(f"{path} holds no Parquet file", field="recipe.decontaminate.sets", hint=hint)
    return chain.from_iterable(texts_of(str(file)) for file in files)


def _split_files(folder: Path) -> list[Path]:
    """The files of a dataset's splits; what it rejected and its notes are no texts of it."""
    splits = decode_manifest((folder / MANIFEST).read_bytes()).splits
    return [folder / path_of(name, number) for name, split in splits.items() for number in range(len(split.shards))]


def _mixed(
    wanted: Mix,
    plan: Plan,
    corpus: Corpus,
    hashes: NDArray[np.uint64],
    tokens: NDArray[np.int64],
    drawn: Mask,
    choice: _Choice,
) -> NDArray[np.int16]:
    """How often each document of `drawn`, those to train on, is taken."""
    names = [source.name for source in plan.sources]
    codes = source_codes(corpus.strings("source"), names)
    mixture = draw(codes[drawn], names, tokens[drawn], hashes[drawn], wanted, plan.seed)
    choice.portions = [portion.as_row for portion in mixture.portions]
    return mixture.times


def _tokens(pack: Pack | None, corpus: Corpus, stages: Stages, drawn: Mask) -> NDArray[np.int64]:
    """Tokens of each text with its end, (documents,): of those in `drawn` as many as will be packed, where they are.

    Without packing by a rule of thumb. Texts count as they were read, before anything is cut or masked.
    """
    if pack is None or pack.tokenizer == BYTES:
        return np.concatenate([tokens_of(batch, pack) for batch in corpus])
    mask = stages.folder / "drawn"
    mask.parent.mkdir(parents=True, exist_ok=True)
    write_array(mask, drawn)
    counted = stages.map("tokens", count_tokens, [Counting(batch, mask, pack.tokenizer) for batch in corpus])
    return np.concatenate([np.load(folder / TOKENS) for folder in counted])


def tokens_of(batch: Batch, pack: Pack | None) -> NDArray[np.int64]:
    """Tokens of each text with its end, (rows,): exact where bytes are packed, by a rule of thumb where nothing is."""
    if pack is None:
        return approximate_tokens(batch.notes)
    lengths = pc.binary_length(batch.texts).to_numpy(zero_copy_only=False)
    result: NDArray[np.int64] = lengths.astype(np.int64) + 1
    return result


@dataclass(frozen=True, slots=True)
class Counting:
    """A batch whose documents in the mask of the file `drawn` are counted."""

    batch: Batch
    drawn: Path
    tokenizer: str


def count_tokens(item: Counting, folder: Path) -> None:
    """A stage: the tokens of each document with its end, 0 of those that are not drawn."""
    tokenizer = tokenizer_of(item.tokenizer)
    drawn = np.load(item.drawn, mmap_mode="r")[item.batch.first : item.batch.first + item.batch.rows]
    tokens = np.zeros(item.batch.rows, np.int64)
    for rows, documents in portions(item.batch.folder / TEXTS, PORTION_BYTES):
        places = np.flatnonzero(drawn[rows])
        tokens[rows.start + places] = tokenizer.encode(documents.column("text").take(pa.array(places)))[1] + 1
    write_array(folder / TOKENS, tokens)


def _save(folder: Path, reasons: _Reasons, choice: _Choice, arrays: Mapping[str, NDArray[Any]]) -> None:
    decided: dict[str, NDArray[Any]] = {REASONS: reasons.given, CLUSTERS: choice.clusters, **arrays}
    for name, array in decided.items():
        write_array(folder / name, array)
    told = {
        "names": reasons.names,
        "cuts": choice.cuts,
        "portions": choice.portions,
        "contamination": choice.contamination,
    }
    (folder / DECISION).write_bytes(orjson.dumps(told))


def cuts_of(decision: Decision) -> Cuts | None:
    """What is cut out of the texts, if anything."""
    return Cuts(decision.folder.parent / decision.cuts) if decision.cuts else None
