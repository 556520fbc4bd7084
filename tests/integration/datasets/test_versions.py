"""Versions over the wire: out into folders and tars, back in, compared, traced, and never across tenants."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Forbidden, IntegrityError, Invalid, NotFound
from atoll.core.resources import Resource
from atoll.data.archive import Folder, check, open_archive
from atoll.data.engine.versions.diff import diff
from atoll.sdk.datasets import STATE_SUFFIX
from atoll.sdk.errors import Unreachable
from atoll.server.datasets import shards_of
from small_datasets import document, question

from .conftest import Library

ROWS = [[document(f"{s}-{n}", f"text {s} {n}") for n in range(20)] for s in range(3)]
SPLITS = {"train": ROWS, "qa_train": [[question("q", "0-0", "text")]]}


@pytest.fixture(scope="session")
def docs(library: Library) -> Resource:
    return library.add("docs", SPLITS)


def test_an_exported_version_comes_back_as_the_same(library: Library, docs: Resource, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert library.command("export", "docs", str(target)) == f"{docs.name} is in {target}\n"
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "manifest.json",
        "qa_train/00000.parquet",
        *(f"train/0000{n}.parquet" for n in range(3)),
    ]
    assert check(Folder(target)) == 4
    assert library.command("import", str(target), "--name", "docs") == "docs.v1 is the same, nothing was made\n"
    assert library.command("import", str(target), "--name", "copy", "--branch", "b") == "copy.v1 was made\n"
    copy = library.ready("copy.v1")
    assert copy.spec["manifest"] == docs.spec["manifest"] and copy.spec["branch"] == "b"
    assert not list(tmp_path.glob(f"*{STATE_SUFFIX}"))


def test_a_tar_is_the_same_whoever_writes_it(library: Library, docs: Resource, tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        library.command("export", docs.name, str(tmp_path / name))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames()[0] == "manifest.json"
    assert library.command("import", str(tmp_path / "one.tar"), "--name", "taken") == "taken.v1 was made\n"
    assert "are the same" in library.command("diff", str(tmp_path / "two.tar"), "taken")


def test_a_broken_export_goes_on(library: Library, docs: Resource, tmp_path: Path) -> None:
    target = tmp_path / "out"
    library.command("export", "docs", str(target))
    whole = target / "train/00001.parquet"
    data = whole.read_bytes()
    whole.with_name(whole.name + ".part").write_bytes(data[:100])
    whole.unlink()
    (target / "train/00002.parquet.part").write_bytes(b"of another time" * 1000)
    (target / "train/00002.parquet").unlink()
    (target / "manifest.json").rename(target / ".manifest.json")
    library.command("export", "docs", str(target))
    assert whole.read_bytes() == data and check(Folder(target)) == 4


def test_an_export_never_mixes_with_something_else(library: Library, docs: Resource, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert "holds something else" in library.command("export", "docs", str(tmp_path), code=1)


def test_a_damaged_file_is_named_and_nothing_is_made(library: Library, docs: Resource, tmp_path: Path) -> None:
    target = tmp_path / "out"
    library.command("export", "docs", str(target))
    file = target / "train/00002.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with library.client() as client:
        with pytest.raises(IntegrityError, match=r"train/00002\.parquet is damaged"):
            client.datasets.import_from(Folder(target), "broken")
        with pytest.raises(Invalid, match="'My Data' cannot be a name"):  # before anything is read, or sent
            client.datasets.import_from(Folder(target), "My Data")
    assert library.scope.find("Dataset", "broken", "default") is None


def test_rows_a_manifest_made_up_are_refused(library: Library, docs: Resource, tmp_path: Path) -> None:
    target = tmp_path / "out"
    library.command("export", "docs", str(target))
    manifest = json.loads((target / "manifest.json").read_text())
    shard = manifest["splits"]["train"]["shards"][0]
    rows = shard["rows"]
    shard["rows"], manifest["splits"]["train"]["rows"] = rows + 1, manifest["splits"]["train"]["rows"] + 1
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=rf"train/00000\.parquet holds {rows} rows, .* {rows + 1} rows"):
        check(Folder(target))
    file = target / "train/00000.parquet"
    file.write_bytes(b"no Parquet")
    shard |= {"digest": f"sha256:{hashlib.sha256(b'no Parquet').hexdigest()}", "bytes": 10}
    (target / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"train/00000\.parquet is no Parquet"):
        check(Folder(target))


def test_a_damaged_dataset_is_refused_in_words_by_who_reads_it(
    library: Library, docs: Resource, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    library.command("export", "docs", str(target))
    file = target / "train/00001.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    assert "train/00001.parquet is damaged" in library.command("describe", str(target), code=1)
    library.add("less", {"train": [[document("a", "1")]]})
    assert "train/00001.parquet is damaged" in library.command("diff", str(target), "less", code=1)
    (target / "manifest.json").write_text("{")
    assert f"{target}/manifest.json: the dataset manifest is not JSON" in library.command(
        "describe", str(target), code=1
    )


def test_a_tar_that_was_cut_off_is_refused_in_words(library: Library, docs: Resource, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.tar", tmp_path / "part.tar"
    library.command("export", "docs", str(whole))
    data = whole.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    with pytest.raises(Invalid, match="cannot be read as a tar"), open_archive(part):
        pass


def test_an_import_that_broke_off_sends_only_what_is_missing(library: Library, tmp_path: Path) -> None:
    library.add("fresh", {"train": [[document(f"f{n}", "x" * 50)] for n in range(4)]})
    library.command("export", "fresh", str(tmp_path / "out"))
    sent: list[int] = []

    def cut(done: int, total: int) -> None:
        sent.append(done)
        if len(sent) == 2:
            raise Unreachable("the line is cut")

    with library.client("other") as client, pytest.raises(Unreachable):
        client.datasets.import_from(Folder(tmp_path / "out"), "again", progress=cut)
    state = json.loads((tmp_path / f"out{STATE_SUFFIX}").read_text())
    assert len(state["done"]) == 2
    with library.client("other") as client:
        made = client.datasets.import_from(Folder(tmp_path / "out"), "again")
    assert made["version"] == "again.v1"
    library.ready("again.v1", "other")


def test_shards_that_were_never_sent_are_listed(library: Library, docs: Resource) -> None:
    with library.client() as client:
        _, data = client.datasets.manifest("docs")
        manifest = json.loads(data)
        manifest["splits"]["train"]["shards"][0]["digest"] = "sha256:" + "0" * 64
        body = {"manifest": json.dumps(manifest)}
        with pytest.raises(Invalid, match=r"1 files of the manifest were not uploaded, first train/00000") as refused:
            client.connection.call("POST", "/api/v1/projects/default/datasets/x/versions", body=body)
        assert refused.value.details["missing"] == ["train/00000.parquet"]
        manifest = json.loads(data)
        manifest["splits"]["train"]["shards"][0]["bytes"] = 7
        with pytest.raises(Invalid, match="the manifest says 7"):
            client.connection.call(
                "POST", "/api/v1/projects/default/datasets/x/versions", body={"manifest": json.dumps(manifest)}
            )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "atoll-dataset/1"}', '{"format": "other"}'])
def test_what_is_no_manifest_is_refused(library: Library, text: str) -> None:
    with library.client() as client, pytest.raises(Invalid, match="manifest"):
        client.connection.call("POST", "/api/v1/projects/default/datasets/x/versions", body={"manifest": text})


def test_platform_and_folder_are_compared_alike(library: Library, docs: Resource, tmp_path: Path) -> None:
    changed = [[*ROWS[0][:-1], document("0-19", "rewritten")], *ROWS[1:]]
    library.add("docs2", SPLITS | {"train": changed}, facts={"licence": "MIT"})
    library.command("export", "docs2", str(tmp_path / "two"))
    said = library.command("diff", "docs", str(tmp_path / "two"))
    assert "train: 60 → 60 rows, 0 added, 0 removed, 1 changed" in said
    assert "  ~ 0-19 (text)" in said and "      + rewritten" in said and "licence: CC0-1.0 → MIT" in said
    told = json.loads(library.command("diff", "docs", "docs2", "--json"))
    assert told["parts"]["train"]["changed"] == 1 and not told["equal"]
    with library.client() as client:
        assert diff(client.datasets.open("docs"), client.datasets.open("docs")).is_empty


def test_a_version_is_described_where_it_lies(library: Library, docs: Resource) -> None:
    said = library.command("describe", "docs")
    assert "docs.v1" in said and "train     60    3" in said and "CC0-1.0" in said
    told = json.loads(library.command("describe", "docs@main", "--json"))
    assert told["splits"]["train"]["rows"] == 60 and told["top_sources"]


def test_tags_are_set_moved_and_taken_away(library: Library, docs: Resource) -> None:
    library.add("tagged", {"train": [[document("a", "1")]]})
    library.add("tagged", {"train": [[document("a", "2")]]})
    assert library.command("tag", "tagged", "best", "tagged.v1") == "tagged@best stands for tagged.v1\n"
    assert library.command("tag", "tagged", "best", "tagged@main") == "tagged@best stands for tagged.v2\n"
    assert library.command("tag", "tagged", "best", "--remove") == "tagged@best is gone\n"
    assert "has no tag 'best'" in library.command("tag", "tagged", "best", "--remove", code=1)
    assert "needs a version" in library.command("tag", "tagged", "best", code=1)
    assert "not both: tagged.v1" in library.command("tag", "tagged", "best", "tagged.v1", "--remove", code=1)
    assert f"{docs.name} is no version of 'tagged'" in library.command("tag", "tagged", "best", docs.name, code=1)


def test_lineage_is_told_as_a_tree(library: Library, docs: Resource) -> None:
    library.add("child", {"train": [[document("c", "x")]]}, parents=[docs.name], made_by="CurationRun/none")
    said = library.command("lineage", "docs@main")
    assert said.startswith("Came from\n  DatasetVersion docs.v1 (ready) train 60")
    assert "    DatasetVersion child.v1 (ready) train 1" in said
    told = json.loads(library.command("lineage", "datasetversion/child.v1", "--json"))
    assert [node["name"] for node in told["up"]["children"]] == ["docs.v1"]
    assert library.command("lineage", "dataset/docs") == said
    assert "no lineage" in library.command("lineage", "datasetversion/nothing", code=1)


def test_a_name_a_dataset_shares_with_a_run_is_the_datasets(library: Library) -> None:
    library.add("twin", {"train": [[document("t", "x")]]})
    with library.client() as client:
        client.put("CurationRun", "twin", {"dataset": "another", "sources": [{"kind": "dataset", "reference": "none"}]})
    for name in ("twin", "dataset/twin"):
        told = json.loads(library.command("lineage", name, "--json"))
        assert (told["up"]["kind"], told["up"]["name"]) == ("DatasetVersion", "twin.v1")
    assert json.loads(library.command("lineage", "curationrun/twin", "--json"))["up"]["kind"] == "CurationRun"


def test_ranges_are_served_and_nonsense_is_refused(library: Library, docs: Resource) -> None:
    path = "/api/v1/projects/default/datasetversions/docs/files/train/00000.parquet"
    headers = {"Authorization": f"Bearer {library.admin}"}
    whole = library.web.get(path, headers=headers).content
    part = library.web.get(path, headers=headers | {"Range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, whole[4:10])
    assert library.web.get(path, headers=headers | {"Range": f"bytes={len(whole) - 2}-"}).content == whole[-2:]
    for wrong in ("bytes=9-4", "bytes=-5", "lines=1-2", f"bytes={len(whole) + 1}-", "bytes=0-0,2-3"):
        assert library.web.get(path, headers=headers | {"Range": wrong}).status_code == 400, wrong
    for lost in ("train/9.parquet", "../../x", "notes/00000.parquet"):
        assert library.web.get(f"{path[:-19]}{lost}", headers=headers).status_code == 404, lost


def asked_by(library: Library, project: str, key: str) -> Any:
    client = library.client(project, key)
    return [
        lambda: client.datasets.manifest("docs"),
        lambda: client.datasets.read("docs.v1", "train/00000.parquet", 0, 10),
        lambda: client.datasets.lineage("docs.v1", "datasetversions"),
        lambda: client.datasets.open("docs@main"),
    ]


def test_a_manifest_is_read_once_for_all_shards_of_an_export(library: Library, docs: Resource, tmp_path: Path) -> None:
    before = shards_of.cache_info()
    library.command("export", "docs", str(tmp_path / "out"))
    after = shards_of.cache_info()
    assert after.misses - before.misses <= 1 and after.hits - before.hits >= 3


def test_a_key_reads_only_versions_of_its_own_project(library: Library, docs: Resource) -> None:
    stranger = library.key("other", "owner")
    for ask in asked_by(library, "default", stranger):
        with pytest.raises(Forbidden):
            ask()
    for ask in asked_by(library, "other", stranger):
        with pytest.raises(NotFound):
            ask()
    viewer = library.key("default", "viewer")
    for ask in asked_by(library, "default", viewer):
        ask()
    with library.client("default", viewer) as client, pytest.raises(Forbidden):
        client.connection.call("POST", "/api/v1/projects/default/datasets/x/versions", body={"manifest": "{}"})


def test_a_digest_alone_makes_no_version(library: Library, docs: Resource) -> None:
    spec = {"dataset": "theirs", "manifest": docs.spec["manifest"]}
    with library.client("other", library.key("other", "owner")) as client, pytest.raises(Forbidden, match="imports"):
        client.put("DatasetVersion", "theirs.v1", spec)


def test_a_version_is_not_changed_through_the_api(library: Library, docs: Resource) -> None:
    with library.client() as client, pytest.raises(Forbidden, match="never changes"):
        client.put("DatasetVersion", docs.name, docs.spec | {"manifest": "sha256:" + "0" * 64})
