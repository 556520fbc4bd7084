"""Uploads as tasks read them: by the project's key where they are sealed, as they stand where they were stored before.

Which of the two an upload is, is told by what refers to it, beside its digest. Who may read it is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atoll.core.blobs import BlobStore
from atoll.core.sealed import DataKey, SealedBlobs


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was stored: its blob, the size people see, and whether the blob is sealed."""

    digest: str
    size_bytes: int
    sealed: bool


class Uploads:
    """The uploads of one project in a blob store. Without `keys` only those that are not sealed open."""

    def __init__(self, blobs: BlobStore, keys: Sequence[DataKey] = ()) -> None:
        self._blobs = blobs
        self._keys = keys

    def open(self, digest: str, *, is_sealed: bool) -> IO[bytes]:
        """The plain bytes, seekable; NotFound, IntegrityError, or Invalid when there is no key."""
        return self._sealed().open(digest) if is_sealed else self._blobs.open(digest)

    def fetch(self, digest: str, path: Path, *, is_sealed: bool) -> Path:
        """The plain bytes as a file at `path`, which is for this upload alone; raises as `open`."""
        if not is_sealed:
            return self._blobs.fetch(digest, path)
        return path if path.exists() else self._sealed().fetch(digest, path)

    def put_file(self, path: Path) -> Stored:
        """Store the file at `path`, sealed where a key is known; the same file again is the same blob."""
        if not self._keys:
            blob = self._blobs.put_file(path)
            return Stored(blob.digest, blob.size_bytes, sealed=False)
        made = self._sealed().put_file(path)
        return Stored(made.digest, made.size_bytes, sealed=True)

    def is_current(self, digest: str) -> bool:
        """Whether a sealed upload is sealed under the newest key; NotFound when it is not there."""
        return self._sealed().is_current(digest)

    def reseal(self, digest: str) -> Stored:
        """A sealed upload under the newest key; asked again, the same blob. Raises as `open`."""
        made = self._sealed().reseal(digest)
        return Stored(made.digest, made.size_bytes, sealed=True)

    def _sealed(self) -> SealedBlobs:
        return SealedBlobs(self._blobs, self._keys)
