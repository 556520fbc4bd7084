"""Blobs as verified files on this node, so that an engine can map them.

A file is checked against its digest before its first use; the check is remembered by path, inode, size and time of
change, so a restarted engine starts at once. It does not guard against somebody who changes a file and its times.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from atoll.core.blobs import CHUNK_BYTES, BlobStore
from atoll.core.errors import IntegrityError
from atoll.core.files import read_json, write_json

Progress = Callable[[int, int], None]
"""Called with bytes checked and bytes in all."""

REPORT_EVERY_BYTES = 32 << 20


def verified_file(store: BlobStore, digest: str, cache: Path, progress: Progress) -> Path:
    """The blob as a local file whose bytes match its digest: the store's own where it is a folder, else a copy in
    `cache`. Never write to it.

    Raises NotFound when the store has no such blob, IntegrityError when its bytes are damaged.
    """
    path = store.local_path(digest)
    if path is not None:
        _verify(path, digest, cache, progress)
        return path
    copy = cache / "blobs" / digest.removeprefix("sha256:")
    if copy.exists():
        try:
            _verify(copy, digest, cache, progress)
        except IntegrityError:
            copy.unlink()
        else:
            return copy
    store.fetch(digest, copy)
    _remember(copy, digest, cache)
    return copy


def _verify(path: Path, digest: str, cache: Path, progress: Progress) -> None:
    if read_json(_stamp_path(digest, cache)) == _stamp(path):
        return
    before = _stamp(path)
    got = "sha256:" + _sha256(path, progress)
    if got != digest:
        raise IntegrityError(
            f"{path} is damaged: expected {digest}, got {got}",
            hint="delete it and import the model again",
            expected=digest,
            got=got,
        )
    if before == _stamp(path):
        _remember(path, digest, cache)


def _sha256(path: Path, progress: Progress) -> str:
    checksum, total_bytes, done_bytes, reported_bytes = hashlib.sha256(), path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
            done_bytes += len(chunk)
            if done_bytes - reported_bytes >= REPORT_EVERY_BYTES:
                reported_bytes = done_bytes
                progress(done_bytes, total_bytes)
    progress(done_bytes, total_bytes)
    return checksum.hexdigest()


def _remember(path: Path, digest: str, cache: Path) -> None:
    stamp_path = _stamp_path(digest, cache)
    stamp_path.parent.mkdir(parents=True, exist_ok=True)
    write_json(stamp_path, _stamp(path), durable=False)


def _stamp_path(digest: str, cache: Path) -> Path:
    return cache / "verified" / f"{digest.removeprefix('sha256:')}.json"


def _stamp(path: Path) -> dict[str, object]:
    status = os.stat(path)
    times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
    return {"path": str(path), "inode": status.st_ino, "size_bytes": status.st_size, **times}
