"""A tiny dataset and what a fine-tuning task of it looks like: enough to learn something from in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tiny_gguf
from atoll.core.blobs import BlobStore
from atoll.data.manifest import SPLITS, Manifest, Shard, Split, arrow_schema, write_manifest
from task_folder import TaskFolder

TRAIN = "atoll.training.engine.main"
EVALUATE = "atoll.training.engine.evaluate"
COLOURS = ("blue", "red", "green", "grey")
RECIPE = {
    "rank": 4,
    "alpha": 8.0,
    "learning_rate": 0.02,
    "steps": 12,
    "batch_tokens": 256,
    "micro_batch_tokens": 128,
    "sequence_length": 128,
    "heldout_rows": 8,
    "checkpoint_every_steps": 3,
    "precision": "float32",
    "threads": 1,
}


def write_model(path: Path, scale: float = 15.0) -> Path:
    """The tiny model with larger weights, so that its odds are far from even and every layer matters."""
    tiny_gguf.write_model(path)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        if len(tensor.shape) == 2:
            np.multiply(tensor.data, scale, out=tensor.data)
    return path


def question_rows(first: int, count: int) -> list[dict[str, Any]]:
    """Questions about the colour of numbered items."""
    rows = []
    for number in range(first, first + count):
        answer = f"Item {number} is {COLOURS[number % len(COLOURS)]}."
        row = {"id": f"q{number}", "question": f"What is item {number}?", "answer": answer, "document": f"d{number}"}
        rows.append(row | {"span_start": 0, "span_end": len(answer)})
    return rows


def document_rows(first: int, count: int) -> list[dict[str, Any]]:
    text = "Item {0} is kept in the box of item {0}, which is where an item is."
    return [{"id": f"d{n}", "text": text.format(n), "source": "made"} for n in range(first, first + count)]


def write_dataset(store: BlobStore, questions: int = 40, heldout: int = 12) -> str:
    """Store a dataset, return the digest of its manifest."""
    rows = {
        "train": document_rows(0, questions),
        "heldout": document_rows(questions, heldout),
        "qa_train": question_rows(0, questions),
        "qa_heldout": question_rows(questions, heldout),
    }
    splits = {name: _split(store, name, items) for name, items in rows.items()}
    counts = {name: len(items) for name, items in rows.items()}
    return write_manifest(store, Manifest(splits, counts, [], {}, "CC0-1.0", []))


def train_input(store: BlobStore, model: Path, dataset: str, **recipe: Any) -> dict[str, Any]:
    """The input of a training task."""
    base = {"files": [{"name": model.name, "digest": store.put_file(model).digest}], "format": "gguf"}
    return {"base": base, "dataset": dataset, "method": "lora", "recipe": RECIPE | recipe, "seed": 1}


def training(root: Path, **recipe: Any) -> tuple[TaskFolder, dict[str, Any]]:
    """A training task in `root` with a tiny model and dataset, and its input."""
    folder = TaskFolder(root, TRAIN)
    root.mkdir(parents=True, exist_ok=True)
    model = tiny_gguf.write_model(root / "tiny.gguf")
    return folder, train_input(folder.store, model, write_dataset(folder.store), **recipe)


def _split(store: BlobStore, name: str, rows: list[dict[str, Any]]) -> Split:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(SPLITS[name])), sink)
    blob = store.put_bytes(sink.getvalue().to_pybytes())
    return Split((Shard(blob.digest, len(rows), blob.size_bytes),) if rows else (), len(rows))
