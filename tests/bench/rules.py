"""Bench `rules`: how often a published rule decides as datatrove does, and what all statistics cost.

`python tests/bench/rules.py`; JSON on the last line. Every rule of the rule sets is asked about every document and
compared with datatrove's filter with the other rules off, and every set with the filter as it comes. English and
Chinese documents of ../shared/data/curation beside the repository; where that folder is absent, English documents found
on this machine. For Chinese datatrove cuts words by a dictionary and Atoll characters, so only rules that do not speak
of words can agree; all are shown. CPU seconds of this process, kernels compiled before.
"""

from __future__ import annotations

import json
import os
import platform
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from parts import corpora, rivals

from atoll.data.engine.annotate import minhash
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.quality.conditions import evaluate
from atoll.data.rules import parse_expression
from atoll.data.rulesets import RULE_SETS

PARTS = Path(__file__).parent / "parts"
CODES = {"en": "eng", "zh": "cmn"}
FOUND_MAX = 1000
ROUNDS = 5
AGREEMENT_MIN = 0.99


def main() -> None:
    figures: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    annotate(pa.array(["compiled before the clock starts"]), Wanted())
    with tempfile.TemporaryDirectory() as work:
        for language in CODES if corpora.is_there() else ["en"]:
            file = _documents(language, Path(work) / language)
            texts = pa.array([row["text"] for row in corpora.read(file)], pa.string())
            decisions = _datatrove(file, CODES[language])
            figures |= {f"{name}_{language}": value for name, value in _speed(texts).items()}
            figures |= {f"{name}_{language}": value for name, value in _agreement(texts, decisions).items()}
            theirs |= {f"dropped_{name}_{language}": len(numbers) for name, numbers in decisions.items()}
    line = {
        "bench": "rules",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()},
        "figures": figures,
        "rivals": theirs,
        "command": "python tests/bench/rules.py",
    }
    sys.stdout.write(json.dumps(line) + "\n")


def _documents(language: str, folder: Path) -> Path:
    if corpora.is_there():
        return corpora.write(language, folder)
    folder.mkdir(parents=True)
    path = folder / "found.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in islice(_found(), FOUND_MAX)))
    return path


def _found() -> Iterator[str]:
    """Texts of this machine: Python's own topics, and whatever packages have left."""
    yield from pydoc_data.topics.topics.values()
    for path in sorted(Path("/usr/share").rglob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="ignore")[:200_000]
        if text.strip():
            yield text


def _datatrove(file: Path, code: str) -> dict[str, list[int]]:
    """The numbers of the documents each rule of datatrove drops."""
    python = rivals.environment("curation", *rivals.DATATROVE) / "bin" / "python"
    command = [str(python), str(PARTS / "datatrove_rules.py"), str(file), code]
    decisions: dict[str, list[int]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return decisions


def _agreement(texts: pa.StringArray, decisions: dict[str, list[int]]) -> dict[str, Any]:
    """The share of documents each rule, and each set as a whole, decides about as datatrove does."""
    notes = annotate(texts, Wanted()).notes
    figures: dict[str, float] = {}
    for name, rules in RULE_SETS.items():
        dropped = {rule: evaluate(parse_expression(drop), notes) for rule, drop in rules}
        dropped[name] = np.logical_or.reduce(list(dropped.values()))
        for rule, mask in dropped.items():
            figures[f"agreement_{rule}"] = round(float(np.mean(mask == _mask(decisions[rule], len(texts)))), 4)
    rules = [figures[f"agreement_{rule}"] for rules in RULE_SETS.values() for rule, _ in rules]
    return {"rules": len(rules), "rules_at_99_percent": sum(value >= AGREEMENT_MIN for value in rules), **figures}


def _mask(numbers: list[int], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[numbers] = True
    return mask


def _speed(texts: pa.StringArray) -> dict[str, float]:
    """Megabytes of UTF-8 per CPU second, the best of some rounds."""
    size_mb = sum(len(text.encode()) for text in texts.to_pylist()) / 1e6
    room = minhash.shingler(5, 5)
    runs = {
        "minhash_mb_per_cpu_s": lambda: minhash.signatures(texts, 112, room),
        "annotation_mb_per_cpu_s": lambda: annotate(texts, Wanted(lines=True)),
        "annotation_without_repetition_mb_per_cpu_s": lambda: annotate(texts, Wanted(repetition=False)),
    }
    return {name: round(size_mb / min(_cpu_s(run) for _ in range(ROUNDS)), 1) for name, run in runs.items()}


def _cpu_s(run: Any) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
