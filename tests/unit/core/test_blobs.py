"""Blobs: named by their bytes, whole or absent, resumed where they broke off, collected with grace."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

import pytest

from atoll.core.blobs import FRESH_S, BlobStore, Upload, digest_of, digest_of_file
from atoll.core.errors import Conflict, IntegrityError, Invalid, NotFound

DATA = bytes(range(256)) * 5000
DAY_S = 86_400.0


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A store in a folder, and one on another fsspec filesystem."""
    return BlobStore(str(tmp_path / "blobs") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def age(store: BlobStore, digest: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(store.path_of(digest), (then, then))


def test_bytes_and_files_are_stored_under_their_checksum(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    blob = blobs.put_file(source)
    assert blob == blobs.put_bytes(DATA)
    assert blob.digest == digest_of(DATA) == digest_of_file(source)
    assert blob.size_bytes == len(DATA) == blobs.size_bytes(blob.digest)
    assert blobs.read(blob.digest) == DATA
    assert list(blobs.digests()) == [blob.digest]
    blobs.verify(blob.digest)


def test_an_empty_blob_is_a_blob(blobs: BlobStore) -> None:
    assert blobs.read(blobs.put_bytes(b"").digest) == b""


def test_an_absent_blob_is_named(blobs: BlobStore, tmp_path: Path) -> None:
    digest = digest_of(b"nothing")
    assert not blobs.exists(digest)
    assert blobs.local_path(digest) is None
    for use in (blobs.size_bytes, blobs.open, blobs.read, blobs.verify):
        with pytest.raises(NotFound, match=digest):
            use(digest)
    with pytest.raises(NotFound, match=digest):
        blobs.fetch(digest, tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "sha256:", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32])
def test_what_is_no_digest_never_becomes_a_path(folder: BlobStore, name: str) -> None:
    with pytest.raises(Invalid, match="not a blob digest"):
        folder.exists(name)


def test_a_folder_store_hands_out_the_file_itself(folder: BlobStore) -> None:
    blob = folder.put_bytes(DATA)
    path = folder.local_path(blob.digest)
    assert path is not None
    assert path.read_bytes() == DATA


def test_a_damaged_blob_is_never_handed_out(folder: BlobStore, tmp_path: Path) -> None:
    blob = folder.put_bytes(DATA)
    Path(folder.path_of(blob.digest)).write_bytes(DATA[:-1] + b"x")
    for read in (folder.read, folder.verify, lambda digest: folder.fetch(digest, tmp_path / "target")):
        with pytest.raises(IntegrityError, match=blob.digest):
            read(blob.digest)
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "target.part").exists()


def test_fetch_copies_and_verifies(blobs: BlobStore, tmp_path: Path) -> None:
    blob = blobs.put_bytes(DATA)
    target = tmp_path / "deep" / "target"
    assert blobs.fetch(blob.digest, target).read_bytes() == DATA
    assert blobs.fetch(blob.digest, target).read_bytes() == DATA
    assert os.listdir(target.parent) == ["target"]


def test_fetch_goes_on_where_it_broke_off(folder: BlobStore, tmp_path: Path) -> None:
    blob = folder.put_bytes(DATA)
    (tmp_path / "target.part").write_bytes(DATA[:100_000])
    before = (tmp_path / "target.part").stat().st_ino
    folder.fetch(blob.digest, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == DATA
    assert (tmp_path / "target").stat().st_ino == before


@pytest.mark.parametrize("left", [b"\0" * 100_000, DATA + b"more"])
def test_a_spoilt_part_is_fetched_anew(folder: BlobStore, tmp_path: Path, left: bytes) -> None:
    blob = folder.put_bytes(DATA)
    (tmp_path / "target.part").write_bytes(left)
    assert folder.fetch(blob.digest, tmp_path / "target").read_bytes() == DATA


def test_many_fetch_to_one_path_at_once(folder: BlobStore, tmp_path: Path) -> None:
    blob = folder.put_bytes(DATA * 4)
    ready, errors = threading.Barrier(5), []

    def fetch() -> None:
        ready.wait(60)
        try:
            BlobStore(folder.url).fetch(blob.digest, tmp_path / "target")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert (tmp_path / "target").read_bytes() == DATA * 4
    assert not (tmp_path / "target.part").exists()


def test_an_upload_goes_on_where_it_broke_off(blobs: BlobStore) -> None:
    upload = blobs.upload()
    upload.append(0, DATA[:1000])
    again = blobs.upload(upload.id)
    assert again.size_bytes == 1000
    assert again.append(1000, DATA[1000:]) == len(DATA)
    blob = again.commit(digest_of(DATA))
    assert blob.size_bytes == len(DATA)
    assert blobs.read(blob.digest) == DATA
    assert blobs.upload(upload.id).size_bytes == 0


def test_a_finished_upload_can_be_finished_again(blobs: BlobStore) -> None:
    """The answer to the first finish may have been lost on its way."""
    upload = blobs.upload()
    upload.append(0, DATA)
    assert upload.commit(digest_of(DATA)) == upload.commit(digest_of(DATA))


def test_who_lacks_the_bytes_gets_no_blob_though_it_is_there(blobs: BlobStore) -> None:
    stored = blobs.put_bytes(DATA)
    nothing, other = blobs.upload(), blobs.upload()
    other.append(0, DATA[:-1] + b"!")
    for upload in (nothing, other):
        with pytest.raises(IntegrityError, match="does not have the bytes"):
            upload.commit(stored.digest)
    assert other.size_bytes == 0 and blobs.read(stored.digest) == DATA
    upload = blobs.upload()
    upload.append(0, DATA)
    assert upload.commit(stored.digest) == stored == blobs.upload(upload.id).commit(stored.digest)
    with pytest.raises(IntegrityError):
        blobs.upload(upload.id).commit(blobs.put_bytes(b"else").digest)


def test_a_part_at_the_wrong_place_is_refused_with_the_right_one(blobs: BlobStore) -> None:
    upload = blobs.upload()
    upload.append(0, DATA[:1000])
    for offset in (0, 999, 1001):
        with pytest.raises(Conflict, match=f"has 1000 bytes, not {offset}"):
            upload.append(offset, b"x")
    assert upload.size_bytes == 1000


def test_an_upload_of_other_bytes_is_refused_and_forgotten(blobs: BlobStore) -> None:
    upload = blobs.upload()
    upload.append(0, DATA)
    with pytest.raises(IntegrityError):
        upload.commit(digest_of(b"else"))
    assert upload.size_bytes == 0
    assert list(blobs.digests()) == []


def test_an_upload_id_cannot_be_a_path(folder: BlobStore) -> None:
    with pytest.raises(Invalid, match="upload id"):
        Upload(folder, "../../etc")


def test_a_part_that_was_not_wholly_written_does_not_count(folder: BlobStore) -> None:
    upload = folder.upload()
    upload.append(0, DATA[:1000])
    partial = Path(folder._root) / "partial" / f"upload-{upload.id}"
    (partial / f"{1000:020d}.part").write_bytes(b"half")
    assert folder.upload(upload.id).size_bytes == 1000


def test_collect_spares_the_living_and_the_young(blobs: BlobStore) -> None:
    living, dead = blobs.put_bytes(b"living"), blobs.put_bytes(b"dead")
    now = time.time()
    assert blobs.collect({living.digest}, now=now, grace_s=DAY_S) == []
    assert blobs.collect({living.digest}, now=now + 2 * DAY_S, grace_s=DAY_S) == [dead.digest]
    assert list(blobs.digests()) == [living.digest]


def test_collect_clears_what_killed_writers_left(folder: BlobStore) -> None:
    blob = folder.put_bytes(DATA)
    upload = folder.upload()
    upload.append(0, b"half")
    torn = Path(folder.path_of(blob.digest)).with_name(".abc.tmp123")
    torn.write_bytes(b"torn")
    assert folder.collect({blob.digest}, now=time.time(), grace_s=DAY_S) == []
    assert torn.exists()
    folder.collect({blob.digest}, now=time.time() + 2 * DAY_S, grace_s=DAY_S)
    assert not torn.exists()
    assert upload.size_bytes == 0
    assert folder.read(blob.digest) == DATA


def test_storing_the_same_bytes_again_keeps_them_from_being_collected(folder: BlobStore) -> None:
    """Who stores bytes refers to them a moment later; they may not vanish in between for having been there before."""
    blob = folder.put_bytes(DATA)
    age(folder, blob.digest, 3 * DAY_S)
    folder.put_bytes(DATA)
    assert folder.collect(set(), now=time.time(), grace_s=DAY_S) == []
    age(folder, blob.digest, 3 * DAY_S)
    upload = folder.upload()
    upload.append(0, DATA)
    upload.commit(blob.digest)
    assert folder.collect(set(), now=time.time(), grace_s=DAY_S) == []


def test_a_remote_blob_is_written_anew_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(f"memory://{uuid.uuid4().hex}")
    blob = store.put_bytes(DATA)
    before = store._fs.modified(store.path_of(blob.digest))
    store.put_bytes(DATA)
    assert store._fs.modified(store.path_of(blob.digest)) == before
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * FRESH_S)
    store.put_bytes(DATA)
    assert store._fs.modified(store.path_of(blob.digest)) > before
    assert store.read(blob.digest) == DATA


def test_writers_of_the_same_bytes_do_not_disturb_each_other(folder: BlobStore) -> None:
    ready = threading.Barrier(6)

    def put() -> None:
        ready.wait(60)
        BlobStore(folder.url).put_bytes(DATA)

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert folder.read(digest_of(DATA)) == DATA
    assert [p.name for p in Path(folder._root).rglob("*") if p.is_file()] == [digest_of(DATA)[9:]]
