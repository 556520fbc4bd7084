"""Sealed blobs: bytes encrypted at rest under a data key, read by range, stored in any blob store.

A sealed blob is a header of 40 bytes (magic 8, size of a chunk 4, zero 4, key's name 8, salt 16) and the plain bytes in
chunks, each AES-256-GCM (NIST SP 800-38D) with its tag of 16 bytes. The blob's own key is HKDF-SHA256 (RFC 5869) of
the data key and the salt, so a chunk's number can be its nonce. Header, number and whether it is the last are the
associated data: chunks that are moved, cut off, repeated or taken from another blob do not open.

The blob's digest is that of the sealed bytes, as of every blob: storing, fetching, verifying and collecting need no
key. That a blob is sealed is told by what refers to it, never guessed from its bytes. The salt is made of the data key
and the plain digest, where that is known before: equal files of one project are one blob, of two projects never.
It does not know where data keys come from.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from atoll.core.blobs import CHUNK_BYTES, Blob, BlobStore, digest_of_file
from atoll.core.errors import IntegrityError, Invalid, TooLarge
from atoll.core.files import replace_file

MAGIC = b"ATLSEAL\x01"
KEY_BYTES = 32
NAME_BYTES = 8
SALT_BYTES = 16
TAG_BYTES = 16
HEADER_BYTES = len(MAGIC) + 8 + NAME_BYTES + SALT_BYTES
PLAIN_CHUNK_BYTES = 64 << 10
PLAIN_CHUNK_BYTES_MAX = 16 << 20
UPLOAD_BYTES = 8 << 20
_INFO = b"atoll sealed blob"


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    """The key of one project's uploads."""

    value: bytes

    def __post_init__(self) -> None:
        assert len(self.value) == KEY_BYTES

    @property
    def name(self) -> bytes:
        """Tells keys apart without telling the key."""
        return hashlib.sha256(b"atoll data key" + self.value).digest()[:NAME_BYTES]

    def salt_of(self, plain_digest: str) -> bytes:
        """The salt of known bytes: the same each time, and of no use to whoever lacks the key."""
        return hmac.digest(self.value, plain_digest.encode(), "sha256")[:SALT_BYTES]


def seal(
    chunks: Iterable[bytes], key: DataKey, salt: bytes = b"", chunk_bytes: int = PLAIN_CHUNK_BYTES
) -> Iterator[bytes]:
    """The sealed form of the plain bytes in `chunks`, piece by piece; a random salt unless one is given."""
    assert 0 < chunk_bytes <= PLAIN_CHUNK_BYTES_MAX
    header = MAGIC + chunk_bytes.to_bytes(4, "big") + bytes(4) + key.name + (salt or os.urandom(SALT_BYTES))
    cipher = _cipher(header, key)
    yield header
    number = 0
    held: bytes | None = None
    for piece in _cut(chunks, chunk_bytes):
        if held is not None:
            yield cipher.encrypt(_nonce(number), held, _bound(header, number, is_last=False))
            number += 1
        held = piece
    yield cipher.encrypt(_nonce(number), held or b"", _bound(header, number, is_last=True))


def sealed_bytes(plain_bytes: int, chunk_bytes: int = PLAIN_CHUNK_BYTES) -> int:
    """How many bytes so many plain bytes become."""
    return HEADER_BYTES + plain_bytes + TAG_BYTES * max(1, -(-plain_bytes // chunk_bytes))


class Unsealed(io.RawIOBase):
    """The plain bytes of a sealed stream: seekable, each chunk verified before a byte of it is given.

    Raises IntegrityError for bytes that were changed, moved or cut off, or sealed under none of `keys`.
    """

    def __init__(self, sealed: IO[bytes], keys: Sequence[DataKey], name: str = "blob") -> None:
        self._sealed = sealed
        self._name = name
        self._header = sealed.read(HEADER_BYTES)
        self._chunk_bytes = int.from_bytes(self._header[8:12], "big")
        if len(self._header) != HEADER_BYTES or not self._header.startswith(MAGIC) or not self._is_sane():
            raise IntegrityError(f"{name} is not sealed", hint="it was stored before, or is damaged")
        wanted = self._header[16 : 16 + NAME_BYTES]
        key = next((k for k in keys if hmac.compare_digest(k.name, wanted)), None)
        if key is None:
            hint = "bring back the centre's key it was sealed under"
            raise IntegrityError(f"{name} is sealed under another key", hint=hint)
        self._cipher = _cipher(self._header, key)
        body_bytes = sealed.seek(0, os.SEEK_END) - HEADER_BYTES
        self._chunks = -(-body_bytes // (self._chunk_bytes + TAG_BYTES))
        self.size_bytes = body_bytes - TAG_BYTES * self._chunks
        last_bytes = body_bytes - (self._chunks - 1) * (self._chunk_bytes + TAG_BYTES)
        if last_bytes < TAG_BYTES or (last_bytes == TAG_BYTES and self._chunks > 1):  # no whole last chunk to verify
            raise self._damaged(self._chunks - 1)
        self._place = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size_bytes}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        number, offset = divmod(self._place, self._chunk_bytes)
        if self._place >= self.size_bytes:
            if self.size_bytes == 0:
                self._chunk(0)  # that there is nothing is verified too
            return 0
        data = self._chunk(number)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._sealed.close()
        super().close()

    def _chunk(self, number: int) -> bytes:
        if self._held[0] != number:
            self._sealed.seek(HEADER_BYTES + number * (self._chunk_bytes + TAG_BYTES))
            sealed = _read_full(self._sealed, self._chunk_bytes + TAG_BYTES)
            bound = _bound(self._header, number, is_last=number == self._chunks - 1)
            try:
                self._held = (number, self._cipher.decrypt(_nonce(number), sealed, bound))
            except InvalidTag:
                raise self._damaged(number) from None
        return self._held[1]

    def _is_sane(self) -> bool:
        return 0 < self._chunk_bytes <= PLAIN_CHUNK_BYTES_MAX

    def _damaged(self, number: int) -> IntegrityError:
        return IntegrityError(f"{self._name} is damaged in chunk {number}", hint="upload it again", chunk=number)


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A sealed blob as what refers to it tells it: `digest` names it, size and digest of the plain bytes beside."""

    digest: str
    size_bytes: int
    plain_digest: str


class SealedBlobs:
    """The uploads of one project in a blob store. `keys`: the project's data keys, newest first."""

    def __init__(self, blobs: BlobStore, keys: Sequence[DataKey]) -> None:
        if not keys:
            raise Invalid("no data key is known", field="key", hint="the agent gives a task its project's key")
        self._blobs = blobs
        self._keys = keys

    def put_file(self, path: Path) -> SealedBlob:
        """Seal the file at `path` and store it; the same file again is the same blob."""
        plain_digest = digest_of_file(path)
        with path.open("rb") as file:
            blob = self._stored(iter(lambda: file.read(CHUNK_BYTES), b""), self._keys[0].salt_of(plain_digest))
        return SealedBlob(blob.digest, path.stat().st_size, plain_digest)

    def put_stream(self, chunks: Iterable[bytes], bytes_max: int) -> SealedBlob:
        """Seal bytes as they come; no plain byte is written anywhere. TooLarge beyond `bytes_max`."""
        counted = _Counted(chunks, bytes_max)
        blob = self._stored(counted, b"")
        return SealedBlob(blob.digest, counted.size_bytes, f"sha256:{counted.checksum.hexdigest()}")

    def is_current(self, digest: str) -> bool:
        """Whether a blob is sealed under the newest key; NotFound when it is not there."""
        with self._blobs.open(digest) as stream:
            header = _read_full(stream, HEADER_BYTES)
        return header[16 : 16 + NAME_BYTES] == self._keys[0].name

    def reseal(self, digest: str) -> SealedBlob:
        """The bytes of a sealed blob, sealed under the newest key; the same blob each time. Raises as `open`."""
        salt = self._keys[0].salt_of(f"sealed before as {digest}")
        with self.open(digest) as plain:
            counted = _Counted(iter(lambda: plain.read(CHUNK_BYTES), b""), sys.maxsize)
            blob = self._stored(counted, salt)
        return SealedBlob(blob.digest, counted.size_bytes, f"sha256:{counted.checksum.hexdigest()}")

    def open(self, digest: str) -> IO[bytes]:
        """The plain bytes, seekable; NotFound or IntegrityError."""
        raw = Unsealed(self._blobs.open(digest), self._keys, f"blob {digest}")
        return io.BufferedReader(raw, PLAIN_CHUNK_BYTES)

    def fetch(self, digest: str, path: Path) -> Path:
        """The plain bytes as a file, readable by its owner only, there when whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.open(digest) as source, replace_file(path, mode=0o600) as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
        return path

    def _stored(self, chunks: Iterable[bytes], salt: bytes) -> Blob:
        upload = self._blobs.upload()
        checksum = hashlib.sha256()
        try:
            for part in _cut(seal(chunks, self._keys[0], salt), UPLOAD_BYTES):
                checksum.update(part)
                upload.append(upload.size_bytes, part)
        except TooLarge:
            upload.abort()
            raise
        return upload.commit(f"sha256:{checksum.hexdigest()}")


class _Counted:
    """Chunks on their way, counted, summed and bounded."""

    def __init__(self, chunks: Iterable[bytes], bytes_max: int) -> None:
        self._chunks = chunks
        self._bytes_max = bytes_max
        self.size_bytes = 0
        self.checksum = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size_bytes += len(chunk)
            if self.size_bytes > self._bytes_max:
                raise TooLarge(f"a file may have {self._bytes_max} bytes", hint="split it")
            self.checksum.update(chunk)
            yield chunk


def _cipher(header: bytes, key: DataKey) -> AESGCM:
    derived = HKDF(SHA256(), KEY_BYTES, salt=header[-SALT_BYTES:], info=_INFO).derive(key.value)
    return AESGCM(derived)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _bound(header: bytes, number: int, *, is_last: bool) -> bytes:
    return header + number.to_bytes(8, "big") + bytes([is_last])


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`; only the last is shorter, and none is empty."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _read_full(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
