"""From what a run came to to a dataset: shards in their order, the manifest, and a report for people.

The manifest is equal for equal input, recipe and seed; what is not (processor seconds, time) is in the report alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from atoll.data.engine.curate.curation import Curated
from atoll.data.engine.curate.plan import Plan, Source
from atoll.data.engine.curate.results import Result
from atoll.data.engine.curate.tables import Tables
from atoll.data.engine.dedup.entries import TABLE as INDEX
from atoll.data.engine.questions.asking import SPLITS as QUESTION_SPLITS
from atoll.data.engine.questions.asking import asked_in
from atoll.data.manifest import DOCUMENT_COLUMNS, Manifest, Split

TABLES = ("notes", "rejected")
QUARANTINED = "quarantined"
QUARANTINED_SHOWN = 100


def put(
    curated: Curated, result: Result, figures: dict[str, Any], parents: Sequence[str] = (), at_once: int = 1
) -> tuple[str, Manifest]:
    """Hand the shards, `at_once` at a time, and the manifest to `result`; the manifest and its digest.

    figures: processor seconds and the like, for the report. parents: digests of the manifests of dataset sources.
    """
    with ThreadPoolExecutor(at_once) as pool:
        splits = {name: _put(name, _shards(name, curated), result, pool) for name in split_names(curated)}
        tables = {name: _put(name, _shards(name, curated), result, pool) for name in _table_names(curated)}
        quarantined = _quarantined(curated)
        if quarantined is not None:
            tables[QUARANTINED] = _put(QUARANTINED, [quarantined], result, pool)
    manifest = _manifest(curated, splits, tables, list(parents))
    report = orjson.dumps(report_of(curated, manifest, figures), option=orjson.OPT_INDENT_2)
    return result.finish(manifest, report), manifest


def split_names(curated: Curated) -> list[str]:
    """The splits of a dataset, empty ones too."""
    return ["train", "heldout", *QUESTION_SPLITS, *(["packed"] if curated.plan.pack else [])]


def _table_names(curated: Curated) -> tuple[str, ...]:
    return TABLES if curated.plan.known is None else (*TABLES, INDEX)


def report_of(curated: Curated, manifest: Manifest, figures: dict[str, Any]) -> dict[str, Any]:
    """Everything about the run that people ask for."""
    refused = [asdict(item) for part in curated.taken for item in part.refused]
    return {
        "counts": manifest.counts,
        "funnel": manifest.funnel,
        "privacy": manifest.privacy,
        "languages": manifest.languages,
        "mix": list(curated.decision.portions),
        "contamination": list(curated.decision.contamination),
        "passed_over": curated.passed_over,
        "quarantined": refused[:QUARANTINED_SHOWN],
        "input_bytes": curated.input_bytes,
        "text_bytes": sum(part.bytes for part in curated.taken),
        **figures,
    }


def _manifest(curated: Curated, splits: dict[str, Split], tables: dict[str, Split], parents: list[str]) -> Manifest:
    plan = curated.plan
    refused = sum(len(part.refused) for part in curated.taken)
    cut = sum(told["documents_cut"] for told in curated.counts)
    counts = {
        "documents_in": curated.documents + refused,
        "documents_out": curated.kept,
        **({"documents_cut": cut} if cut else {}),
        **{name: split.rows for name, split in splits.items()},
        "characters": sum(told["characters"] for told in curated.counts),
    }
    return Manifest(
        splits=splits,
        counts=counts,
        funnel=curated.funnel,
        recipe=plan.recipe,
        licence=" AND ".join(sorted({source.licence for source in plan.sources})),
        sources=[described(source) for source in plan.sources],
        parents=parents,
        schema={**_split_schema(curated), **_table_schema(curated, tables)},
        tables=tables,
        privacy=_privacy(plan, curated),
        languages=_summed(told["languages"] for told in curated.counts),
        passed_over=curated.passed_over,
    )


def _put(name: str, shards: Sequence[tuple[Path, int]], result: Result, pool: Executor) -> Split:
    """Their digests and the disk take the time, and both let other threads go on."""
    paths, rows = [path for path, _ in shards], [rows for _, rows in shards]
    taken = tuple(pool.map(result.take, repeat(name), range(len(shards)), paths, rows))
    return Split(taken, sum(rows))


def _shards(name: str, curated: Curated) -> list[tuple[Path, int]]:
    """Files of a split or table with their rows, in order."""
    if name in QUESTION_SPLITS:
        told = [(folder, asked_in(folder)) for folder in curated.asked]
    else:
        told = [(folder, count["rows"]) for folder, count in zip(curated.written, curated.counts, strict=True)]
    return [(folder / f"{name}.parquet", rows[name]) for folder, rows in told if rows.get(name)]


def _quarantined(curated: Curated) -> tuple[Path, int] | None:
    """What could not be read, as a table."""
    folder = curated.decision.folder.parent
    with Tables(folder) as tables:
        for part in curated.taken:
            columns = {name: [getattr(item, name) for item in part.refused] for name in ("name", "line", "reason")}
            schema = pa.schema([("name", pa.string()), ("line", pa.int64()), ("reason", pa.string())])
            tables.add(QUARANTINED, pa.record_batch(columns, schema))
    rows = tables.rows.get(QUARANTINED, 0)
    return (folder / f"{QUARANTINED}.parquet", rows) if rows else None


def _split_schema(curated: Curated) -> dict[str, dict[str, str]]:
    schema = dict.fromkeys(("train", "heldout"), DOCUMENT_COLUMNS)
    schema |= dict.fromkeys(QUESTION_SPLITS, curated.asking.columns)
    if curated.plan.pack:
        from atoll.data.engine.compose.pack import PACKED_COLUMNS

        schema["packed"] = PACKED_COLUMNS
    return schema


def _table_schema(curated: Curated, tables: dict[str, Split]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name in _table_names(curated):
        for path, _ in _shards(name, curated)[:1]:
            found[name] = {field.name: str(field.type) for field in pq.read_schema(path)}
    if QUARANTINED in tables:
        found[QUARANTINED] = {"name": "string", "line": "int64", "reason": "string"}
    return found


def _privacy(plan: Plan, curated: Curated) -> dict[str, dict[str, int]]:
    """What was found in the documents kept, by kind and what was done about it."""
    if plan.privacy is None:
        return {}
    found = _summed(told["personal"] for told in curated.counts)
    return {kind: {plan.privacy.action(kind): count} for kind, count in found.items()}


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def described(source: Source) -> dict[str, Any]:
    """What the manifest tells of a source."""
    if source.kind == "stdlib":
        return {"kind": "stdlib", "python": ".".join(map(str, sys.version_info[:3]))}
    told = {"kind": source.kind, "name": source.name}
    for name in ("path", "digest", "reference", "resolved", "sha256"):
        if value := getattr(source, name):
            told[name] = value
    more = {"paths": list(source.paths)} if source.paths else {}
    patterns = {"patterns": list(source.patterns)} if source.patterns else {}
    return {**told, **more, **patterns, "licence": source.licence}
