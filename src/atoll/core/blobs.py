"""Content-addressed blobs on any fsspec filesystem: the name of a blob is the SHA-256 of its bytes.

A blob is visible only when whole: bytes go to `partial/`, are checksummed while written, and are renamed to
`sha256/ab/cdef…`. Reading verifies. Uploads and downloads resume where they broke off.
Writers of the same bytes never disturb each other. The store does not know what refers to a blob:
`collect` is given the living digests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from atoll.core.errors import Conflict, IntegrityError, Invalid, NotFound
from atoll.core.files import disk_full_named, replace_file

CHUNK_BYTES = 1 << 20
FRESH_S = 3_600.0
"""A blob younger than this is not written again to keep it from being collected."""
FINISHED = "finished"
"""Name of what is left of an upload that became a blob: its digest."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOLDER = re.compile(r"[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob: `digest` is "sha256:" and 64 hex digits."""

    digest: str
    size_bytes: int


def digest_of(data: bytes) -> str:
    """The name `data` has as a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """The name the file at `path` has as a blob."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class BlobStore:
    """Blobs under `url`: a folder, or any URL fsspec knows (`s3://bucket/prefix`)."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def path_of(self, digest: str) -> str:
        """Where `digest` lives; raises Invalid for anything that is not a digest."""
        if not _DIGEST.fullmatch(digest):
            raise Invalid(f"{digest!r} is not a blob digest", field="digest", hint="sha256: and 64 hex digits")
        name = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{name[:2]}/{name[2:]}"

    def exists(self, digest: str) -> bool:
        return bool(self._fs.exists(self.path_of(digest)))

    def size_bytes(self, digest: str) -> int:
        """Size of a stored blob; NotFound when absent."""
        try:
            return int(self._fs.size(self.path_of(digest)))
        except FileNotFoundError as error:
            raise _absent(digest, self.url) from error

    def local_path(self, digest: str) -> Path | None:
        """The file itself where the store is a local folder (map it, never write it), else None."""
        path = self.path_of(digest)
        return Path(path) if self._is_local and self._fs.exists(path) else None

    def put_bytes(self, data: bytes) -> Blob:
        """Store `data`; storing the same bytes again is free."""
        blob = Blob(digest_of(data), len(data))
        if not self._is_fresh(blob.digest):
            self._write(blob.digest, iter([data]))
        return blob

    def put_file(self, path: Path) -> Blob:
        """Store the file at `path`; raises IntegrityError when it changes while it is read."""
        blob = Blob(digest_of_file(path), path.stat().st_size)
        if not self._is_fresh(blob.digest):
            with path.open("rb") as file:
                self._write(blob.digest, iter(lambda: file.read(CHUNK_BYTES), b""))
        return blob

    def open(self, digest: str) -> IO[bytes]:
        """The blob as a readable, seekable, unverified stream; NotFound when absent."""
        try:
            stream: IO[bytes] = self._fs.open(self.path_of(digest), "rb")
        except FileNotFoundError as error:
            raise _absent(digest, self.url) from error
        return stream

    def read(self, digest: str) -> bytes:
        """All bytes of a (small) blob, verified."""
        with self.open(digest) as stream:
            data = stream.read()
        if digest_of(data) != digest:
            raise _corrupt(digest, self.url)
        return data

    def fetch(self, digest: str, path: Path) -> Path:
        """Copy the blob to `path`, verified; goes on from `path`.part if an earlier try broke off.

        Of several fetching to one `path` at once, in any process, one copies and the others wait for it.
        """
        part = path.with_name(path.name + ".part")
        self.size_bytes(digest)
        with disk_full_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(part) as target:
                if path.exists() and digest_of_file(path) == digest:
                    part.unlink()
                    return path
                resumed = target.seek(0, os.SEEK_END) > 0
                self._append(digest, target)
                if resumed and digest_of_file(part) != digest:  # what was there before may be to blame
                    target.truncate(0)
                    self._append(digest, target)
                if digest_of_file(part) != digest:
                    part.unlink()
                    raise _corrupt(digest, self.url)
                os.replace(part, path)
        return path

    def _append(self, digest: str, target: IO[bytes]) -> None:
        """The rest of the blob, from where `target` ends."""
        with self.open(digest) as source:
            source.seek(target.seek(0, os.SEEK_END))
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
        target.flush()
        os.fsync(target.fileno())

    def verify(self, digest: str) -> None:
        """Read the whole blob and raise IntegrityError unless its bytes match its name."""
        checksum = hashlib.sha256()
        with self.open(digest) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                checksum.update(chunk)
        if "sha256:" + checksum.hexdigest() != digest:
            raise _corrupt(digest, self.url)

    def upload(self, upload_id: str | None = None) -> Upload:
        """A new resumable upload, or an earlier one by its id."""
        return Upload(self, upload_id or uuid.uuid4().hex)

    def note_holder(self, digest: str, holder: str) -> None:
        """Remember for as long as broken uploads are kept that `holder` (a plain name) has the bytes of `digest`."""
        path = self._held(digest, holder)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, b"")

    def is_held(self, digest: str, holder: str) -> bool:
        """Whether `holder` showed lately that it has the bytes of `digest`."""
        return bool(self._fs.exists(self._held(digest, holder)))

    def _held(self, digest: str, holder: str) -> str:
        assert _HOLDER.fullmatch(holder), holder
        name = "".join(self.path_of(digest).rsplit("/", 2)[1:])
        return f"{self._root}/partial/held-{holder}/{name}"

    def digests(self) -> Iterator[str]:
        """Every stored digest."""
        for path in self._fs.find(f"{self._root}/sha256"):
            folder, name = str(path).rsplit("/", 2)[-2:]
            if _DIGEST.fullmatch(f"sha256:{folder}{name}"):
                yield f"sha256:{folder}{name}"

    def delete(self, digest: str) -> None:
        """Delete a blob at once; whoever calls knows that nothing refers to it. Nothing happens when it is absent."""
        try:
            self._fs.rm_file(self.path_of(digest))
        except FileNotFoundError:
            return

    def collect(self, living: Set[str], *, now: float, grace_s: float = 86_400.0) -> list[str]:
        """Delete blobs and broken uploads that are not in `living` and older than `grace_s`; return their digests.

        The grace keeps a blob that was stored but is not referred to yet. `now` is Unix time in seconds.
        """
        dead = [d for d in self.digests() if d not in living and self._age_s(self.path_of(d), now) > grace_s]
        for digest in dead:
            self._fs.rm_file(self.path_of(digest))
        for path in self._fs.find(f"{self._root}/partial") + self._broken_writes():
            if self._age_s(str(path), now) > grace_s:
                self._fs.rm_file(path)
        return dead

    def _broken_writes(self) -> list[str]:
        """Temporary files among the blobs, of writers that were killed."""
        return [p for p in self._fs.find(f"{self._root}/sha256") if str(p).rsplit("/", 1)[-1].startswith(".")]

    def _is_fresh(self, digest: str) -> bool:
        """Whether the blob is there and will not be collected soon; where that is cheap, it is made so."""
        path = self.path_of(digest)
        try:
            if self._is_local:
                os.utime(path)
                return True
            return self._age_s(path, time.time()) < FRESH_S
        except FileNotFoundError:
            return False

    def _age_s(self, path: str, now: float) -> float:
        modified = self._fs.modified(path)
        return now - float(modified.timestamp())

    def _write(self, digest: str, chunks: Iterator[bytes]) -> None:
        target = self.path_of(digest)
        if self._is_local:
            self._write_local(digest, Path(target), chunks)
            return
        temporary = f"{self._root}/partial/{uuid.uuid4().hex}"
        with self._fs.open(temporary, "wb") as file:
            is_whole = _copy_checked(chunks, file, digest)
        if not is_whole:
            self._fs.rm_file(temporary)
            raise _corrupt(digest, self.url)
        self._fs.mv(temporary, target)

    def _write_local(self, digest: str, target: Path, chunks: Iterator[bytes]) -> None:
        with disk_full_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(target) as file:
            if not _copy_checked(chunks, file, digest):
                raise _corrupt(digest, self.url)


class Upload:
    """A resumable upload: `append(offset, data)` until done, then `commit(digest)`.

    Parts are separate objects named by offset, so a part is either there or not, on any filesystem.
    """

    def __init__(self, store: BlobStore, upload_id: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", upload_id):
            raise Invalid(f"{upload_id!r} is not an upload id", field="upload", hint="32 hex digits")
        self.id = upload_id
        self._store = store
        self._folder = f"{store._root}/partial/upload-{upload_id}"

    @property
    def size_bytes(self) -> int:
        """Bytes received in one piece from the start: where to go on."""
        end = 0
        for offset, length in self._parts():
            if offset != end:
                break
            end += length
        return end

    def append(self, offset: int, data: bytes) -> int:
        """Store `data` at `offset`, return the new size; Conflict when `offset` is not the present size."""
        size_bytes = self.size_bytes
        if offset != size_bytes:
            raise Conflict(f"upload {self.id} has {size_bytes} bytes, not {offset}", hint=f"go on from {size_bytes}")
        fs = self._store._fs
        fs.makedirs(self._folder, exist_ok=True)
        path = f"{self._folder}/{offset:020d}"
        with disk_full_named(Path(path)):
            fs.pipe_file(path + ".part", data)
            fs.mv(path + ".part", path)
        return offset + len(data)

    def commit(self, digest: str) -> Blob:
        """Join the parts into the blob `digest`; IntegrityError (and the parts are dropped) if they do not match.

        The parts must have the bytes even where the blob is there: who does not have them gets no blob. Finishing
        again is answered alike for as long as broken uploads are kept.
        """
        if self._was_finished_as(digest):
            return Blob(digest, self._store.size_bytes(digest))
        try:
            if self._store._is_fresh(digest):
                self._require(digest)
            else:
                self._store._write(digest, self._chunks())
        except IntegrityError:
            mismatch = self._mismatch(digest)
            self.abort()
            raise mismatch from None
        self.abort()
        self._finish(digest)
        return Blob(digest, self._store.size_bytes(digest))

    def abort(self) -> None:
        """Forget the upload."""
        if self._store._fs.exists(self._folder):
            self._store._fs.rm(self._folder, recursive=True)

    def _require(self, digest: str) -> None:
        if self._digest() != digest:
            raise self._mismatch(digest)

    def _digest(self) -> str:
        checksum = hashlib.sha256()
        for chunk in self._chunks():
            checksum.update(chunk)
        return f"sha256:{checksum.hexdigest()}"

    def _mismatch(self, digest: str) -> IntegrityError:
        found, size_bytes = self._digest(), self.size_bytes
        words = f"upload {self.id} does not have the bytes of {digest}: the {size_bytes} it has are those of {found}"
        return IntegrityError(words, hint="begin another and send them again", expected=digest, found=found)

    def _finish(self, digest: str) -> None:
        """Remember what it became: the answer may be lost on its way, and then it is finished again."""
        fs = self._store._fs
        fs.makedirs(self._folder, exist_ok=True)
        fs.pipe_file(f"{self._folder}/{FINISHED}", digest.encode())

    def _was_finished_as(self, digest: str) -> bool:
        try:
            return bool(self._store._fs.cat_file(f"{self._folder}/{FINISHED}") == digest.encode())
        except FileNotFoundError:
            return False

    def _parts(self) -> list[tuple[int, int]]:
        if not self._store._fs.exists(self._folder):
            return []
        self._store._fs.invalidate_cache(self._folder)
        names = self._store._fs.ls(self._folder, detail=True)
        sizes = {str(n["name"]).rsplit("/", 1)[-1]: int(n["size"]) for n in names}
        return sorted((int(name), size) for name, size in sizes.items() if name.isdigit())

    def _chunks(self) -> Iterator[bytes]:
        for offset, _ in self._parts():
            with self._store._fs.open(f"{self._folder}/{offset:020d}", "rb") as part:
                while chunk := part.read(CHUNK_BYTES):
                    yield chunk


def _copy_checked(chunks: Iterator[bytes], target: IO[bytes], digest: str) -> bool:
    checksum = hashlib.sha256()
    for chunk in chunks:
        checksum.update(chunk)
        target.write(chunk)
    return "sha256:" + checksum.hexdigest() == digest


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The file at `part`, to append to, locked; opened anew when another moved it into its place meanwhile."""
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_same = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                continue
            if is_same:
                yield file
                return


def _absent(digest: str, url: str) -> NotFound:
    return NotFound(f"blob {digest} is not in {url}", hint="it was collected, or stored in another blob store")


def _corrupt(digest: str, url: str) -> IntegrityError:
    return IntegrityError(
        f"blob {digest} in {url} does not match its checksum", hint="delete it and import it again", digest=digest
    )
