"""The spool: the documents of a run on disk as Arrow files, read back by memory map.

Each text is held once, on disk; memory holds one batch at a time. The spool belongs to one run of one process and is
built anew when the run starts again.
"""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import pyarrow as pa

from atoll.core.files import disk_full_named

BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """One text: `id` is unique in the run, `source` says where it is from, `kind` how to read its structure.

    Kinds: topic, module, class, function (of Python's documentation), markdown, rst, text (of files).
    """

    id: str
    text: str
    source: str
    title: str
    kind: str


_SCHEMA = pa.schema([(name, pa.string()) for name in Document.__dataclass_fields__])


class Spool:
    """Documents in the order they were added."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.ids: list[str] = []
        self._pending: list[Document] = []
        self._pending_bytes = 0
        self._starts = [0]
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Document:
        place = bisect_right(self._starts, index) - 1
        batch, row = self._batches[place], index - self._starts[place]
        return Document(*(column[row].as_py() for column in batch.columns))

    def add(self, document: Document) -> None:
        self.ids.append(document.id)
        self._pending.append(document)
        self._pending_bytes += len(document.text)
        if self._pending_bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what is pending on disk."""
        if not self._pending:
            return
        columns = [pa.array(values, pa.string()) for values in zip(*map(astuple, self._pending), strict=True)]
        path = self.folder / f"{len(self._batches):06d}.arrow"
        with disk_full_named(path), pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            writer.write_batch(pa.record_batch(columns, _SCHEMA))
        self._batches.append(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0))
        self._starts.append(len(self.ids))
        self._pending, self._pending_bytes = [], 0

    def texts(self) -> Iterator[pa.StringArray]:
        """The texts batch by batch."""
        for batch in self._batches:
            yield batch.column("text")

    def text(self, index: int) -> pa.StringArray:
        """One text as an array of one, without a copy."""
        place = bisect_right(self._starts, index) - 1
        return self._batches[place].column("text").slice(index - self._starts[place], 1)

    def close(self) -> None:
        """Remove the files."""
        self._batches = []
        shutil.rmtree(self.folder, ignore_errors=True)
