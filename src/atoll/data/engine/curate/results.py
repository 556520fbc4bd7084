"""Results: where the files of a finished dataset go, and the manifest last.

In a blob store a dataset exists as soon as its manifest does. In a folder the old result stays until the new one is
whole; then the manifest goes first and comes last, so a folder with a manifest is always one whole dataset.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from atoll.core.blobs import BlobStore, digest_of, digest_of_file
from atoll.core.errors import Invalid
from atoll.core.files import disk_full_named, sync, write_bytes
from atoll.data.engine.read.dataset import STATE
from atoll.data.layout import MANIFEST, parts_of, path_of
from atoll.data.manifest import Manifest, Shard, decode_manifest, write_manifest

REPORT = "report.json"


class Result(Protocol):
    """Takes the shards of a dataset in order, then its manifest."""

    def take(self, part: str, number: int, file: Path, rows: int) -> Shard:
        """Take a Parquet file as shard `number` of a split or table; several threads may at once."""

    def finish(self, manifest: Manifest, report: bytes) -> str:
        """Make the dataset exist; the digest of its manifest."""


class Blobs:
    """A dataset in a blob store."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def take(self, part: str, number: int, file: Path, rows: int) -> Shard:
        blob = self._store.put_file(file)
        return Shard(blob.digest, rows, blob.size_bytes)

    def finish(self, manifest: Manifest, report: bytes) -> str:
        return write_manifest(self._store, manifest)


class Folder:
    """A dataset in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Invalid when the folder holds something that is not a dataset of ours."""
        check_ours(folder)
        self.folder = folder
        self._next = folder / STATE / "result"
        with disk_full_named(folder):
            shutil.rmtree(self._next, ignore_errors=True)
            self._next.mkdir(parents=True)

    def take(self, part: str, number: int, file: Path, rows: int) -> Shard:
        target = self._next / path_of(part, number)
        with disk_full_named(target):
            target.parent.mkdir(exist_ok=True)
            _linked(file, target)
            sync(target)
        return Shard(digest_of_file(target), rows, target.stat().st_size)

    def finish(self, manifest: Manifest, report: bytes) -> str:
        encoded = manifest.encode()
        write_bytes(self._next / REPORT, report)
        for part in self._next.iterdir():
            sync(part)
        self._remove_old()
        for path in sorted(self._next.iterdir()):
            path.rename(self.folder / path.name)
        self._next.rmdir()
        sync(self.folder)
        write_bytes(self.folder / MANIFEST, encoded)
        return digest_of(encoded)

    def _remove_old(self) -> None:
        manifest = self.folder / MANIFEST
        if manifest.exists():
            (self.folder / STATE / "former.json").write_bytes(manifest.read_bytes())
            manifest.unlink()
            sync(self.folder)
        for path in self.folder.iterdir():
            if path.name == STATE:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def check_ours(folder: Path) -> None:
    """Invalid unless `folder` is new, empty, or holds a result or the state of a curation and nothing else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder", field="out", hint="name a new folder")
    names = {path.name for path in folder.iterdir()}
    strange = sorted(names - {STATE, REPORT, MANIFEST} - _parts(folder))
    if strange or (names and STATE not in names):
        what = strange[0] if strange else sorted(names)[0]
        hint = "name a new folder, or one an earlier curation made"
        raise Invalid(f"{folder} holds {what!r}, which no curation made", field="out", hint=hint)


def _parts(folder: Path) -> set[str]:
    """The folders a result may have: those its manifest names, and while it is being replaced any of Parquet files."""
    manifest = folder / MANIFEST
    if manifest.exists():
        return set(parts_of(decode_manifest(manifest.read_bytes())))
    if not (folder / STATE).is_dir():
        return set()
    return {path.name for path in folder.iterdir() if path.is_dir() and _is_parquet_only(path)}


def _is_parquet_only(folder: Path) -> bool:
    return all(path.suffix == ".parquet" and path.is_file() for path in folder.iterdir())


def _linked(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)
