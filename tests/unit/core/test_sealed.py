"""Sealed blobs give back what went in, by any range, and nothing that was touched."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.blobs import BlobStore, digest_of
from atoll.core.errors import IntegrityError, Invalid, NotFound, TooLarge
from atoll.core.sealed import HEADER_BYTES, TAG_BYTES, DataKey, SealedBlobs, Unsealed, seal, sealed_bytes
from atoll.governance.data_keys import DataKeys, from_text, to_text

KEY, OTHER = DataKey(bytes(range(32))), DataKey(bytes(32))
CHUNK = 16
PLAIN = bytes(range(100))


def closed(plain: bytes, key: DataKey = KEY, chunk_bytes: int = CHUNK) -> bytes:
    return b"".join(seal([plain], key, chunk_bytes=chunk_bytes))


def read(sealed: bytes, *keys: DataKey) -> bytes:
    return Unsealed(io.BytesIO(sealed), keys or [KEY]).read()


@settings(deadline=None)
@given(plain=st.binary(max_size=200), pieces=st.integers(1, 50), chunk=st.integers(1, 64), data=st.data())
def test_any_range_comes_back(plain: bytes, pieces: int, chunk: int, data: st.DataObject) -> None:
    parts = [plain[i : i + pieces] for i in range(0, len(plain), pieces)]
    sealed = b"".join(seal(parts, KEY, chunk_bytes=chunk))
    assert len(sealed) == sealed_bytes(len(plain), chunk)
    stream = Unsealed(io.BytesIO(sealed), [OTHER, KEY])
    assert stream.size_bytes == len(plain) and stream.read() == plain
    start = data.draw(st.integers(0, len(plain) + 5))
    length = data.draw(st.integers(0, len(plain) + 5))
    stream.seek(start)
    assert io.BufferedReader(stream).read(length) == plain[start : start + length]


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, sealed_bytes(len(PLAIN), CHUNK) - 1), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(place: int, bit: int) -> None:
    sealed = bytearray(closed(PLAIN))
    sealed[place] ^= 1 << bit
    with pytest.raises(IntegrityError):
        read(bytes(sealed))


@given(cut=st.integers(0, sealed_bytes(len(PLAIN), CHUNK) - 1))
@settings(deadline=None, max_examples=200)
def test_what_is_cut_off_is_noticed(cut: int) -> None:
    with pytest.raises(IntegrityError):
        read(closed(PLAIN)[:cut])


def test_chunks_that_change_places_or_come_from_another_blob_do_not_open() -> None:
    sealed, another = closed(PLAIN), closed(PLAIN[::-1])
    step = CHUNK + TAG_BYTES
    first, second = (slice(HEADER_BYTES + n * step, HEADER_BYTES + (n + 1) * step) for n in (0, 1))
    swapped = sealed[:HEADER_BYTES] + sealed[second] + sealed[first] + sealed[second.stop :]
    foreign = sealed[:HEADER_BYTES] + another[first] + sealed[first.stop :]
    longer = sealed + sealed[-(len(PLAIN) % CHUNK + TAG_BYTES) :]
    for wrong in (swapped, foreign, longer, another[:HEADER_BYTES] + sealed[HEADER_BYTES:]):
        with pytest.raises(IntegrityError):
            read(wrong)


def test_a_good_chunk_is_read_though_another_is_damaged() -> None:
    sealed = bytearray(closed(PLAIN))
    sealed[-1] ^= 1
    stream = io.BufferedReader(Unsealed(io.BytesIO(bytes(sealed)), [KEY]), CHUNK)
    assert stream.read(CHUNK) == PLAIN[:CHUNK]
    with pytest.raises(IntegrityError, match="damaged in chunk 6"):
        stream.read()


def test_another_key_or_plain_bytes_are_said_to_be_so() -> None:
    with pytest.raises(IntegrityError, match="under another key"):
        read(closed(PLAIN), OTHER)
    for plain in (b"", b"plain", os.urandom(200)):
        with pytest.raises(IntegrityError, match="is not sealed"):
            read(plain)


def test_the_empty_file_is_sealed_too() -> None:
    assert read(closed(b"")) == b"" and len(closed(b"")) == HEADER_BYTES + TAG_BYTES


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def test_uploads_are_stored_sealed_and_named_by_their_sealed_bytes(blobs: BlobStore, tmp_path: Path) -> None:
    text = b"a very private line\n" * 20_000
    (tmp_path / "x.txt").write_bytes(text)
    ours = SealedBlobs(blobs, [KEY])
    blob = ours.put_file(tmp_path / "x.txt")
    assert blob.size_bytes == len(text) and blob.plain_digest == digest_of(text)
    stored = blobs.read(blob.digest)
    assert b"private" not in stored and len(stored) == sealed_bytes(len(text))
    assert ours.put_file(tmp_path / "x.txt") == blob, "the same file of one project is one blob"
    assert SealedBlobs(blobs, [OTHER]).put_file(tmp_path / "x.txt").digest != blob.digest
    assert ours.put_stream([text], 1 << 20).digest != blob.digest
    with ours.open(blob.digest) as stream:
        stream.seek(200_000)
        assert stream.read(10) == text[200_000:200_010]
    target = ours.fetch(blob.digest, tmp_path / "out" / "x.txt")
    assert target.read_bytes() == text and target.stat().st_mode & 0o777 == 0o600


def test_a_stream_is_bounded_and_leaves_nothing_when_it_is_too_long(blobs: BlobStore, tmp_path: Path) -> None:
    ours = SealedBlobs(blobs, [KEY])
    with pytest.raises(TooLarge, match="100 bytes"):
        ours.put_stream([b"x" * 60, b"x" * 60], 100)
    assert not list(blobs.digests()) and not [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]
    with pytest.raises(NotFound):
        ours.open(digest_of(b"absent"))
    with pytest.raises(Invalid, match="no data key"):
        SealedBlobs(blobs, [])


def test_each_project_has_a_key_of_its_own_and_old_keys_still_open(blobs: BlobStore) -> None:
    old, new = os.urandom(32), os.urandom(32)
    red, blue = DataKeys([old]).of("red-uid"), DataKeys([old]).of("blue-uid")
    assert red != blue and DataKeys([old]).of("red-uid") == red
    blob = SealedBlobs(blobs, red).put_stream([b"mine"], 100)
    with SealedBlobs(blobs, DataKeys([new, old]).of("red-uid")).open(blob.digest) as stream:
        assert stream.read() == b"mine"
    with pytest.raises(IntegrityError, match="another key"):
        SealedBlobs(blobs, blue).open(blob.digest)


def test_keys_travel_as_text_and_are_never_shown() -> None:
    keys = DataKeys([bytes(32), bytes(range(32))]).of("uid")
    assert from_text(to_text(keys)) == keys
    assert keys[0].value.hex() not in repr(keys[0])
    for wrong in ("", "abc", "YWJj", to_text(keys) + ","):
        with pytest.raises(Invalid, match="holds no key") as refused:
            from_text(wrong)
        assert not wrong or wrong not in str(refused.value)
