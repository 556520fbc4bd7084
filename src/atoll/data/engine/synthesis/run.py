"""A synthesis from a dataset version to a new one. `python -m atoll.data.engine.synthesis.run` in a task directory.

Draw documents; ask the door what is not in the journal yet; then make the dataset of the journal alone, so it does not
depend on the order of answers or on kills. What is no supported, new pair is counted with its reason. The documents'
own splits go along, so the result can be trained on with texts as well. The journal lives on one node: a run that
moves to another begins anew, and what was in flight at a kill is asked (and paid) again.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid, Unavailable
from atoll.data.engine.compose.contamination import Table, build, find
from atoll.data.engine.compose.evaluation_texts import texts_of
from atoll.data.engine.synthesis.answers import REASONS, Pair, Rejection
from atoll.data.engine.synthesis.documents import documents_of
from atoll.data.engine.synthesis.journal import Journal
from atoll.data.engine.synthesis.novelty import Asked
from atoll.data.engine.synthesis.steps import outcome_of
from atoll.data.engine.synthesis.wanted import Wanted
from atoll.data.engine.synthesis.writers import Writers
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import DOCUMENT_COLUMNS, QUESTION_COLUMNS, Manifest, Split, read_manifest, write_manifest

KEY_VARIABLE = "ATOLL_SYNTHESIS_KEY"
COLUMNS = {**QUESTION_COLUMNS, "kind": "string", "evidence": "string", "support": "double"}
"""`evidence` is exactly `text[span_start:span_end]` of the document; `support` says how much of the answer it holds."""

SAMPLES_MAX = 3
SAMPLE_CHARACTERS = 160
NGRAM_WORDS = 13
REPORT_EVERY = 500

Report = Callable[..., None]


def synthesise(
    wanted: Wanted, key: str, store: BlobStore, work: Path, report: Report = lambda *args, **more: None
) -> dict[str, Any]:
    """Make the dataset in `store`; the result names its manifest, counts and funnel, and why it ended early, if so.

    key: opens the door. work: outlives the attempt. Invalid when nothing can be asked, the model refuses, or no pair
    is left.
    """
    drawn_by = _fingerprint(wanted)
    documents = documents_of(store, wanted, work / f"documents-{drawn_by[:24]}")
    exams = build({name: texts_of(name, store) for name in wanted.decontaminate}, NGRAM_WORDS)
    with closing(Journal(work / "synthesis.jsonl", drawn_by)) as journal:
        writers = Writers(wanted, key, journal, documents.target, report)
        reason = writers.run(documents.order())
        collected = _Collected(wanted, store, work, exams)
        for done, (side, number) in enumerate(documents.numbers(), 1):
            target = documents.target(number)
            collected.add(side, outcome_of(target, journal.said(number), wanted))
            if done % REPORT_EVERY == 0:
                report("check", done, None, "item")
    counts = {"documents": len(documents), "asked": collected.asked, "tokens": writers.tokens}
    manifest = collected.manifest(counts, read_manifest(store, wanted.manifest), reason)
    digest = write_manifest(store, manifest)
    return {"manifest": digest, "counts": manifest.counts, "funnel": manifest.funnel, "reason": reason}


class _Collected:
    """What comes of the targets, taken in order: rows of each side, and reasons."""

    def __init__(self, wanted: Wanted, store: BlobStore, work: Path, exams: Table) -> None:
        self._wanted, self._exams = wanted, exams
        self._writers = {side: SplitWriter(store, work, COLUMNS) for side in ("train", "heldout")}
        self._seen = Asked()
        self._dropped: Counter[str] = Counter()
        self._samples: dict[str, list[str]] = defaultdict(list)
        self.asked = 0

    def add(self, side: str, outcome: Pair | Rejection) -> None:
        """Take what came of one target."""
        self.asked += 1
        if isinstance(outcome, Pair):
            reason = self._unwanted(outcome)
            if not reason:
                self._writers[side].add(row_of(outcome))
                return
            outcome = Rejection(reason, outcome.asked)
        self._dropped[outcome.reason] += 1
        if len(self._samples[outcome.reason]) < SAMPLES_MAX and outcome.sample:
            self._samples[outcome.reason].append(" ".join(outcome.sample.split())[:SAMPLE_CHARACTERS])

    def manifest(self, counts: dict[str, int], source: Manifest, ended: str) -> Manifest:
        """The manifest of the new dataset; Invalid when no pair is left, saying why the run `ended` early, if so."""
        made = {f"qa_{side}": writer.close() for side, writer in self._writers.items()}
        funnel = [
            {"rule": reason, "dropped": self._dropped[reason], "samples": self._samples[reason]}
            for reason in REASONS
            if self._dropped[reason]
        ]
        if not any(split.rows for split in made.values()):
            told = ", ".join(f"{step['rule']} {step['dropped']}" for step in funnel)
            hint = "ask a more able model, or lower support_min"
            message = f"none of {self.asked} answers made a supported pair: {told}"
            if ended:
                message, hint = f"{ended}; until then no pair was made: {told}", "mend that, and ask again"
            raise Invalid(message, field="model", hint=hint, funnel=funnel)
        splits = {side: source.splits.get(side, Split((), 0)) for side in ("train", "heldout")} | made
        schema = {side: source.schema.get(side, DOCUMENT_COLUMNS) for side in ("train", "heldout")}
        schema |= dict.fromkeys(made, COLUMNS)
        rows = {name: split.rows for name, split in splits.items()}
        recipe = {"synthesis": _described(self._wanted)}
        origin = {"kind": "synthesis", "model": self._wanted.model, "manifest": self._wanted.manifest}
        parents = [self._wanted.manifest]
        return Manifest(splits, counts | rows, funnel, recipe, source.licence, [origin], parents, schema)

    def _unwanted(self, pair: Pair) -> str:
        """Why a supported pair is left out all the same, or ""."""
        if find(pa.array([f"{pair.question}\n{pair.answer}"]), self._exams).is_contaminated[0]:
            return "contaminated"
        return "" if self._seen.is_new(pair) else "duplicate_question"


def row_of(pair: Pair) -> dict[str, Any]:
    """A pair as a row of COLUMNS."""
    target = pair.target
    evidence = target.passage[pair.start - target.start : pair.stop - target.start]
    asked = {"id": target.id, "question": pair.question, "answer": pair.answer, "document": target.document}
    return asked | {
        "span_start": pair.start,
        "span_end": pair.stop,
        "kind": target.kind,
        "evidence": evidence,
        "support": pair.support,
    }


def _described(wanted: Wanted) -> dict[str, Any]:
    """What decides the content, without where and how fast it was asked."""
    left_out = {"door", "project", "parallel", "known_within_s"}
    return {name: value for name, value in asdict(wanted).items() if name not in left_out}


def _fingerprint(wanted: Wanted) -> str:
    """A name of everything requests depend on; thresholds and budgets may change without asking anew."""
    plain = Wanted(wanted.manifest, wanted.model, wanted.project, "")
    free = ("door", "parallel", "known_within_s", "tokens_max", "support_min", "decontaminate")
    asked = replace(wanted, **{name: getattr(plain, name) for name in free})
    return hashlib.sha256(orjson.dumps(asdict(asked), option=orjson.OPT_SORT_KEYS)).hexdigest()


def run(task_input: Mapping[str, Any]) -> dict[str, Any]:
    """Run the synthesis of a task's input."""
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        raise Unavailable(f"{KEY_VARIABLE} is not set", hint="the run's controller sets it")
    wanted = Wanted.of(task_input)
    return synthesise(wanted, key, BlobStore(task.blobs_url()), task.work_dir(), task.report_progress)


def main() -> None:
    """Run the task in the current task directory."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(task.cache_dir() / "numba"))
    task.run(run)


if __name__ == "__main__":
    main()
