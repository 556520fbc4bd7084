from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atoll.core.blobs import BlobStore, digest_of_file
from atoll.core.errors import Invalid
from atoll.data.engine.curate.results import STATE, Blobs, Folder, Result, check_ours
from atoll.data.manifest import Manifest, Split, decode_manifest


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["a"], "text": ["b"], "source": ["c"]}), path)
    return path


def _put(result: Result, shard: Path, parts: list[str]) -> str:
    splits = {part: Split((result.take(part, 0, shard, 1),), 1) for part in parts}
    return result.finish(Manifest(splits, {"train": 1}, [], {}, "CC0-1.0", []), b"{}")


def test_a_folder_and_a_store_hold_the_same_dataset(tmp_path: Path, shard: Path) -> None:
    store = BlobStore(str(tmp_path / "blobs"))
    digest = _put(Folder(tmp_path / "out"), shard, ["train"])
    assert digest == _put(Blobs(store), shard, ["train"])
    assert decode_manifest((tmp_path / "out" / "manifest.json").read_bytes()).counts == {"train": 1}
    assert digest_of_file(tmp_path / "out" / "train" / "00000.parquet") == digest_of_file(shard)
    assert (tmp_path / "out" / "report.json").read_bytes() == b"{}"


def test_a_new_result_takes_the_place_of_the_old_one_whole(tmp_path: Path, shard: Path) -> None:
    _put(Folder(tmp_path / "out"), shard, ["train", "heldout"])
    again = Folder(tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").exists() and (tmp_path / "out" / "heldout").exists()
    _put(again, shard, ["train"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {STATE, "manifest.json", "report.json", "train"}


def test_a_result_that_broke_off_while_it_was_replaced_can_be_made_again(tmp_path: Path, shard: Path) -> None:
    _put(Folder(tmp_path / "out"), shard, ["train", "heldout"])
    (tmp_path / "out" / "manifest.json").unlink()
    _put(Folder(tmp_path / "out"), shard, ["train"])
    assert not (tmp_path / "out" / "heldout").exists()


@pytest.mark.parametrize("name", ["thesis.docx", "train/notes.txt", ".git/config"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, shard: Path, name: str) -> None:
    out = tmp_path / "out"
    if name.startswith("train"):
        _put(Folder(out), shard, ["heldout"])
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(Invalid, match="which no curation made"):
        check_ours(out)
    assert (out / name).read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(Invalid, match="is not a folder"):
        Folder(tmp_path / "out")
