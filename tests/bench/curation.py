"""Bench `curation`: how exact and how fast a curation run is. `python tests/bench/curation.py`; JSON on the last line.

Exactness needs documents with known duplicates (../shared/data/curation, beside the repository); where that folder is
absent, only the standard library's documentation is measured and the line says so. CPU seconds of this process; kernels
are compiled before the clock starts (`compile_cpu_s`).
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atoll.core.blobs import BlobStore
from atoll.data.engine import run
from atoll.data.engine.minhash import signatures
from atoll.data.engine.normalise import normalise
from atoll.data.engine.plan import plan_of
from atoll.data.engine.scan import scan
from atoll.data.engine.spool import Document, Spool

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "curation"
PERMUTATIONS = 112


def main() -> None:
    figures: dict[str, Any] = {"compile_cpu_s": round(_compile_cpu_s(), 2)}
    with tempfile.TemporaryDirectory() as folder:
        figures |= _standard_library(Path(folder))
        for language in ("en", "zh"):
            if (CORPUS / f"{language}.jsonl.gz").exists():
                figures |= {f"{name}_{language}": value for name, value in _measure(language, Path(folder)).items()}
    figures["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    line = {
        "bench": "curation",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/curation.py",
    }
    if not CORPUS.exists():
        line["skipped"] = f"no corpus with known duplicates in {CORPUS}"
    sys.stdout.write(json.dumps(line) + "\n")


def _compile_cpu_s() -> float:
    started = time.process_time()
    signatures(scan(pa.array(["one two three"])), PERMUTATIONS)
    return time.process_time() - started


def _standard_library(folder: Path) -> dict[str, float]:
    started = time.process_time()
    result = run.curate({"sources": [{"kind": "stdlib"}], "seed": 1}, BlobStore(str(folder / "blobs")), folder)
    counts = result["counts"]
    return {
        "stdlib_cpu_s": round(time.process_time() - started, 2),
        "stdlib_documents_in": counts["documents_in"],
        "stdlib_documents_out": counts["documents_out"],
    }


def _measure(language: str, folder: Path) -> dict[str, float]:
    with gzip.open(CORPUS / f"{language}.jsonl.gz") as file:
        rows = [json.loads(line) for line in file]
    size_mb = sum(len(row["text"].encode()) for row in rows) / 1e6
    texts = pa.array([row["text"] for row in rows])
    started = time.process_time()
    signatures(scan(texts), PERMUTATIONS)
    signed = time.process_time()
    kept = _deduplicated(rows, folder)
    deduplicated = time.process_time()
    _whole(rows, folder)
    return {
        **_exactness(language, rows, kept),
        "minhash_mb_per_cpu_s": round(size_mb / (signed - started), 1),
        "dedup_mb_per_cpu_s": round(size_mb / (deduplicated - signed), 1),
        "mb_per_cpu_s": round(size_mb / (time.process_time() - deduplicated), 1),
    }


def _plan(recipe: dict[str, Any]) -> Any:
    return plan_of({"sources": [{"kind": "folder", "path": str(CORPUS)}], "recipe": recipe})


def _spooled(rows: list[dict[str, Any]], folder: Path) -> Spool:
    spool = Spool(folder / "spool")
    for row in rows:
        spool.add(Document(row["id"], normalise(row["text"]), row["source"], row["id"], "text"))
    spool.flush()
    return spool


def _silent(*_: Any, **__: Any) -> None:
    """Progress nobody reads."""


def _deduplicated(rows: list[dict[str, Any]], folder: Path) -> set[str]:
    """The ids kept when nothing but duplicates is dropped."""
    spool = _spooled(rows, folder)
    verdict = run.judge(
        _plan({"min_characters": 0, "rules": []}), spool, run.annotate(spool, PERMUTATIONS, _silent), _silent
    )
    return {spool.ids[index] for index in np.flatnonzero(verdict.kept)}


def _whole(rows: list[dict[str, Any]], folder: Path) -> None:
    """The default recipe from texts to shards."""
    plan, spool = _plan({}), _spooled(rows, folder)
    verdict = run.judge(plan, spool, run.annotate(spool, PERMUTATIONS, _silent), _silent)
    run.write_splits(plan, spool, verdict, BlobStore(str(folder / "blobs")), _silent)


def _exactness(language: str, rows: list[dict[str, Any]], kept: set[str]) -> dict[str, float]:
    """recall: true pairs at >= .8 of which one went. precision: dropped documents with a true pair at >= .7."""
    pairs = list(_gold_pairs(language))
    high = [(one, other) for one, other, index in pairs if index >= 0.8]
    found = [one not in kept or other not in kept for one, other in high]
    with_double = {name for one, other, index in pairs if index >= 0.7 for name in (one, other)}
    dropped = {row["id"] for row in rows} - kept
    return {
        "recall": round(sum(found) / len(found), 4),
        "precision": round(len(dropped & with_double) / len(dropped), 4),
    }


def _gold_pairs(language: str) -> Iterator[tuple[str, str, float]]:
    gold = json.loads(gzip.decompress((CORPUS / f"gold-{language}.json.gz").read_bytes()))
    for one, other, index in gold["pairs"]:
        yield gold["ids"][one], gold["ids"][other], index


if __name__ == "__main__":
    main()
