from pathlib import Path

import pyarrow.parquet as pq

from atoll.core.blobs import BlobStore
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import DOCUMENT_COLUMNS


def _write(store: BlobStore, folder: Path, rows: int, shard_bytes: int):
    writer = SplitWriter(store, folder, DOCUMENT_COLUMNS, shard_bytes)
    for number in range(rows):
        writer.add({"id": f"{number:04d}", "text": "x" * 90, "source": "s"})
    return writer.close()


def test_shards_are_cut_by_size(tmp_path: Path) -> None:
    split = _write(BlobStore(str(tmp_path / "b")), tmp_path, 25, 950)
    assert [shard.rows for shard in split.shards] == [10, 10, 5]
    assert split.rows == 25


def test_shards_are_zstd_parquet_and_their_size_is_said(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "b"))
    shard = _write(store, tmp_path, 5, 1 << 20).shards[0]
    path = store.local_path(shard.digest)
    assert path and path.stat().st_size == shard.bytes
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_equal_rows_are_equal_shards_and_no_file_is_left(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "b"))
    assert _write(store, tmp_path, 5, 1 << 20) == _write(store, tmp_path, 5, 1 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_no_rows_are_no_shards(tmp_path: Path) -> None:
    assert _write(BlobStore(str(tmp_path / "b")), tmp_path, 0, 100).shards == ()
