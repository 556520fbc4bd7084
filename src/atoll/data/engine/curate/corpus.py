"""The corpus of a run: documents in batches on disk, with what one pass has noted of each, read by memory map.

A document's number is its place among all; batches are in the order of the sources. Nothing is held in memory but the
places of the batches, so a corpus may be larger than memory; columns that are asked for as arrays are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TEXTS, NOTES, SIGNATURES, LINES = "texts.arrow", "notes.arrow", "signatures.npy", "lines.npy"
"""Files of a batch: documents; statistics, digests and counts; MinHash signatures; hashes of lines."""

MAPPED_MAX = 2
"""Files held mapped, the texts and the notes of one batch; what was read of a mapped file counts as resident."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `id` is unique in the run; `source` is the name of the source and the file in it, such as
    `s0:docs/a.md`; `kind` says how to read its structure: topic, module, class, function, markdown, rst, code, chat or
    text. A chat's text is its messages, each RECORD role UNIT content (the control characters RS and US).
    """

    id: str
    text: str
    source: str
    title: str
    kind: str
    url: str = ""


SCHEMA = pa.schema([(field.name, pa.string()) for field in fields(Document)])

RECORD, UNIT = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True)
class Batch:
    """`rows` documents from number `first` on, in `folder`."""

    folder: Path
    first: int
    rows: int

    @property
    def documents(self) -> pa.RecordBatch:
        """Columns of SCHEMA, mapped."""
        return _mapped(self.folder / TEXTS)

    @property
    def texts(self) -> pa.StringArray:
        return self.documents.column("text")

    @property
    def text_bytes(self) -> tuple[int, NDArray[np.int64]]:
        """Where in the file TEXTS the UTF-8 of the texts begins, and where from there each text does; one more entry
        than texts."""
        whole = pa.memory_map(str(self.folder / TEXTS)).read_buffer()
        _, offsets, content = pa.ipc.open_file(whole).get_batch(0).column("text").buffers()
        starts = np.frombuffer(offsets, np.int32, self.rows + 1).astype(np.int64)
        return content.address - whole.address if content else 0, starts

    @property
    def notes(self) -> pa.RecordBatch:
        """The statistics, mapped."""
        return _mapped(self.folder / NOTES)

    @property
    def signatures(self) -> NDArray[np.uint32]:
        """uint32 (rows, permutations), mapped."""
        found: NDArray[np.uint32] = np.load(self.folder / SIGNATURES, mmap_mode="r")
        return found


class Corpus:
    """All batches of a run."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = list(batches)
        self._firsts = [batch.first for batch in batches]

    @classmethod
    def of(cls, folders: Sequence[Path], rows: Sequence[int]) -> Corpus:
        """The corpus of batch folders in their order, with so many rows each."""
        firsts = np.concatenate([[0], np.cumsum(rows)]).astype(int).tolist()
        return cls([Batch(*item) for item in zip(folders, firsts, rows, strict=False)])

    def __len__(self) -> int:
        return self.batches[-1].first + self.batches[-1].rows if self.batches else 0

    def __getitem__(self, number: int) -> Document:
        batch, row = self.place(number)
        return Document(*(column[row].as_py() for column in batch.documents.columns))

    def place(self, number: int) -> tuple[Batch, int]:
        """The batch document `number` is in, and its row there."""
        batch = self.batches[bisect_right(self._firsts, number) - 1]
        return batch, number - batch.first

    def text(self, number: int) -> pa.StringArray:
        """One text as an array of one, without a copy."""
        batch, row = self.place(number)
        return batch.texts.slice(row, 1)

    def column(self, name: str) -> NDArray[np.generic]:
        """A numeric column of the notes over all documents."""
        parts = [batch.notes.column(name).to_numpy(zero_copy_only=False) for batch in self.batches]
        return np.concatenate(parts) if parts else np.empty(0)

    def strings(self, name: str) -> pa.ChunkedArray:
        """A column of the documents over all batches, mapped; not for texts."""
        return pa.chunked_array([batch.documents.column(name) for batch in self.batches], pa.string())

    def ids(self) -> pa.ChunkedArray:
        return self.strings("id")

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def write_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Write one record batch as an Arrow file that can be mapped."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def write_array(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array as a .npy file; a full disk is an OSError with its number, which numpy's own writing loses."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data if array.size else b"")


@lru_cache(maxsize=MAPPED_MAX)
def _mapped(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
