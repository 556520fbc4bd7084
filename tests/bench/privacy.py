"""Bench `privacy`: what personal data and sensitive words are found, what is not, and at what cost beside the rivals.

    python tests/bench/privacy.py

CPU seconds of one process each, on the same texts in one run; kernels are compiled before the clock starts. The texts
are the corpus with known truth where it lies beside the repository, else documents of this machine; values of all kinds
are planted into them besides. datatrove finds e-mail addresses and public IPv4 addresses; Presidio runs its five
recognisers that need no language model. Both are left out, and the line says so, where they cannot be installed.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "parts"))
import corpora
import personal
import pyarrow as pa
import rivals

from atoll.data.engine.privacy import KINDS, Finder, count
from atoll.data.engine.words import WordFinder

PER_KIND, LIST, ROUNDS = 400, 100_000, 3
PRESIDIO_MB = 1.0
KNOWN = {"id": "identity_card", "card": "bank_card", "email": "email", "ip": "ip", "phone": "phone"}


def cpu_s(work: Callable[[], object]) -> float:
    """The least CPU seconds of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def documents(language: str) -> dict[str, str]:
    if corpora.is_there():
        with tempfile.TemporaryDirectory() as folder:
            return {row["id"]: row["text"] for row in corpora.read(corpora.write(language, Path(folder)))}
    pattern = "*.txt" if language == "en" else "zh_CN/man*/*"
    paths = sorted(Path("/usr/share/man" if language == "zh" else "/usr/share").rglob(pattern))[:1500]
    found = {str(path): path.read_text(encoding="utf-8", errors="ignore") for path in paths if path.is_file()}
    return found or {"none": "文字\n" * 1000}


def size_mb(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def exactness(texts: list[str]) -> dict[str, float]:
    """Recall of each kind planted, and the share of controls of which anything is found."""
    changed, truth = personal.planted(texts, PER_KIND)
    finder = Finder()
    found = {number: finder.find(changed[number]) for number in {number for number, _, _ in truth}}
    hits: Counter[str] = Counter()
    for number, kind, value in truth:
        place = changed[number].find(value)
        near = [span for span in found[number] if span.start < place + len(value) and place < span.stop]
        is_hit = bool(near) if kind == "control" else any(span.kind == kind for span in near)
        if is_hit == (kind == "control"):
            print(f"{'false alarm' if is_hit else 'missed'}: {kind} {value!r} {near}")
        hits[kind] += is_hit
    recall = {f"recall_{kind}": hits[kind] / PER_KIND for kind in KINDS}
    return recall | {"false_alarms_planted": hits["control"] / PER_KIND}


def shared_truth(texts: dict[str, str]) -> dict[str, float]:
    """Recall and false alarms on the values planted into the shared corpus."""
    finder = Finder()
    right: Counter[bool] = Counter()
    alarms: Counter[bool] = Counter()
    for name, kind, value in corpora.planted_values():
        text = texts[name]
        place = text.find(value)
        near = [span for span in finder.find(text) if span.start < place + len(value) and place < span.stop]
        if kind in corpora.CONTROLS:
            alarms[bool(near)] += 1
        else:
            right[(place, place + len(value), KNOWN[kind]) in near] += 1
    return {"pii_recall": right[True] / right.total(), "pii_false_alarm": alarms[True] / alarms.total()}


def word_list() -> list[str]:
    """A made-up list, half of it Chinese: two to six characters; the rest one or two words."""
    choice = random.Random(3)
    han = [chr(0x4E00 + number) for number in range(6000)]
    consonants, vowels = "bcdfghklmnprstvw", "aeiou"

    def word() -> str:
        return "".join(choice.choice(consonants) + choice.choice(vowels) for _ in range(choice.randint(2, 5)))

    chinese = {"".join(choice.choices(han, k=choice.randint(2, 6))) for _ in range(LIST // 2)}
    latin = {word() if choice.random() < 0.8 else f"{word()} {word()}" for _ in range(LIST)}
    return sorted(chinese) + sorted(latin)[: LIST - len(chinese)]


def words(texts: dict[str, list[str]]) -> dict[str, float]:
    entries = word_list()
    WordFinder(["warm"]).count(pa.array(["warm"]))
    started = time.process_time()
    finder = WordFinder(entries)
    figures = {"words_build_s": time.process_time() - started, "words_memory_mb": finder.memory_bytes / 1e6}
    for language, several in texts.items():
        spent = cpu_s(partial(finder.count, pa.array(several)))
        figures[f"words_mb_per_cpu_s_{language}"] = size_mb(several) / spent
    return figures


def run_rival(python: Path, part: str, *arguments: str) -> dict[str, Any]:
    script = Path(__file__).parent / "parts" / part
    done = subprocess.run([str(python), str(script), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def written(texts: list[str], folder: Path) -> str:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def main() -> None:
    named = {language: documents(language) for language in ("en", "zh")}
    texts = {language: list(several.values()) for language, several in named.items()}
    finder = Finder()
    count(pa.array(["warm a@b.cd"]), finder)
    spent = {language: cpu_s(partial(count, pa.array(several), finder)) for language, several in texts.items()}
    figures = {f"mb_per_cpu_s_{language}": size_mb(texts[language]) / spent[language] for language in texts}
    figures |= exactness(texts["en"][:1500] + texts["zh"][:1500])
    if corpora.is_there():
        figures |= shared_truth(named["en"] | named["zh"])
    figures |= words(texts)
    rival: dict[str, Any] = {}
    trove = rivals.HOME / "curation" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        for language, several in texts.items() if trove.exists() else ():
            theirs = run_rival(trove, "datatrove_blocks.py", "privacy", written(several, Path(folder)))
            rival[f"datatrove_mb_per_cpu_s_{language}"] = size_mb(several) / theirs["cpu_s"]
            figures[f"datatrove_ratio_{language}"] = theirs["cpu_s"] / spent[language]
        presidio = os.environ.get("ATOLL_PRESIDIO") or str(rivals.HOME / "presidio" / "bin" / "python")
        if Path(presidio).exists():
            some = texts["en"][: max(1, int(len(texts["en"]) * PRESIDIO_MB / size_mb(texts["en"])))]
            theirs = run_rival(Path(presidio), "presidio_patterns.py", written(some, Path(folder)))
            if "error" in theirs:
                rival["presidio"] = theirs["error"]
            else:
                rival["presidio_mb_per_cpu_s_en"] = size_mb(some) / theirs["cpu_s"]
                ours = cpu_s(lambda: count(pa.array(some), finder))
                figures["presidio_ratio_en"] = theirs["cpu_s"] / ours
    if not trove.exists():
        rival["skipped"] = f"no datatrove in {trove}"
    figures = {name: round(value, 4) for name, value in figures.items()}
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()}
    line = {"bench": "privacy", "machine": machine, "figures": figures, "rivals": rival}
    print(json.dumps(line | {"command": "python tests/bench/privacy.py"}))


if __name__ == "__main__":
    main()
