"""Uploads are read by what their references say of them, and stored sealed where a key is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, Invalid
from atoll.core.sealed import DataKey, SealedBlobs
from atoll.governance.uploads import Uploads

KEY, OTHER = DataKey(bytes(range(32))), DataKey(bytes(32))
PLAIN = b"what nobody else may read\n" * 10_000


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_both_kinds_open_and_are_fetched(blobs: BlobStore, tmp_path: Path, is_sealed: bool) -> None:
    digest = (
        SealedBlobs(blobs, [KEY]).put_stream([PLAIN], 1 << 20).digest if is_sealed else blobs.put_bytes(PLAIN).digest
    )
    uploads = Uploads(blobs, [KEY])
    with uploads.open(digest, is_sealed=is_sealed) as stream:
        assert stream.read() == PLAIN
    for _ in range(2):
        assert uploads.fetch(digest, tmp_path / "file", is_sealed=is_sealed).read_bytes() == PLAIN


def test_without_the_key_a_sealed_one_does_not_open(blobs: BlobStore) -> None:
    digest = SealedBlobs(blobs, [KEY]).put_stream([PLAIN], 1 << 20).digest
    with pytest.raises(Invalid, match="no data key"):
        Uploads(blobs).open(digest, is_sealed=True)
    with pytest.raises(IntegrityError, match="under another key"):
        Uploads(blobs, [OTHER]).open(digest, is_sealed=True)


def test_a_file_is_stored_sealed_once_and_plain_only_without_a_key(blobs: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(PLAIN)
    made = Uploads(blobs, [KEY]).put_file(path)
    assert made == Uploads(blobs, [KEY]).put_file(path)
    assert made.sealed and made.size_bytes == len(PLAIN) and PLAIN[:25] not in blobs.read(made.digest)
    plain = Uploads(blobs).put_file(path)
    assert not plain.sealed and blobs.read(plain.digest) == PLAIN
