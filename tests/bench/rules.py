"""Bench `rules`: how often a published rule decides as datatrove does, and what all statistics cost.

`python tests/bench/rules.py`; JSON on the last line. Every rule of the rule sets is asked about every document and
compared with datatrove's filter with the other rules off, and every set with the filter as it comes. English and
Chinese documents of ../shared/data/curation beside the repository; where that folder is absent, English documents found
on this machine. datatrove cuts Chinese by the package jieba, so it is asked twice: with `chinese_words: characters`,
where only rules that do not speak of words can agree, and with `chinese_words: jieba` (`zh_jieba`). The words are
compared with those of jieba itself, and what both take. CPU seconds of this process, kernels compiled before.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from parts import corpora, rivals

from atoll.data.engine.annotate import minhash
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.quality.conditions import evaluate
from atoll.data.engine.scan import utf8_of
from atoll.data.engine.segment.cuts import cuts
from atoll.data.engine.segment.jieba import model
from atoll.data.rules import parse_expression
from atoll.data.rulesets import RULE_SETS, rule_set

PARTS = Path(__file__).parent / "parts"
CODES = {"en": "eng", "zh": "cmn"}
WORDS = {"en": {"en": "characters"}, "zh": {"zh": "characters", "zh_jieba": "jieba"}}
"""By language, the names of figures and what words of Chinese are."""
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
            figures |= {f"minhash_mb_per_cpu_s_{language}": _minhash_speed(texts)}
            for name, words in WORDS[language].items():
                found = _speed(texts, words) | _agreement(texts, decisions, words)
                figures |= {f"{figure}_{name}": value for figure, value in found.items()}
            if language == "zh":
                ours, jiebas = _segmentation(texts)
                figures |= ours
                theirs |= jiebas
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


def _agreement(texts: pa.StringArray, decisions: dict[str, list[int]], words: str) -> dict[str, Any]:
    """The share of documents each rule, and each set as a whole, decides about as datatrove does."""
    notes = annotate(texts, Wanted(chinese_words=words)).notes
    figures: dict[str, float] = {}
    sets = {name: rule_set(name, words) for name in RULE_SETS}
    for name, rules in sets.items():
        dropped = {rule: evaluate(parse_expression(drop), notes) for rule, drop in rules}
        dropped[name] = np.logical_or.reduce(list(dropped.values()))
        for rule, mask in dropped.items():
            figures[f"agreement_{rule}"] = round(float(np.mean(mask == _mask(decisions[rule], len(texts)))), 4)
    rules = [figures[f"agreement_{rule}"] for rules in sets.values() for rule, _ in rules]
    return {"rules": len(rules), "rules_at_99_percent": sum(value >= AGREEMENT_MIN for value in rules), **figures}


def _mask(numbers: list[int], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[numbers] = True
    return mask


def _minhash_speed(texts: pa.StringArray) -> float:
    """Megabytes of UTF-8 per CPU second, the best of some rounds."""
    room = minhash.shingler(5, 5)
    return _rate(texts, lambda: minhash.signatures(texts, 112, room))


def _speed(texts: pa.StringArray, words: str) -> dict[str, float]:
    """Megabytes of UTF-8 per CPU second, the best of some rounds."""
    every, few = Wanted(lines=True, chinese_words=words), Wanted(repetition=False, chinese_words=words)
    return {
        "annotation_mb_per_cpu_s": _rate(texts, lambda: annotate(texts, every)),
        "annotation_without_repetition_mb_per_cpu_s": _rate(texts, lambda: annotate(texts, few)),
    }


def _segmentation(texts: pa.StringArray) -> tuple[dict[str, float], dict[str, float]]:
    """How many texts have exactly the words of jieba, what cutting them costs, and what it costs jieba."""
    original = _jieba()
    tables = model()
    found = cuts(texts, tables)
    equal, started = 0, time.process_time()
    theirs = [[word for word in original(text) if word.strip()] for text in texts.to_pylist()]
    cpu_s = time.process_time() - started
    data, starts = utf8_of(texts)
    is_start = np.unpackbits(found.starts, bitorder="little")
    for number, words in enumerate(theirs):
        content = data[starts[number] : starts[number + 1]].tobytes()
        places = [*np.flatnonzero(is_start[starts[number] : starts[number + 1]]).tolist(), len(content)]
        equal += words == [content[start:stop].decode().strip() for start, stop in pairwise(places)]
    ours = {"texts_with_the_words_of_jieba_zh": round(equal / len(texts), 4)}
    ours["segmentation_mb_per_cpu_s_zh"] = _rate(texts, lambda: cuts(texts, tables))
    return ours, {"jieba_mb_per_cpu_s_zh": round(len(data) / 1e6 / cpu_s, 2)}


def _jieba() -> Callable[[str], list[str]]:
    """`jieba.lcut` with its dictionary loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("jieba")
    package.setLogLevel(logging.ERROR)
    package.initialize()
    cut: Callable[[str], list[str]] = package.lcut
    return cut


def _rate(texts: pa.StringArray, run: Callable[[], Any]) -> float:
    return round(len(utf8_of(texts)[0]) / 1e6 / min(_cpu_s(run) for _ in range(ROUNDS)), 1)


def _cpu_s(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
