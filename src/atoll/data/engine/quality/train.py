"""Trains a quality model. `python -m atoll.data.engine.quality.train` in a task directory, or from files by the CLI.

Texts are read in order, up to a stated number of bytes of each kind; what lies beyond is not learnt from, and said so.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.quality import classifier, perplexity
from atoll.data.manifest import read_manifest, read_shard, split_of

SETTINGS = ("epochs", "rate", "shortest", "longest", "seed")
BITS = {"classifier": 18, "perplexity": 20}
TEXT_BYTES_MAX = 256 << 20
PLAIN = (".txt", ".md", ".rst", ".html", ".htm")


@dataclass(slots=True)
class Texts:
    """Texts of one kind, up to `bytes_max`; `left_out` counts those beyond."""

    bytes_max: int
    parts: list[pa.StringArray] = field(default_factory=list)
    bytes: int = 0
    left_out: int = 0

    def add(self, texts: pa.Array) -> None:
        """Take texts while there is room."""
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        texts = texts.cast(pa.string()).drop_null()
        size = int(texts.nbytes)
        if self.bytes + size > self.bytes_max:
            self.left_out += len(texts)
            return
        self.bytes += size
        self.parts.append(texts)

    def all(self) -> pa.StringArray:
        return pa.concat_arrays(self.parts) if self.parts else pa.array([], pa.string())


def train(wanted: Mapping[str, Any], good: Texts, other: Texts) -> tuple[bytes, dict[str, Any]]:
    """(the model's file, its figures), by the method that is wanted; Invalid when there are too few texts."""
    bits = wanted["bits"] or BITS[wanted["method"]]
    if wanted["method"] == "perplexity":
        model = perplexity.train(good.all(), int(wanted["seed"]), bits)
        return model.file().encode(), {**model.report, "left_out": good.left_out}
    settings = classifier.Settings(**{name: wanted[name] for name in SETTINGS}, bits=bits)
    texts = pa.concat_arrays([good.all(), other.all()])
    labels = [True] * len(good.all()) + [False] * len(other.all())
    made = classifier.train(texts, labels, settings)
    return made.file().encode(), {**made.report, "left_out": good.left_out + other.left_out}


def train_from_datasets(wanted: Mapping[str, Any], store: BlobStore) -> dict[str, Any]:
    """Train from dataset versions: `labels`, `good` and `other`, each with its manifest's digest."""
    good, other = Texts(int(wanted["text_bytes_max"])), Texts(int(wanted["text_bytes_max"]))
    column = wanted["text_column"]
    for role, texts in (("good", good), ("other", other)):
        for source in wanted[role]:
            for table in _tables(store, source, (column,)):
                texts.add(table.column(column))
    for source in wanted["labels"]:
        for table in _tables(store, source, (column, source["column"])):
            is_good = pc.is_in(table.column(source["column"]), value_set=_labels(table, source))
            is_labelled = table.column(source["column"]).is_valid()
            good.add(table.column(column).filter(pc.and_(is_good, is_labelled)))
            other.add(table.column(column).filter(pc.and_(pc.invert(is_good), is_labelled)))
    task.report_progress("train", 0, None, "text")
    data, figures = train(wanted, good, other)
    blob = store.put_bytes(data)
    return {"model": blob.digest, "size_bytes": blob.size_bytes, "figures": figures}


def train_from_files(
    good: Sequence[Path], other: Sequence[Path], out: Path, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Train from files of JSON lines (also .gz), Parquet or plain text, or folders of them; the model goes to `out`."""
    kinds = [Texts(int(wanted["text_bytes_max"])) for _ in range(2)]
    for texts, paths in zip(kinds, (good, other), strict=True):
        for path in paths:
            for part in _read(path, wanted["text_column"]):
                texts.add(part)
    data, figures = train(wanted, *kinds)
    out.write_bytes(data)
    return {"model": str(out), "size_bytes": len(data), "figures": figures}


def _tables(store: BlobStore, source: Mapping[str, Any], columns: Iterable[str]) -> Iterator[pa.Table]:
    manifest = read_manifest(store, source["manifest"])
    for shard in split_of(manifest, source["split"]).shards:
        table = read_shard(store, shard)
        for column in columns:
            if column not in table.column_names:
                hint = f"it has {', '.join(table.column_names)}"
                words = f"split {source['split']!r} of {source['dataset']!r} has no column {column!r}"
                raise Invalid(words, field="text_column", hint=hint)
        yield table


def _labels(table: pa.Table, source: Mapping[str, Any]) -> pa.Array:
    """The labels that are good, in the type of the column."""
    kind = table.column(source["column"]).type
    try:
        return pa.array(source["good"]).cast(kind)
    except pa.ArrowInvalid as error:
        raise Invalid(f"{source['good']} cannot be labels of {source['column']!r} ({kind})", field="good") from error


def _read(path: Path, column: str) -> Iterator[pa.Array]:
    if path.is_dir():
        for found in sorted(p for p in path.rglob("*") if p.is_file()):
            yield from _read(found, column)
    elif path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(columns=[column]):
            yield batch.column(0)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield pa.array(list(_texts_of_lines(path, column)), pa.string())
    elif path.suffix in PLAIN:
        yield pa.array([path.read_text("utf-8", "replace")], pa.string())
    else:
        hint = f"files of .jsonl, .jsonl.gz, .parquet, {', '.join(PLAIN)}, or folders of them"
        raise Invalid(f"cannot read texts from {path}", field="input", hint=hint)


def _texts_of_lines(path: Path, column: str) -> Iterator[str]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _text_of(line, column, f"{path}:{number}")


def _text_of(line: bytes, column: str, where: str) -> str:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{where} is not JSON: {error}", field="input", hint="one JSON object a line") from error
    text = value.get(column) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise Invalid(f"{where} has no text in {column!r}", field="input", hint="name the column: --text-column")
    return text


if __name__ == "__main__":
    task.run(lambda wanted: train_from_datasets(wanted, BlobStore(task.blobs_url())))
