"""Bench `curation`: how exact and how fast a curation run is, beside datatrove and Data-Juicer in the same run.

    python tests/bench/curation.py          JSON on the last line

Exactness and rivals need documents with known duplicates and planted personal data (../shared/data/curation, beside
the repository). Where that folder is absent, documents found on this machine are measured, without rivals' verdicts,
and the line says so. CPU seconds of whole commands less those of the same command on a hundred documents, for both:
what it costs to start, to load libraries, models and machine code, is told apart. ATOLL_BENCH_MB (default 160) is the
size of the largest corpus, 2000 the one the figures are told for.

Speed is measured on the known corpora, and once more with texts like theirs up to BESIDE_MB, of which most are kept and
some are near duplicates (`corpora.grown`); growth and workers on such texts alone.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts import corpora, rivals
from parts.processes import Watched

HERE = Path(__file__).parent
LARGEST_MB = int(os.environ.get("ATOLL_BENCH_MB", "160"))
BESIDE_MB = 16
ROUNDS = 3
RECIPE = {"preset": "web-en", "privacy": {}}
ROUNDS_SHORT = 5
"""Of runs that take seconds."""
DEDUP_ONLY = {"preset": "documents", "min_characters": 0, "rules": [], "questions": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class _Language:
    """Our preset, datatrove's code of the language and Data-Juicer's way to cut it."""

    preset: str
    datatrove: str
    juicer: str


LANGUAGES = {"en": _Language("web-en", "eng", "space"), "zh": _Language("web-zh", "cmn", "character")}


def main() -> None:
    figures: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        _compile(folder)
        growth = _growth(folder)  # first: memory is the largest of all children so far, and rivals are larger
        figures |= growth
        for language in LANGUAGES:
            if corpora.is_there():
                ours, others = _beside_rivals(language, folder)
                figures |= {f"{name}_{language}": value for name, value in ours.items()}
                theirs |= {f"{name}_{language}": value for name, value in others.items()}
        if corpora.is_there():
            figures |= _privacy(folder)
            for name in ("datatrove", "data_juicer", "data_juicer_bare"):
                figures[f"minhash_ratio_{name}"] = min(
                    figures.pop(f"minhash_ratio_{name}_{language}") for language in LANGUAGES
                )
        figures |= _workers(folder)
    line = {
        "bench": "curation",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()},
        "figures": figures,
        "rivals": theirs,
        "plots": {"growth": _plotted(growth)},
        "command": f"ATOLL_BENCH_MB={LARGEST_MB} python tests/bench/curation.py",
    }
    if not corpora.is_there():
        line["skipped"] = f"no corpus with known duplicates in {corpora.FOLDER}"
    sys.stdout.write(json.dumps(line) + "\n")


def _compile(folder: Path) -> None:
    """Small runs of every kind, so that machine code is in the cache."""
    few = corpora.few(corpora.grown(folder / "seed.jsonl", 1), folder / "few.jsonl")
    for number, preset in enumerate(("web-en", "documents")):
        recipe = {"preset": preset, "language": None, "privacy": {}, "dedup": {"lines": {}, "substrings": {}}}
        _curate([few], folder / f"few-{number}", recipe)


def _curate(inputs: list[Path], out: Path, recipe: dict[str, Any], workers: int = 1) -> tuple[float, float]:
    """CPU and wall seconds of `atoll data curate`."""
    recipe_file = out.with_suffix(".recipe.json")
    recipe_file.write_text(json.dumps(recipe))
    command = [str(Path(sys.executable).with_name("atoll")), "data", "curate", *map(str, inputs)]
    command += ["--recipe", str(recipe_file), "--out", str(out), "--workers", str(workers), "--seed", "1"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.monotonic() - started


def _timed(file: Path, workers: int = 1) -> tuple[float, float]:
    """CPU and wall seconds of a whole recipe over a file; what it made is removed, for it is larger than the file."""
    with tempfile.TemporaryDirectory(dir=file.parent) as out:
        return _curate([file], Path(out) / "out", RECIPE, workers)


@dataclass(frozen=True, slots=True)
class _Speed:
    """What a text of `size_mb` took us and datatrove, CPU seconds: the whole recipe without its start, and the MinHash
    signatures alone."""

    size_mb: float
    recipe_s: float
    start_s: float
    signatures_s: float
    datatrove_recipe_s: float
    datatrove_signatures_s: float


def _beside_rivals(language: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Speed on the known corpus; the same with texts like its own, which are mostly kept, so that every filter looks at
    them; exactness."""
    known = corpora.write(language, folder / language)
    filled = corpora.filled(language, folder / f"{language}-filled" / "corpus.jsonl", BESIDE_MB)
    found = _speed(language, known, folder / "known")
    kept = _speed(language, filled, folder / "filled")
    home = rivals.environment("juicer", *rivals.DATA_JUICER)
    juicer = _rival(home, "juicer_minhash.py", str(filled), LANGUAGES[language].juicer)
    figures = {
        "start_cpu_s": round(found.start_s, 2),
        "mb_per_cpu_s": round(found.size_mb / found.recipe_s, 2),
        "datatrove_ratio": round(found.datatrove_recipe_s / found.recipe_s, 1),
        "mb_per_cpu_s_mostly_kept": round(kept.size_mb / kept.recipe_s, 2),
        "datatrove_ratio_mostly_kept": round(kept.datatrove_recipe_s / kept.recipe_s, 1),
        "minhash_mb_per_cpu_s": round(kept.size_mb / kept.signatures_s, 1),
        "minhash_ratio_datatrove": round(kept.datatrove_signatures_s / kept.signatures_s),
        "minhash_ratio_data_juicer": round(juicer["signature_cpu_s"] / kept.signatures_s),
        "minhash_ratio_data_juicer_bare": round(juicer["bare_cpu_s"] / kept.signatures_s),
        **_exactness(language, known, folder),
    }
    theirs = {
        "datatrove_mb_per_cpu_s": round(found.size_mb / found.datatrove_recipe_s, 3),
        "datatrove_mb_per_cpu_s_mostly_kept": round(kept.size_mb / kept.datatrove_recipe_s, 3),
        "datatrove_minhash_mb_per_cpu_s": round(kept.size_mb / kept.datatrove_signatures_s, 3),
        "data_juicer_minhash_mb_per_cpu_s": round(kept.size_mb / juicer["signature_cpu_s"], 3),
        "data_juicer_minhash_bare_mb_per_cpu_s": round(kept.size_mb / juicer["bare_cpu_s"], 3),
    }
    return figures, theirs


def _speed(language: str, file: Path, folder: Path) -> _Speed:
    few = corpora.few(file, folder / f"{language}-few" / "corpus.jsonl")
    recipe = {"preset": LANGUAGES[language].preset, "privacy": {}}
    ours = [_curate([file], folder / f"{language}-{n}", recipe)[0] for n in range(ROUNDS_SHORT)]
    starts = [_curate([few], folder / f"{language}-few-{n}", recipe)[0] for n in range(ROUNDS_SHORT)]
    start_s = statistics.median(starts)
    home, lid = rivals.environment("curation", *rivals.DATATROVE), str(corpora.language_model())
    code = LANGUAGES[language].datatrove
    theirs, started = (_rival(home, "datatrove_recipe.py", str(path.parent), code, lid) for path in (file, few))
    return _Speed(
        corpora.text_mb(file),
        statistics.median(ours) - start_s,
        start_s,
        statistics.median(corpora.signature_cpu_s(file) for _ in range(ROUNDS_SHORT)),
        theirs["recipe_cpu_s"] - started["recipe_cpu_s"],
        theirs["signature_cpu_s"] - started["signature_cpu_s"],
    )


def _rival(home: Path, script: str, *arguments: str) -> dict[str, Any]:
    command = [str(home / "bin" / "python"), str(HERE / "parts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _exactness(language: str, file: Path, folder: Path) -> dict[str, float]:
    """recall: true pairs at >= .8 of which one went. precision: dropped documents with a true pair at >= .7, or that
    were planted as copies; strictly: without the planted ones."""
    near = {"threshold": 0.7, "cjk_characters": 3} if language == "zh" else {}
    kept = _kept(file, folder / f"{language}-near", DEDUP_ONLY | {"dedup": {"near": near}})
    truth = corpora.truth(language)
    dropped = truth.ids - kept
    double = {name for one, other, index in truth.pairs if index >= 0.7 for name in (one, other)}
    high = [(one, other) for one, other, index in truth.pairs if index >= 0.8]
    edited = [(one, other) for one, other, kind in truth.copies if kind == "edit5%"]
    halves = [(one, other) for one, other, kind in truth.copies if kind == "trunc50"]
    cut = DEDUP_ONLY | {"dedup": {"near": near, "lines": {}, "substrings": {}}}
    short = _shortened(file, folder / f"{language}-cut", cut)
    return {
        "recall": _share(one not in kept or other not in kept for one, other in high),
        "precision": _share(name in double or name in truth.planted for name in dropped),
        "precision_strict": _share(name in double for name in dropped),
        "edited_5_percent_found": _share(one not in kept or other not in kept for one, other in edited),
        "truncated_half_found": _share(one in short or other in short for one, other in halves),
    }


def _share(holds: Iterable[bool]) -> float:
    values = list(holds)
    return round(sum(values) / len(values), 4)


def _kept(file: Path, out: Path, recipe: dict[str, Any]) -> set[str]:
    _curate([file], out, recipe | {"split": {"heldout_fraction": 0}})
    return {row["id"] for row in corpora.rows(out, "train")}


def _shortened(file: Path, out: Path, recipe: dict[str, Any]) -> set[str]:
    """The ids that were dropped or lost half of their text."""
    _curate([file], out, recipe | {"split": {"heldout_fraction": 0}})
    left = {row["id"]: len(row["text"]) for row in corpora.rows(out, "train")}
    return {row["id"] for row in corpora.read(file) if 2 * left.get(row["id"], 0) <= len(row["text"])}


def _privacy(folder: Path) -> dict[str, float]:
    """Planted values that are gone, and controls that are, over both languages."""
    planted, controls = [], []
    for language in LANGUAGES:
        file, out = folder / language / "corpus.jsonl", folder / f"{language}-privacy"
        recipe = DEDUP_ONLY | {"dedup": {"exact": False, "near": None}, "privacy": {}, "split": {"heldout_fraction": 0}}
        _curate([file], out, recipe)
        texts = {row["id"]: row["text"] for row in corpora.rows(out, "train")}
        for document, kind, value in corpora.planted_values():
            if document in texts:
                (controls if kind in corpora.CONTROLS else planted).append(value not in texts[document])
    return {"pii_recall": _share(planted), "pii_false_alarm": _share(controls)}


def _growth(folder: Path) -> dict[str, Any]:
    """CPU seconds of one process over growing corpora, and the largest resident size it had."""
    sizes = _sizes()
    seconds = [_timed(_grown(folder, size))[0] for size in sizes]
    figures = {f"cpu_s_{size}_mb": round(cpu_s, 2) for size, cpu_s in zip(sizes, seconds, strict=True)}
    figures["memory_alone_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    # 1 where twice the text costs twice as much
    if len(sizes) > 1:
        figures["growth"] = round((seconds[-1] / seconds[0]) / (sizes[-1] / sizes[0]), 3)
    return figures


def _sizes() -> list[int]:
    return [size for size in (10, 40, 160, 640, 2000) if size <= LARGEST_MB]


def _grown(folder: Path, size_mb: int) -> Path:
    return corpora.grown(folder / f"grown-{size_mb}.jsonl", size_mb)


def _plotted(growth: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds over the size of the text, as `run` draws it."""
    points = [(int(name.split("_")[2]), value) for name, value in growth.items() if name.startswith("cpu_s_")]
    return {"x": "text, MB", "y": "CPU seconds", "points": points}


def _workers(folder: Path) -> dict[str, Any]:
    """How much sooner two workers are done than one, by size of the text, medians of rounds in which one follows the
    other; how much the machine allows: two runs at once against one; and the largest any of two workers got, its shared
    pages counted whole."""
    figures: dict[str, Any] = {}
    for size in _sizes()[-3:]:
        rounds = [_timed(_grown(folder, size))[1] / _timed(_grown(folder, size), 2)[1] for _ in range(ROUNDS)]
        figures[f"scaling_2_workers_{size}_mb"] = round(statistics.median(rounds), 2)
    figures["scaling_2_workers"] = figures[f"scaling_2_workers_{size}_mb"]
    with Watched("atoll.data.engine.runtimes.worker") as watched:
        _timed(_grown(folder, size), 2)
    at_once = statistics.median(_at_once(_grown(folder, min(size, 640))) for _ in range(ROUNDS))
    return figures | {
        "scaling_2_runs_at_once": round(at_once, 2),
        "memory_mb": max(watched.resident_mb),
        "workers_watched": len(watched.resident_mb),
    }


def _at_once(file: Path) -> float:
    """How much sooner two whole runs are done together than one after the other."""
    alone_s = _timed(file)[1]
    with ThreadPoolExecutor(2) as both:
        together_s = max(found[1] for found in both.map(_timed, [file, file]))
    return 2 * alone_s / together_s


if __name__ == "__main__":
    main()
