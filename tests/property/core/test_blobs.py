"""However an upload is cut up and interrupted, and wherever a download broke off, the bytes are the bytes."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.blobs import BlobStore, digest_of
from atoll.core.errors import Conflict

DATA = st.binary(max_size=400)


@given(DATA, st.lists(st.integers(0, 450), max_size=8))
@settings(deadline=None)
def test_an_upload_in_any_pieces_with_any_repeats_is_whole(data: bytes, claims: list[int]) -> None:
    """A client that lost count says at which offset it thinks it is; it is told, and goes on from there."""
    store = BlobStore(f"memory://{uuid.uuid4().hex}")
    upload = store.upload()
    for claim in claims:
        size = upload.size_bytes
        piece = data[size : size + 60]
        if claim % 7 and claim != size:
            with pytest.raises(Conflict):
                upload.append(claim, piece)
        elif piece:
            assert store.upload(upload.id).append(size, piece) == size + len(piece)
    upload.append(upload.size_bytes, data[upload.size_bytes :])
    blob = upload.commit(digest_of(data))
    assert store.read(blob.digest) == data


@given(DATA, st.binary(max_size=500), st.integers(0, 400))
@settings(deadline=None, max_examples=60)
def test_a_fetch_makes_good_whatever_an_earlier_try_left(data: bytes, garbage: bytes, kept: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = BlobStore(f"{name}/blobs")
        blob = store.put_bytes(data)
        target = Path(name) / "target"
        Path(name, "target.part").write_bytes(data[:kept] + garbage)
        assert store.fetch(blob.digest, target).read_bytes() == data
        assert sorted(p.name for p in Path(name).iterdir()) == ["blobs", "target"]
