"""A dataset outside the platform: a folder or a tar with a manifest and its shards, opened for reading.

Whatever holds a dataset is `Opened`: it has a manifest and opens shards as seekable files, so that describing,
comparing and importing are written once. A tar must not be compressed (the shards are already).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

from atoll.core.blobs import CHUNK_BYTES, BlobStore
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.data.layout import MANIFEST, members
from atoll.data.manifest import Manifest, Shard, decode_manifest, read_manifest
from atoll.data.parquet import open_parquet

MANIFEST_BYTES_MAX = 256 << 20


class Opened(Protocol):
    """A dataset that can be read."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def manifest(self) -> Manifest:
        """Its manifest."""
        ...

    def open(self, path: str, shard: Shard) -> IO[bytes]:
        """The shard at `path` of the layout as a seekable file; NotFound names a missing one."""
        ...


class Stored:
    """A dataset in a blob store."""

    def __init__(self, blobs: BlobStore, digest: str, name: str = "") -> None:
        self.name = name or digest
        self.manifest = read_manifest(blobs, digest)
        self._blobs = blobs

    def open(self, path: str, shard: Shard) -> IO[bytes]:
        return self._blobs.open(shard.digest)


class Folder:
    """A dataset in a folder."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self.data = _manifest_bytes(root)
        self.manifest = _decoded(self.data, f"{root}/{MANIFEST}")
        self._root = root

    def open(self, path: str, shard: Shard) -> IO[bytes]:
        try:
            return (self._root / path).open("rb")
        except OSError as error:
            raise _missing(f"{self._root}/{path}", error) from error


class Tar:
    """A dataset in a tar. Close it."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with ExitStack() as opening:
            try:
                self._tar = opening.enter_context(tarfile.open(path, "r:"))
                members = self._tar.getmembers()
            except (tarfile.TarError, OSError) as error:
                hint = "an uncompressed and whole tar, as `atoll data export` writes"
                raise Invalid(f"{path} cannot be read as a tar: {error}", field="source", hint=hint) from error
            self._members = {_plain(member.name): member for member in members if member.isfile()}
            with self._open(MANIFEST) as stream:
                self.data = stream.read(MANIFEST_BYTES_MAX)
            self.manifest = _decoded(self.data, f"{path}/{MANIFEST}")
            opening.pop_all()

    def open(self, path: str, shard: Shard) -> IO[bytes]:
        return self._open(path)

    def close(self) -> None:
        self._tar.close()

    def _open(self, path: str) -> IO[bytes]:
        member = self._members.get(path)
        stream = self._tar.extractfile(member) if member is not None else None
        if stream is None:
            raise NotFound(f"{self.name} holds no {path}", hint="export it again")
        return stream


@contextmanager
def open_archive(path: Path) -> Iterator[Folder | Tar]:
    """The dataset in a folder or tar; Invalid or NotFound says what is wrong with it."""
    if path.is_dir():
        yield Folder(path)
        return
    if not path.exists():
        raise NotFound(f"{path} does not exist", hint="a folder with manifest.json, or a tar of one")
    tar = Tar(path)
    try:
        yield tar
    finally:
        tar.close()


def is_archive(text: str) -> bool:
    """Whether `text` names something on this machine rather than a version of the platform.

    A path or a tar does; a bare name only when such a folder here holds a manifest.
    """
    return os.sep in text or text.startswith(".") or text.endswith(".tar") or Path(text, MANIFEST).is_file()


def check_shard(opened: Opened, path: str, shard: Shard) -> None:
    """Raise IntegrityError, naming the file, unless it has the bytes and rows the manifest says."""
    checksum = hashlib.sha256()
    size_bytes = 0
    with opened.open(path, shard) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            checksum.update(chunk)
            size_bytes += len(chunk)
    if f"sha256:{checksum.hexdigest()}" != shard.digest:
        words = f"{opened.name}: {path} is damaged: it has {size_bytes} bytes that are not those of the manifest"
        raise IntegrityError(words, hint="export it again, or copy it again", path=path, expected=shard.digest)
    with opened.open(path, shard) as stream:
        rows = _rows_in(stream)
    if rows != shard.rows:
        held = "is no Parquet" if rows is None else f"holds {rows} rows"
        words = f"{opened.name}: {path} {held}, and its manifest speaks of {shard.rows} rows"
        raise IntegrityError(words, hint="its manifest was changed; export it again", path=path)


def _rows_in(stream: IO[bytes]) -> int | None:
    """How many rows a Parquet file has; None for another file."""
    from pyarrow import ArrowInvalid

    try:
        with open_parquet(stream) as file:
            return int(file.metadata.num_rows)
    except ArrowInvalid:
        return None


def check(opened: Opened) -> int:
    """Check every file; how many there are. Raises as `check_shard` at the first that is damaged."""
    count = 0
    for path, shard in members(opened.manifest):
        check_shard(opened, path, shard)
        count += 1
    return count


def _manifest_bytes(root: Path) -> bytes:
    path = root / MANIFEST
    try:
        return path.read_bytes()
    except OSError as error:
        raise _missing(str(path), error) from error


def _decoded(data: bytes, where: str) -> Manifest:
    """The manifest in `data`; Invalid says where it lies."""
    try:
        return decode_manifest(data)
    except Invalid as error:
        raise Invalid(f"{where}: {error.message}", field=error.field, hint=error.hint or "export it again") from error


def _missing(path: str, error: OSError) -> NotFound:
    return NotFound(f"{path} cannot be read: {error.strerror}", hint="the folder of an export holds it; export again")


def _plain(name: str) -> str:
    return name.removeprefix("./")
