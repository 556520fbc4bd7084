"""Small datasets for tests: documents and questions as real manifests and shards, and a centre without processes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from atoll.core.blobs import BlobStore
from atoll.core.clock import VirtualClock
from atoll.core.collect import Collector
from atoll.core.reconcile import Controller, Loop
from atoll.core.resources import KINDS, Resource
from atoll.core.store import Create, Store
from atoll.data.controllers import DatasetController, DatasetVersionController
from atoll.data.manifest import SPLITS, Manifest, Shard, Split, write_manifest
from atoll.data.versions import make_version

Row = Mapping[str, Any]


def document(name: str, text: str, source: str = "") -> dict[str, Any]:
    return {"id": name, "text": text, "source": source or name}


def question(name: str, of: str, answer: str) -> dict[str, Any]:
    return {"id": name, "question": f"what of {of}?", "answer": answer, "document": of, "span_start": 0, "span_end": 1}


def shard(blobs: BlobStore, folder: Path, rows: Sequence[Row]) -> Shard:
    """The rows as one Parquet shard in `blobs`."""
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, compression="zstd")
    blob = blobs.put_file(path)
    path.unlink()
    return Shard(blob.digest, len(rows), blob.size_bytes)


def dataset(blobs: BlobStore, folder: Path, splits: Mapping[str, Sequence[Sequence[Row]]], **facts: Any) -> str:
    """The digest of a manifest; each split is given as its shards, each shard as its rows."""
    made = {
        name: Split(tuple(shard(blobs, folder, rows) for rows in shards), sum(map(len, shards)))
        for name, shards in {name: splits.get(name, []) for name in (*SPLITS, *splits)}.items()
    }
    counts = {name: split.rows for name, split in made.items()}
    documents = counts["train"] + counts["heldout"]
    counts |= {"documents_in": documents, "documents_out": documents}
    given = {"funnel": [], "recipe": {"seed": 1}, "licence": "CC0-1.0", "sources": [], **facts}
    return write_manifest(blobs, Manifest(splits=made, counts=counts, **given))


class Shelf:
    """Datasets of project `p` in a real store with their real controllers, driven by hand."""

    def __init__(self, store: Store, clock: VirtualClock, folder: Path, *more: Controller) -> None:
        self.store = store
        self.clock = clock
        self.folder = folder
        self.blobs = BlobStore(str(folder / "blobs"))
        self.scope = store.everything("test")
        controllers = [DatasetVersionController(self.blobs), DatasetController(), Collector(), *more]
        self.loop = Loop(store, clock, controllers, random.Random(1))

    def settle(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass and everything that is due happen."""
        self.clock.advance(seconds)
        for _ in range(50):
            self.loop.take_changes()
            if not self.loop.step():
                if self.loop.next_due_s() > 0.3:
                    return
                self.clock.advance(0.3)
            while self.loop.step():
                pass

    def add(self, name: str, *documents: Row, project: str = "p", **facts: Any) -> Resource:
        """A new version of dataset `name` with these documents to train on."""
        manifest = dataset(self.blobs, self.folder, {"train": [documents]})
        made = make_version(self.scope, project, name, manifest, **facts)
        self.scope.write(made.writes)
        self.settle()
        return self.scope.get("DatasetVersion", made.version, project)

    def create(self, kind: str, name: str, spec: Mapping[str, Any], project: str = "p", **status: Any) -> Resource:
        """Any resource, as if its controller had made it so."""
        self.scope.write([Create(kind, project, name, KINDS.named(kind).parse_spec(dict(spec)), status)])
        return self.scope.get(kind, name, project)

    def get(self, name: str, kind: str = "Dataset") -> Resource:
        return self.scope.get(kind, name, "p")

    def has(self, name: str) -> bool:
        return self.scope.find("DatasetVersion", name, "p") is not None
