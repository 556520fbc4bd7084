"""Bench `language`: accuracy and cost of language identification beside datatrove's block on the same model file.

    python tests/bench/language.py

The texts are translated message catalogues and manual pages of this machine, cut to three sizes, whose language is that
of their folder; Chinese counts as zh whatever its script. datatrove is asked for what FineWeb asks: all labels of the
whole text. CPU seconds of one process each in one run, the least of three rounds. Where datatrove is not installed the
line says so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "parts"))
import corpora
import pyarrow as pa
import rivals
import tongues
from privacy import cpu_s, documents, run_rival, size_mb, written

from atoll.data.engine.language.chinese import convert
from atoll.data.engine.language.identify import identify
from atoll.data.engine.language.model import load

BANDS: dict[str, Callable[[int], bool]] = {
    "all": lambda size: True,
    "under_200_bytes": lambda size: size < 200,
    "under_1000_bytes": lambda size: 200 <= size < 1000,
    "longer": lambda size: size >= 1000,
}


def labels() -> set[str]:
    """The languages the model knows."""
    return {tongues.same(label) for label in load(corpora.language_model()).labels}


def accuracy(found: Sequence[str], truth: Sequence[tuple[str, str]], band: Callable[[int], bool]) -> float:
    """Share of the texts of a band of sizes whose language is right, percent."""
    right = [
        tongues.same(code) == known
        for code, (text, known) in zip(found, truth, strict=True)
        if band(len(text.encode()))
    ]
    return 100 * sum(right) / max(1, len(right))


def identified(texts: list[str]) -> tuple[list[str], float]:
    """Codes, and the least CPU seconds of some rounds."""
    array = pa.array(texts)
    identify(array.slice(0, 4))
    spent = cpu_s(lambda: identify(array))
    return identify(array)[0].to_pylist(), spent


def main() -> None:
    truth = tongues.labelled(labels())
    texts = [text for text, _ in truth]
    codes, spent = identified(texts)
    figures: dict[str, float] = {"texts": len(texts), "languages": len({code for _, code in truth})}
    figures["mb_per_cpu_s"] = size_mb(texts) / spent
    figures |= {f"accuracy_{name}": accuracy(codes, truth, band) for name, band in BANDS.items()}
    rival: dict[str, Any] = {}
    trove = rivals.HOME / "curation" / "bin" / "python"
    corpus = {language: list(documents(language).values()) for language in ("en", "zh")}
    with tempfile.TemporaryDirectory() as folder:
        model = str(corpora.language_model())
        if trove.exists():
            theirs = run_rival(trove, "datatrove_blocks.py", "language", written(texts, Path(folder)), model)
            rival["datatrove_mb_per_cpu_s"] = size_mb(texts) / theirs["cpu_s"]
            figures["datatrove_ratio"] = theirs["cpu_s"] / spent
            for name, band in BANDS.items():
                rival[f"datatrove_accuracy_{name}"] = accuracy(theirs["labels"], truth, band)
            figures["points_lost"] = rival["datatrove_accuracy_all"] - figures["accuracy_all"]
        held = run_rival(Path(sys.executable), "language_memory.py", written(corpus["en"], Path(folder)))
        figures |= {name: held[name] for name in ("held_mb",) if name in held}
        for language, several in corpus.items():
            found, ours = identified(several)
            figures[f"mb_per_cpu_s_{language}"] = size_mb(several) / ours
            figures[f"share_{language}"] = sum(tongues.same(code) == language for code in found) / len(found)
            if trove.exists():
                theirs = run_rival(trove, "datatrove_blocks.py", "language", written(several, Path(folder)), model)
                figures[f"datatrove_ratio_{language}"] = theirs["cpu_s"] / ours
                same = [tongues.same(a) == tongues.same(b) for a, b in zip(found, theirs["labels"], strict=True)]
                rival[f"datatrove_share_{language}"] = sum(
                    tongues.same(label) == language for label in theirs["labels"]
                ) / len(several)
                figures[f"agreement_{language}"] = sum(same) / len(same)
    if not trove.exists():
        rival["skipped"] = f"no datatrove in {trove}"
    figures |= conversion(corpus["zh"])
    figures = {name: round(value, 4) for name, value in figures.items()}
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()}
    line = {"bench": "language", "machine": machine, "figures": figures, "rivals": rival}
    print(json.dumps(line | {"command": "python tests/bench/language.py"}))


def conversion(texts: list[str]) -> dict[str, float]:
    """Conversion of Chinese to the simplified script: as it comes, and of what is simplified already."""
    convert("中文", "simplified")
    started = time.process_time()
    converted = [convert(text, "simplified") for text in texts]
    once = time.process_time()
    for text in converted:
        convert(text, "simplified")
    again = time.process_time() - once
    return {
        "convert_mb_per_cpu_s": size_mb(texts) / (once - started),
        "convert_unchanged_mb_per_cpu_s": size_mb(converted) / again,
    }


if __name__ == "__main__":
    main()
