"""Blobs as local files: verified once, then remembered until the file changes; a bad copy is fetched anew."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from atoll.core.blobs import Blob, BlobStore
from atoll.core.errors import IntegrityError
from atoll.models.engine.local import verified_file


class _Count:
    """Counts how often bytes were checked."""

    def __init__(self) -> None:
        self.checks = 0

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self.checks += done_bytes == total_bytes


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def blob(store: BlobStore) -> Blob:
    return store.put_bytes(b"weights" * 1000)


def test_a_file_is_verified_once_and_again_when_it_changes(store: BlobStore, blob: Blob, tmp_path: Path) -> None:
    count = _Count()
    path = verified_file(store, blob.digest, tmp_path / "cache", count)
    assert path == store.local_path(blob.digest)
    assert verified_file(store, blob.digest, tmp_path / "cache", count) == path
    assert count.checks == 1
    os.utime(path, (1, 1))
    verified_file(store, blob.digest, tmp_path / "cache", count)
    assert count.checks == 2


def test_a_file_damaged_after_it_was_verified_is_refused(store: BlobStore, blob: Blob, tmp_path: Path) -> None:
    path = verified_file(store, blob.digest, tmp_path / "cache", _Count())
    times = path.stat()
    path.write_bytes(b"weightz" * 1000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(IntegrityError, match="is damaged") as caught:
        verified_file(store, blob.digest, tmp_path / "cache", _Count())
    assert caught.value.details["expected"] == blob.digest


def test_a_store_elsewhere_is_copied_once_and_a_damaged_copy_again(tmp_path: Path) -> None:
    store = BlobStore("memory://atoll-local-test")
    try:
        blob = store.put_bytes(b"far away" * 100)
        path = verified_file(store, blob.digest, tmp_path / "cache", _Count())
        assert path.read_bytes() == b"far away" * 100
        count = _Count()
        assert verified_file(store, blob.digest, tmp_path / "cache", count) == path
        assert count.checks == 0
        path.write_bytes(b"damaged!" * 100)
        assert verified_file(store, blob.digest, tmp_path / "cache", count).read_bytes() == b"far away" * 100
    finally:
        fsspec.filesystem("memory").rm("/atoll-local-test", recursive=True)
