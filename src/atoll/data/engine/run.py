"""A curation run: documents in, a dataset out. `python -m atoll.data.engine.run` in a task directory.

Read and normalise to the spool; annotate each text once (statistics, digest, signature); apply rules; find clusters;
split; derive questions; write shards, and the manifest last. A run that is killed leaves no dataset, and run again it
gives the same manifest digest: nothing depends on time, place, order of reading or batches.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.dedup import Duplicates, Indices, Mask, exact_groups, losers
from atoll.data.engine.hashing import hash_text
from atoll.data.engine.minhash import Signatures, shingles, signatures
from atoll.data.engine.normalise import normalise
from atoll.data.engine.output import SplitWriter
from atoll.data.engine.plan import Plan, Source, plan_of
from atoll.data.engine.quality import KEPT, first_reasons
from atoll.data.engine.questions import Pair, pairs_of
from atoll.data.engine.scan import scan
from atoll.data.engine.sources import Quarantined, documents
from atoll.data.engine.split import cluster_names, heldout_names
from atoll.data.engine.spool import Document, Spool
from atoll.data.engine.statistics import exact_digests, statistics
from atoll.data.manifest import SPLITS, Manifest, Split, write_manifest

SAMPLES_MAX = 3
SAMPLE_CHARACTERS = 100
REPORT_EVERY = 500

Report = Callable[..., None]


def curate(
    task_input: Mapping[str, Any], store: BlobStore, work: Path, report: Report = lambda *args, **more: None
) -> dict[str, Any]:
    """Make the dataset `task_input` asks for in `store`; the result names its manifest, counts and funnel.

    work: a folder for the spool, which is removed again. report(stage, done, total, unit) is called now and then.
    Raises Invalid for a wrong input, sources without documents, and when every document is dropped.
    """
    started = time.monotonic()
    plan = plan_of(task_input)
    spool = Spool(work / "spool")
    try:
        refused = read(plan, spool, report)
        manifest = _curated(plan, spool, refused, store, report)
        digest = write_manifest(store, manifest)
    finally:
        spool.close()
    seconds = round(time.monotonic() - started, 3)
    return {"manifest": digest, "counts": manifest.counts, "funnel": manifest.funnel, "seconds": seconds}


def read(plan: Plan, spool: Spool, report: Report) -> list[Quarantined]:
    """Put every readable document into the spool, normalised and with an id of its own; what was refused."""
    refused = []
    taken: dict[str, int] = defaultdict(int)
    for index, source in enumerate(plan.sources):
        for item in documents(source, f"sources[{index}]"):
            if isinstance(item, Quarantined):
                refused.append(item)
                continue
            taken[item.id] += 1
            name = item.id if taken[item.id] == 1 else f"{item.id}#{taken[item.id]}"
            spool.add(replace(item, id=name, text=normalise(item.text, item.kind)))
            if len(spool) % REPORT_EVERY == 0:
                report("read", len(spool), None, "document")
    spool.flush()
    report("read", len(spool), len(spool), "document")
    return refused


@dataclass(slots=True)
class Annotations:
    """What one pass over the texts says of each: statistics, exact digest, MinHash signature."""

    table: pa.Table
    digests: list[bytes]
    signatures: Signatures


def annotate(spool: Spool, permutations: int, report: Report) -> Annotations:
    """Scan every text once, batch by batch."""
    tables, digests, parts = [], [], []
    for texts in spool.texts():
        scanned = scan(texts)
        tables.append(statistics(texts, scanned))
        digests += exact_digests(texts)
        parts.append(signatures(scanned, permutations))
        report("annotate", len(digests), len(spool), "document")
    return Annotations(pa.Table.from_batches(tables), digests, np.concatenate(parts))


@dataclass(slots=True)
class Verdict:
    """Which documents stay, why each other goes, and the clusters no split may cut."""

    kept: Mask
    reasons: dict[str, Indices] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)


def judge(plan: Plan, spool: Spool, notes: Annotations, report: Report) -> Verdict:
    """Apply the rules, then drop exact and near duplicates among what is left."""
    first = first_reasons(plan.rules, notes.table)
    kept = first == KEPT
    verdict = Verdict(kept, {rule.name: np.flatnonzero(first == index) for index, rule in enumerate(plan.rules)})
    duplicates = Duplicates(
        notes.digests,
        notes.signatures,
        lambda index: shingles(scan(spool.text(index)).tokens),
        plan.near.threshold,
    )
    near = duplicates.cluster(kept.copy(), lambda done, total: report("deduplicate", done, total, "band"))
    everything = np.ones(len(kept), bool)
    verdict.clusters = cluster_names(duplicates.cluster(everything), spool.ids)
    characters = notes.table["characters"].to_numpy()
    if plan.drop_exact:
        lost = losers(exact_groups(notes.digests), kept, characters, spool.ids)
        verdict.reasons["exact_duplicate"] = np.flatnonzero(lost)
        kept &= ~lost
    if plan.drop_near:
        lost = losers(near, kept, characters, spool.ids)
        verdict.reasons["near_duplicate"] = np.flatnonzero(lost)
        kept &= ~lost
    return verdict


def _curated(plan: Plan, spool: Spool, refused: list[Quarantined], store: BlobStore, report: Report) -> Manifest:
    notes = annotate(spool, plan.near.permutations, report)
    verdict = judge(plan, spool, notes, report)
    funnel = _funnel(spool, refused, verdict)
    if not verdict.kept.any():
        dropped = ", ".join(f"{step['rule']} {step['dropped']}" for step in funnel if step["dropped"])
        message = f"all {len(spool)} documents were dropped: {dropped}"
        raise Invalid(message, field="recipe", hint="loosen the rules that dropped most")
    splits = write_splits(plan, spool, verdict, store, report)
    counts = {
        "documents_in": len(spool) + len(refused),
        "documents_out": int(verdict.kept.sum()),
        **{name: split.rows for name, split in splits.items()},
        "characters": int(notes.table["characters"].to_numpy()[verdict.kept].sum()),
    }
    licence = " AND ".join(sorted({source.licence for source in plan.sources}))
    return Manifest(splits, counts, funnel, plan.recipe, licence, [_described(source) for source in plan.sources])


def write_splits(plan: Plan, spool: Spool, verdict: Verdict, store: BlobStore, report: Report) -> dict[str, Split]:
    """Write the kept documents and their questions by id, each to its side of the split."""
    kept = sorted(np.flatnonzero(verdict.kept).tolist(), key=spool.ids.__getitem__)
    heldout = heldout_names((verdict.clusters[index] for index in kept), plan.heldout_fraction, plan.seed)
    writers = {name: SplitWriter(store, spool.folder, columns) for name, columns in SPLITS.items()}
    asked: set[int] = set()
    for done, index in enumerate(kept, 1):
        document = spool[index]
        side = "heldout" if verdict.clusters[index] in heldout else "train"
        writers[side].add({"id": document.id, "text": document.text, "source": document.source})
        for pair in _new_pairs(plan, document, asked):
            writers[f"qa_{side}"].add({**asdict(pair), "document": document.id})
        if done % REPORT_EVERY == 0 or done == len(kept):
            report("write", done, len(kept), "document")
    return {name: writer.close() for name, writer in writers.items()}


def _new_pairs(plan: Plan, document: Document, asked: set[int]) -> Iterator[Pair]:
    """The pairs of a document whose question and answer no earlier document had, so none is in both splits."""
    for pair in pairs_of(document, plan.questions) if plan.questions.enabled else ():
        keys = {hash_text(pair.question.casefold(), 1), hash_text(" ".join(pair.answer.casefold().split()), 2)}
        if not keys & asked:
            asked |= keys
            yield pair


def _funnel(spool: Spool, refused: list[Quarantined], verdict: Verdict) -> list[dict[str, Any]]:
    """What was dropped, in the order it was: rule, how many, and the first samples by id."""
    unreadable = sorted(f"{item.name}: {item.reason}" for item in refused)
    funnel = [{"rule": "unreadable", "dropped": len(unreadable), "samples": unreadable[:SAMPLES_MAX]}]
    for rule, dropped in verdict.reasons.items():
        first = sorted(dropped.tolist(), key=spool.ids.__getitem__)[:SAMPLES_MAX]
        funnel.append({"rule": rule, "dropped": len(dropped), "samples": [_sample(spool[index]) for index in first]})
    return funnel


def _sample(document: Document) -> str:
    return f"{document.id}: {' '.join(document.text[: 4 * SAMPLE_CHARACTERS].split())[:SAMPLE_CHARACTERS]}"


def _described(source: Source) -> dict[str, Any]:
    if source.kind == "stdlib":
        version = ".".join(map(str, sys.version_info[:3]))
        return {"kind": "stdlib", "python": version}
    return {"kind": source.kind, "path": source.path, "patterns": list(source.patterns), "licence": source.licence}


def main() -> None:
    """Run the task in the current task directory."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(task.cache_dir() / "numba"))
    task.run(lambda value: curate(value, BlobStore(task.blobs_url()), task.work_dir(), task.report_progress))


if __name__ == "__main__":
    main()
