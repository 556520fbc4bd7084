"""Two datasets compared, and one described: by what they hold, wherever they lie."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.data.archive import Folder, Stored, check, is_archive, open_archive
from atoll.data.engine.versions.describe import describe, source_of
from atoll.data.engine.versions.diff import diff, recipe_lines
from atoll.data.layout import MANIFEST, members, shard_at
from atoll.data.manifest import read_manifest
from small_datasets import dataset, document, question

Documents = dict[str, str]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "blobs"))


def stored(blobs: BlobStore, folder: Path, splits: dict[str, Any], **facts: Any) -> Stored:
    return Stored(blobs, dataset(blobs, folder, splits, **facts))


def exported(blobs: BlobStore, digest: str, folder: Path) -> Path:
    """The dataset as a folder, written by hand."""
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(blobs.read(digest))
    for path, shard in members(read_manifest(blobs, digest)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(blobs.read(shard.digest))
    return folder


def test_rows_are_told_by_id_with_samples(blobs: BlobStore, tmp_path: Path) -> None:
    one = [document("a", "same"), document("b", "it was so"), document("c", "gone")]
    two = [document("a", "same"), document("b", "it is so"), document("d", "come")]
    found = diff(stored(blobs, tmp_path, {"train": [one]}), stored(blobs, tmp_path, {"train": [two]}))
    train = found.parts["train"]
    assert (train.before, train.after, train.added, train.removed, train.changed) == (3, 3, 1, 1, 1)
    assert train.samples["added"] == [{"id": "d", "text": "come"}]
    assert train.samples["removed"] == [{"id": "c", "text": "gone"}]
    changed = {"id": "b", "field": "text", "fields": ["text"], "before": "it was so", "after": "it is so"}
    assert train.samples["changed"] == [changed]
    assert not found.is_empty


def test_facts_counts_schema_and_recipe_are_told(blobs: BlobStore, tmp_path: Path) -> None:
    rows = [[document("a", "x")]]
    one = stored(blobs, tmp_path, {"train": rows}, recipe={"rules": ["a", "b"], "seed": 1})
    two = stored(
        blobs,
        tmp_path,
        {"train": rows, "qa_train": [[question("q", "a", "x")]]},
        recipe={"rules": ["a", "c"], "seed": 1},
        licence="MIT",
    )
    found = diff(one, two)
    assert found.fields == {"licence": ["CC0-1.0", "MIT"]}
    assert found.counts == {"qa_train": [0, 1]}
    assert [line for line in found.recipe if line[0] in "+-"] == ["-- b", "+- c"]
    assert found.parts["train"].added == 0 and found.parts["qa_train"].added == 1
    assert found.to_dict()["equal"] is False


def test_a_dataset_equals_itself_and_reads_nothing_to_know(blobs: BlobStore, tmp_path: Path) -> None:
    one = stored(blobs, tmp_path, {"train": [[document("a", "x")]]})
    for _, shard in members(one.manifest):
        Path(blobs.path_of(shard.digest)).unlink()
    assert diff(one, one).is_empty


def test_only_the_first_samples_are_kept_in_order(blobs: BlobStore, tmp_path: Path) -> None:
    many = [[document(f"{s}-{n:03d}", "x") for n in range(100)] for s in range(3)]
    found = diff(stored(blobs, tmp_path, {}), stored(blobs, tmp_path, {"train": many}), samples=2)
    assert found.parts["train"].added == 300
    assert [row["id"] for row in found.parts["train"].samples["added"]] == ["0-000", "0-001"]


texts = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text(max_size=4), max_size=12)


@settings(deadline=None, max_examples=25)
@given(one=texts, two=texts, cut=st.integers(1, 5))
def test_differences_are_those_of_the_dictionaries(
    tmp_path_factory: pytest.TempPathFactory, one: Documents, two: Documents, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    blobs = BlobStore(str(folder / "blobs"))
    rows = [[document(name, text) for name, text in sorted(texts.items())] for texts in (one, two)]
    shards = [[r[i : i + cut] for i in range(0, len(r), cut)] for r in rows]
    made = [stored(blobs, folder, {"train": shard}) for shard in shards]
    found = diff(*made).parts["train"]
    assert found.added == len(two.keys() - one.keys())
    assert found.removed == len(one.keys() - two.keys())
    assert found.changed == sum(one[n] != two[n] for n in one.keys() & two.keys())


def test_recipes_that_are_equal_have_no_diff() -> None:
    assert recipe_lines({"a": 1, "b": [2]}, {"b": [2], "a": 1}) == []


def test_a_description_fits_a_page(blobs: BlobStore, tmp_path: Path) -> None:
    rows = [
        {**document("a", "x", "s0:one.md"), "language": "en"},
        {**document("b", "y", "s0:two.md"), "language": "zh"},
        {**document("c", "z", "https://example.org/c"), "language": "en"},
    ]
    funnel = [{"rule": "too_short", "dropped": 4, "samples": ["d: …"]}]
    found = describe(stored(blobs, tmp_path, {"train": [rows[:2], rows[2:]]}, funnel=funnel, parents=["sha256:1"]))
    assert found["languages"] == {"en": 2, "zh": 1}
    assert found["top_sources"] == {"s0": 2, "example.org": 1}
    assert found["funnel"] == [{"rule": "too_short", "dropped": 4}]
    assert found["splits"]["train"]["rows"] == 3 and found["splits"]["train"]["shards"] == 2
    assert found["licence"] == "CC0-1.0" and found["parents"] == ["sha256:1"]
    assert json.dumps(found)


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        (None, "docs/a.md", "docs"),
        (None, "a.md", "(files)"),
        (None, None, "(unknown)"),
        ("https://x.org:8/y", "s0:z", "x.org"),
        ("http://[bad", "s0:z", "s0"),
    ],
)
def test_a_source_is_a_host_a_name_or_a_folder(url: str | None, name: str | None, expected: str) -> None:
    assert source_of(url, name) == expected


def test_folders_tars_and_stores_read_alike(blobs: BlobStore, tmp_path: Path) -> None:
    digest = dataset(blobs, tmp_path, {"train": [[document("a", "x")], [document("b", "y")]]})
    folder = exported(blobs, digest, tmp_path / "out")
    with tarfile.open(tmp_path / "out.tar", "w") as tar:
        tar.add(folder, ".")
    with open_archive(folder) as one, open_archive(tmp_path / "out.tar") as two:
        assert check(one) == check(two) == 2
        assert diff(one, two).is_empty and diff(two, Stored(blobs, digest)).is_empty
    assert is_archive(str(folder)) and is_archive("some.tar") and not is_archive("docs.v1")


def test_a_damaged_file_is_named(blobs: BlobStore, tmp_path: Path) -> None:
    digest = dataset(blobs, tmp_path, {"train": [[document("a", "x")], [document("b", "y")]]})
    folder = exported(blobs, digest, tmp_path / "out")
    data = bytearray((folder / "train/00001.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "train/00001.parquet").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"train/00001.parquet is damaged"):
        check(Folder(folder))
    (folder / "train/00001.parquet").unlink()
    with pytest.raises(NotFound, match=r"train/00001.parquet cannot be read"):
        check(Folder(folder))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all")
    with pytest.raises(Invalid, match="cannot be read as a tar"), open_archive(tmp_path / "x.tar"):
        pass
    with pytest.raises(NotFound, match=r"manifest\.json cannot be read"), open_archive(tmp_path):
        pass
    with pytest.raises(NotFound, match="does not exist"), open_archive(tmp_path / "nothing"):
        pass


@pytest.mark.parametrize("path", ["train/1.parquet", "train/00009.parquet", "../manifest.json", "other/00000.parquet"])
def test_a_path_outside_the_layout_is_not_found(blobs: BlobStore, tmp_path: Path, path: str) -> None:
    manifest = read_manifest(blobs, dataset(blobs, tmp_path, {"train": [[document("a", "x")]]}))
    with pytest.raises(NotFound, match=r"train \(1\)"):
        shard_at(manifest, path)
