"""Trains a quality model. `python -m atoll.data.engine.quality.train` in a task directory, or from files by the CLI.

Texts are read in order, up to a stated number of bytes of each kind; what lies beyond is not learnt from, and said so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.files import write_bytes
from atoll.data.engine.quality import classifier, perplexity
from atoll.data.engine.quality.examples import Label, read_examples
from atoll.data.manifest import read_manifest, read_shard, split_of

SETTINGS = ("epochs", "rate", "shortest", "longest", "seed")
BITS = {"classifier": 18, "perplexity": 20}
TEXT_BYTES_MAX = 256 << 20
LABELS_SHOWN = 10


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
        labels = Labels(Label(source["column"], tuple(source["good"])), good, other)
        for table in _tables(store, source, (column, source["column"])):
            labels.add(table, column)
        labels.check()
    task.report_progress("train", 0, None, "text")
    data, figures = train(wanted, good, other)
    blob = store.put_bytes(data)
    return {"model": blob.digest, "size_bytes": blob.size_bytes, "figures": figures}


def train_from_files(
    good: Sequence[Path], other: Sequence[Path], out: Path, wanted: Mapping[str, Any], label: Label | None = None
) -> dict[str, Any]:
    """Train from files of JSON lines (also .gz), Parquet or plain text, folders of them, or folders with datasets; the
    model goes to `out`. With a label `good` holds texts of both kinds, told apart by it.
    """
    if wanted["method"] == "perplexity" and (other or label):
        raise Invalid("a perplexity model is trained from good texts alone", field="negative", hint="leave out others")
    if not out.resolve().parent.is_dir():
        raise Invalid(f"there is no folder for {out}", field="out", hint="make it first, or name another file")
    text = wanted["text_column"]
    kinds = [Texts(int(wanted["text_bytes_max"])) for _ in range(2)]
    if label is not None:
        labels = Labels(label, *kinds)
        for table in _read(good, (text, label.column)):
            labels.add(table, text)
        labels.check()
    for texts, paths in zip(kinds, (good if label is None else (), other), strict=True):
        for table in _read(paths, (text,)):
            texts.add(table.column(text))
    data, figures = train(wanted, *kinds)
    write_bytes(out, data)
    return {"model": str(out), "size_bytes": len(data), "figures": figures}


def _read(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    return (table for path in paths for table in read_examples(path, columns))


class Labels:
    """Texts told apart by a label, into two kinds; those without one go to none."""

    def __init__(self, label: Label, good: Texts, other: Texts) -> None:
        self._label = label
        self._kinds = good, other
        self._met: Counter[str] = Counter()
        self._is_good_met = False

    def add(self, table: pa.Table, text: str) -> None:
        """Take the texts of a table, each to the kind its label says."""
        labels, texts = table.column(self._label.column), table.column(text)
        counts = pc.value_counts(labels.drop_null()).to_pylist()
        self._met.update({str(item["values"]): item["counts"] for item in counts})
        is_labelled = labels.is_valid()
        is_good = pc.is_in(labels, value_set=_labels(labels.type, self._label))
        self._is_good_met |= bool(pc.any(is_good).as_py())
        for kind, mask in zip(self._kinds, (is_good, pc.invert(is_good)), strict=True):
            kind.add(texts.filter(pc.and_(mask, is_labelled)))

    def check(self) -> None:
        """Invalid when no label met is a good one."""
        if self._is_good_met:
            return
        shown = ", ".join(f"{name} ({count})" for name, count in self._met.most_common(LABELS_SHOWN))
        words = f"no example has the label {' or '.join(self._label.good)} in {self._label.column!r}"
        raise Invalid(words, field="good", hint=f"its labels: {shown}" if shown else "none has any label there")


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


def _labels(kind: pa.DataType, label: Label) -> pa.Array:
    """The labels that are good, in the type of the column."""
    try:
        return pa.array(label.good).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        words = f"{', '.join(label.good)} cannot be labels of {label.column!r} ({kind})"
        raise Invalid(words, field="good", hint="name labels as the column has them") from error


if __name__ == "__main__":
    task.run(lambda wanted: train_from_datasets(wanted, BlobStore(task.blobs_url())))
