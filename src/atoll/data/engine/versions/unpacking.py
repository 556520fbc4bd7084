"""What packed files hold, as far as a search for texts goes: every byte of gzip, zip and tar, every value of Parquet.

A packed file inside a packed one is followed where it can be read as a stream; a zip, Parquet or PDF inside is not, and
the answer says that not all was searched. It does not know what the bytes mean: text that a format cuts into pieces,
as PDF and office documents do, is for the readers of documents.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from atoll.data.engine.read.archive import Budget, Counted
from atoll.data.engine.read.expand import Expanded
from atoll.data.engine.read.item import Limits, Unreadable
from atoll.data.engine.read.lines import Readable
from atoll.data.engine.versions.matching import holding
from atoll.data.parquet import batches_in, open_parquet
from atoll.data.sought import Sought

CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
ZIP, PARQUET, PDF = b"PK\x03\x04", b"PAR1", b"%PDF"
TAR_AT, TAR = 257, b"ustar"
CLOSED = (b"ARROW1", b"ORC", b"Obj\x01", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x04\x22\x4d\x18", b"\xff\x06\x00\x00sNaPpY")
"""How Feather, ORC, Avro, 7z, RAR, LZ4 and Snappy begin, which nothing here unpacks."""

HEAD_BYTES = 512
DEPTH_MAX = 4
ROWS = 256


def is_packed(head: bytes) -> bool:
    """Whether a file that begins so holds more than its bytes show."""
    return head.startswith((*CODECS, *CLOSED, ZIP, PARQUET, PDF)) or head[TAR_AT:].startswith(TAR)


class Searched(NamedTuple):
    """Whether a text was found, whether all was searched, and whether only a reader of documents can tell the rest."""

    found: bool
    is_whole: bool
    needs_reader: bool = False


class Unpacking:
    """Searches packed files for `texts`; `holds` tells whether a stream of plain bytes holds one."""

    def __init__(self, texts: Sequence[str], sought: Sought, holds: Callable[[Readable], bool]) -> None:
        self._texts = texts
        self._sought = sought
        self._holds = holds

    def search(self, path: Path) -> Searched:
        """What can be said of the packed file at `path`; one that is damaged was not wholly searched."""
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            try:
                if head.startswith(PDF):
                    return Searched(False, True, needs_reader=True)
                if head.startswith(ZIP):
                    return Searched(*self._members(_of_zip(stream), 1), needs_reader=True)
                if head.startswith(PARQUET):
                    return Searched(self._in_rows(stream), True)
                return Searched(*self._in_stream(stream, 0))
            except (Unreadable, zipfile.BadZipFile, tarfile.TarError, zlib.error, pa.ArrowException):
                return Searched(False, False)
            except (OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
                return Searched(False, False)

    def _in_rows(self, stream: Any) -> bool:
        file = open_parquet(stream)
        schema = file.schema_arrow
        notes = [part.decode(errors="replace") for pair in (schema.metadata or {}).items() for part in pair]
        if self._sought.is_in(schema.names, notes):
            return True
        return any(
            holding(pa.table(batch.columns, batch.schema), self._texts).any() for batch in batches_in(file, ROWS)
        )

    def _in_stream(self, stream: Readable, depth: int) -> tuple[bool, bool]:
        peeked = _Peeked(stream)
        codec = next((name for magic, name in CODECS.items() if peeked.head.startswith(magic)), "")
        if not is_packed(peeked.head):
            return self._holds(peeked), True
        if depth >= DEPTH_MAX or not (codec or peeked.head[TAR_AT:].startswith(TAR)):
            return self._holds(peeked), False  # it may only begin like something packed
        if codec:
            return self._in_stream(Expanded(peeked, codec, Limits()), depth + 1)
        return self._members(_of_tar(peeked), depth + 1)

    def _members(self, members: Iterator[tuple[str, Readable | None]], depth: int) -> tuple[bool, bool]:
        """Of members by name; None for one that cannot be opened."""
        is_whole = True
        for name, stream in members:
            if self._sought.is_in(name):
                return True, is_whole
            found, is_open = (False, False) if stream is None else self._in_stream(stream, depth)
            if found:
                return True, is_whole
            is_whole = is_whole and is_open
        return False, is_whole


class _Peeked:
    """A stream whose beginning is known."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.head = b""
        while len(self.head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(self.head))):
            self.head += more
        self._left = self.head

    def read(self, size: int, /) -> bytes:
        if self._left:
            data, self._left = self._left[:size], self._left[size:]
            return data
        return self._stream.read(size)


def _of_zip(stream: Any) -> Iterator[tuple[str, Readable | None]]:
    budget = Budget(Limits())
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            budget.member()
            try:
                member = archive.open(info)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # damaged, or encrypted with a password
                yield info.filename, None
                continue
            with member:
                yield info.filename, Counted(member, info.compress_size, budget)


def _of_tar(stream: Any) -> Iterator[tuple[str, Readable | None]]:
    budget = Budget(Limits())
    archive: Any  # its list of members is not among the types known of it
    with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
        for info in archive:
            budget.member()
            member = archive.extractfile(info) if info.isfile() else None
            if member is not None:
                yield info.name, Counted(member, info.size, budget)
            else:
                yield f"{info.name} {info.linkname}", _Nothing()
            archive.members.clear()  # a stream never goes back to them


class _Nothing:
    """A folder or a link: a name without bytes."""

    def read(self, size: int, /) -> bytes:
        return b""
