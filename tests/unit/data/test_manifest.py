from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import (
    SPLITS,
    Manifest,
    arrow_schema,
    decode_manifest,
    open_split,
    read_manifest,
    read_split,
    split_of,
    write_manifest,
)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def _dataset(store: BlobStore, folder: Path, rows: int, shard_bytes: int = 1 << 20) -> str:
    writers = {name: SplitWriter(store, folder, columns, shard_bytes) for name, columns in SPLITS.items()}
    for number in range(rows):
        writers["train"].add({"id": f"d{number}", "text": "text " * 10, "source": "here"})
    splits = {name: writer.close() for name, writer in writers.items()}
    return write_manifest(store, Manifest(splits, {"train": rows}, [], {}, "CC0-1.0", []))


def test_a_manifest_read_back_is_equal(store: BlobStore, tmp_path: Path) -> None:
    digest = _dataset(store, tmp_path, 3)
    manifest = read_manifest(store, digest)
    assert decode_manifest(manifest.encode()) == manifest
    assert write_manifest(store, manifest) == digest
    assert manifest.schema["qa_train"]["span_start"] == "int64"


def test_a_manifest_of_before_tables_is_read(store: BlobStore, tmp_path: Path) -> None:
    value = orjson.loads(read_manifest(store, _dataset(store, tmp_path, 1)).encode())
    for name in ("tables", "privacy", "languages"):
        del value[name]
    manifest = decode_manifest(orjson.dumps(value))
    assert (manifest.tables, manifest.privacy, manifest.languages) == ({}, {}, {})


def test_tables_are_read_like_splits(store: BlobStore, tmp_path: Path) -> None:
    manifest = read_manifest(store, _dataset(store, tmp_path, 3))
    changed = replace(manifest, tables={"notes": manifest.splits["train"]}, privacy={"email": {"mask": 2}})
    again = read_manifest(store, write_manifest(store, changed))
    assert again == changed
    assert [row["id"] for row in open_split(store, again, "notes")] == ["d0", "d1", "d2"]


def test_columns_may_be_lists() -> None:
    assert arrow_schema({"tokens": "list<int32>"}).field("tokens").type == pa.list_(pa.int32())


def test_equal_work_gives_equal_digests(store: BlobStore, tmp_path: Path) -> None:
    assert _dataset(store, tmp_path, 50) == _dataset(store, tmp_path, 50)
    assert _dataset(store, tmp_path, 50) != _dataset(store, tmp_path, 51)


def test_a_split_is_read_whole_and_row_by_row_over_all_shards(store: BlobStore, tmp_path: Path) -> None:
    digest = _dataset(store, tmp_path, 40, shard_bytes=500)
    manifest = read_manifest(store, digest)
    assert len(split_of(manifest, "train").shards) > 3
    table = read_split(store, digest, "train")
    assert table["id"].to_pylist() == [f"d{number}" for number in range(40)]
    assert list(open_split(store, manifest, "train")) == table.to_pylist()


def test_an_empty_split_still_has_its_columns(store: BlobStore, tmp_path: Path) -> None:
    table = read_split(store, _dataset(store, tmp_path, 1), "qa_heldout")
    assert table.num_rows == 0
    assert table.column_names == list(SPLITS["qa_heldout"])


def test_an_unknown_split_names_those_there_are(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="heldout, qa_heldout, qa_train, train"):
        read_split(store, _dataset(store, tmp_path, 1), "test")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format":"other/1"}', b'{"format":"atoll-dataset/1"}', b"\xff"])
def test_something_else_is_not_taken_for_a_manifest(store: BlobStore, data: bytes) -> None:
    with pytest.raises(Invalid, match="manifest"):
        read_manifest(store, store.put_bytes(data).digest)


def test_an_absent_manifest_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFound):
        read_manifest(store, "sha256:" + "0" * 64)


def test_a_damaged_shard_is_never_read(store: BlobStore, tmp_path: Path) -> None:
    digest = _dataset(store, tmp_path, 5)
    path = store.local_path(split_of(read_manifest(store, digest), "train").shards[0].digest)
    assert path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError):
        read_split(store, digest, "train")
