"""Branches, tags, versions that never change, and which of them retention ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import digest_of
from atoll.core.clock import VirtualClock
from atoll.core.errors import Forbidden, Invalid, NotFound
from atoll.core.resources import KINDS, Resource
from atoll.core.store import MarkDeleting, SetSpec, Store
from atoll.data.resources import DATASET, DATASET_VERSION
from atoll.data.retention import DAY_S
from atoll.data.versions import make_version, parents_of, resolve
from atoll.server import kinds
from small_datasets import Shelf, document

assert kinds.DOMAINS
DATASET_KIND = KINDS.named("Dataset")


@pytest.fixture
def shelf(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Shelf:
    return Shelf(sqlite_store, clock, tmp_path)


def name_of(shelf: Shelf, reference: str) -> str | None:
    found = resolve(shelf.scope, "p", reference)
    return found.name if found is not None else None


def change(shelf: Shelf, **fields: Any) -> None:
    dataset = shelf.get("docs")
    shelf.scope.write([SetSpec(dataset, DATASET.parse_spec(dataset.spec | fields))])
    shelf.settle()


def three(shelf: Shelf) -> list[Resource]:
    return [shelf.add("docs", document("a", text)) for text in ("one", "two", "three")]


def test_a_version_tells_the_facts_of_its_manifest(shelf: Shelf) -> None:
    version = shelf.add("docs", document("a", "one"), document("b", "two"))
    assert version.phase == "ready"
    assert version.status["counts"]["train"] == 2
    assert version.status["columns"]["train"] == {"id": "string", "text": "string", "source": "string"}
    assert version.status["licence"] == "CC0-1.0" and version.status["recipe"] == {"seed": 1}
    assert version.status["shards"] == 1 and version.status["size_bytes"] > 100


def test_a_version_with_a_missing_shard_or_manifest_fails_by_name(shelf: Shelf) -> None:
    shelf.scope.write(make_version(shelf.scope, "p", "docs", digest_of(b"gone")).writes)
    shelf.settle()
    assert "is not in the blob store" in shelf.get("docs.v1", "DatasetVersion").status["reason"]
    from small_datasets import dataset

    manifest = dataset(shelf.blobs, shelf.folder, {"train": [[document("a", "b")]]})
    doomed = next(d for d in shelf.blobs.digests() if d != manifest)
    Path(shelf.blobs.path_of(doomed)).unlink()
    shelf.scope.write(make_version(shelf.scope, "p", "docs", manifest).writes)
    shelf.settle()
    reason = shelf.get("docs.v2", "DatasetVersion").status["reason"]
    assert reason == "shard train/00000.parquet is not in the blob store"


def test_branches_tags_and_names_resolve_by_one_function(shelf: Shelf) -> None:
    first = three(shelf)[0]
    shelf.add("docs", document("a", "other"), branch="trial", parents=[first.name])
    change(shelf, tags={"stable": "docs.v2"})
    assert name_of(shelf, "docs") == name_of(shelf, "docs@main") == "docs.v3"
    assert name_of(shelf, "docs@trial") == "docs.v4"
    assert name_of(shelf, "docs@stable") == name_of(shelf, "docs.v2") == "docs.v2"
    status = shelf.get("docs").status
    assert status["branches"] == {"main": ["docs.v1", "docs.v2", "docs.v3"], "trial": ["docs.v4"]}
    assert status["latest"] == "docs.v3"
    with pytest.raises(NotFound, match=r"has no branch or tag 'nowhere'.*stable, main, trial"):
        resolve(shelf.scope, "p", "docs@nowhere")
    with pytest.raises(NotFound, match="no dataset 'other'"):
        resolve(shelf.scope, "p", "other")


def test_a_number_a_dataset_has_no_version_of_is_said_with_those_it_has(shelf: Shelf) -> None:
    three(shelf)
    with pytest.raises(NotFound, match=r"dataset 'docs' has no version 'docs\.v9'") as told:
        resolve(shelf.scope, "p", "docs.v9")
    assert told.value.hint == "its newest: docs.v1, docs.v2, docs.v3"
    with pytest.raises(NotFound, match=r"there is no dataset 'other\.v1'"):
        resolve(shelf.scope, "p", "other.v1")


def test_a_tag_that_names_no_version_is_said(shelf: Shelf) -> None:
    three(shelf)
    change(shelf, tags={"best": "docs.v9"})
    assert shelf.get("docs").status["reason"] == "tag 'best' names 'docs.v9', which is no version of it"


@pytest.mark.parametrize("tags", [{"a b": "docs.v1"}, {"@x": "docs.v1"}, {"": "docs.v1"}])
def test_tags_are_plain_names(tags: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="tags"):
        DATASET.parse_spec({"tags": tags})


RECEIVERS: dict[str, dict[str, Any]] = {
    "CurationRun": {"sources": [{"kind": "stdlib"}]},
    "SynthesisRun": {"source": "docs", "model": "m"},
    "DatasetImport": {"source": "pypi:a==1"},
}


@pytest.mark.parametrize("kind", RECEIVERS)
@pytest.mark.parametrize("name", ["Web", "a/b", "", "web docs", "-web", "web-", "w" * 120])
def test_a_run_whose_versions_could_have_no_name_is_refused_before_it_runs(kind: str, name: str) -> None:
    with pytest.raises(Invalid, match=r"spec\.dataset"):
        KINDS.named(kind).parse_spec(RECEIVERS[kind] | {"dataset": name})


@pytest.mark.parametrize("kind", RECEIVERS)
def test_a_run_may_be_for_any_dataset_versions_can_be_named_by(kind: str) -> None:
    for name in ("web", "w" * 100, "2024.de-en"):
        assert KINDS.named(kind).parse_spec(RECEIVERS[kind] | {"dataset": name})["dataset"] == name


def test_equal_manifests_on_one_branch_make_one_version(shelf: Shelf) -> None:
    first = shelf.add("docs", document("a", "one"))
    assert shelf.add("docs", document("a", "one")).uid == first.uid
    assert shelf.add("docs", document("a", "one"), branch="trial").name == "docs.v2"
    shelf.add("docs", document("a", "two"))
    assert shelf.add("docs", document("a", "one")).name == "docs.v4", "going back is a version of its own"


def test_a_number_is_not_given_twice(shelf: Shelf) -> None:
    last = three(shelf)[-1]
    shelf.scope.write([MarkDeleting(last)])
    shelf.settle()
    assert not shelf.has("docs.v3")
    assert shelf.add("docs", document("a", "four")).name == "docs.v4"


def test_a_version_never_changes_by_hand() -> None:
    old = DATASET_VERSION.parse_spec({"dataset": "d", "manifest": digest_of(b"1")})
    new = old | {"manifest": digest_of(b"2")}
    with pytest.raises(Forbidden, match="never changes"):
        DATASET_VERSION.guard(None, "p", new, old)  # type: ignore[arg-type]
    DATASET_VERSION.guard(None, "p", old, old)  # type: ignore[arg-type]
    DATASET_VERSION.guard(None, "p", None, old)  # type: ignore[arg-type]


def test_parents_are_versions(shelf: Shelf) -> None:
    three(shelf)
    assert parents_of(shelf.scope, "p", ["docs", "docs.v1", "docs@main"]) == ["docs.v3", "docs.v1"]


def test_retention_keeps_the_last_of_each_branch(shelf: Shelf) -> None:
    three(shelf)
    shelf.add("docs", document("a", "side"), branch="trial")
    change(shelf, retention={"keep_last": 1})
    assert [shelf.has(f"docs.v{n}") for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert shelf.get("docs").status["versions"] == ["docs.v3", "docs.v4"]


def test_retention_keeps_what_is_tagged_or_learned_from(shelf: Shelf) -> None:
    three(shelf)
    run = {"base": "m", "dataset": "docs", "output": "o"}
    shelf.create("TrainingRun", "run", run, phase="succeeded", dataset_version="docs.v1", observed_generation=1)
    change(shelf, retention={"keep_last": 1}, tags={"stable": "docs.v2"})
    assert [shelf.has(f"docs.v{n}") for n in (1, 2, 3)] == [True, True, True]
    shelf.scope.write([MarkDeleting(shelf.get("run", "TrainingRun"))])
    shelf.settle()
    assert [shelf.has(f"docs.v{n}") for n in (1, 2, 3)] == [False, True, True]


def test_retention_keeps_what_a_running_workload_reads(shelf: Shelf) -> None:
    first = three(shelf)[0]
    role = {"command": ["x"], "input": {"dataset": first.spec["manifest"]}}
    shelf.create("Workload", "reader", {"roles": [role]}, phase="running")
    change(shelf, retention={"keep_last": 1})
    assert [shelf.has(f"docs.v{n}") for n in (1, 2, 3)] == [True, False, True]


def test_retention_by_days_ends_versions_when_their_time_has_come(shelf: Shelf) -> None:
    shelf.add("docs", document("a", "one"))
    shelf.settle(2 * DAY_S)
    shelf.add("docs", document("a", "two"))
    change(shelf, retention={"keep_days": 3})
    assert shelf.has("docs.v1")
    assert shelf.get("docs").status["next_expiry_at"] > shelf.clock.now()
    shelf.settle(2 * DAY_S)
    assert not shelf.has("docs.v1")
    shelf.settle(30 * DAY_S)
    assert shelf.has("docs.v2"), "the newest of a branch stays"


def test_a_version_that_went_is_not_told_as_one_that_came(shelf: Shelf) -> None:
    three(shelf)
    shelf.scope.write([MarkDeleting(shelf.get("docs.v3", "DatasetVersion"))])
    shelf.settle(3)
    told = [change.message for change in shelf.scope.events() if change.reason == "VersionReady"]
    assert told == ["docs.v1", "docs.v2", "docs.v3"] and shelf.get("docs").status["latest"] == "docs.v2"


def test_without_rules_everything_is_kept(shelf: Shelf) -> None:
    three(shelf)
    shelf.settle(1000 * DAY_S)
    assert [shelf.has(f"docs.v{n}") for n in (1, 2, 3)] == [True, True, True]


def test_a_deleted_dataset_takes_its_versions_along_and_no_others(shelf: Shelf) -> None:
    three(shelf)
    shelf.add("other", document("z", "zebra"))
    shelf.scope.write([MarkDeleting(shelf.get("docs"))])
    shelf.settle(3)
    assert shelf.scope.find("Dataset", "docs", "p") is None
    assert [v.name for v in shelf.scope.find_all("DatasetVersion")] == ["other.v1"]
    assert shelf.add("docs", document("a", "anew")).name == "docs.v1"


@pytest.mark.parametrize(
    ("kind", "status", "why"),
    [
        ("TrainingRun", {"dataset_version": "docs.v2"}, "docs.v2 was learned from by training run 'r'"),
        ("ModelVersion", {"origin": {"dataset": "docs.v1"}}, "docs.v1 was learned from by model 'r'"),
        ("QualityModel", {"datasets": ["x.v1", "docs.v1"]}, "docs.v1 was learned from by quality model 'r'"),
        ("TrainingRun", {"dataset_version": "other.v1"}, ""),
    ],
)
def test_a_dataset_says_what_holds_it(shelf: Shelf, kind: str, status: dict[str, Any], why: str) -> None:
    three(shelf)
    specs = {"TrainingRun": {"base": "m", "dataset": "x", "output": "m"}}
    specs["QualityModel"] = {"labels": [{"dataset": "docs", "column": "label", "good": ["good"]}]}
    shelf.create(kind, "r", specs.get(kind, {"model": "m", "training_run": "r", "base": "b"}), **status)
    assert DATASET_KIND.held(shelf.scope, shelf.get("docs")) == why


def test_a_tag_or_a_reader_holds_a_dataset(shelf: Shelf) -> None:
    _, second, third = three(shelf)
    change(shelf, tags={"stable": third.name})
    role = {"command": ["x"], "input": {"sources": [{"reference": second.spec["manifest"]}]}}
    shelf.create("Workload", "w", {"roles": [role]}, phase="running")
    why = "docs.v2 is being read by workload 'w'; docs.v3 is tagged 'stable'"
    assert DATASET_KIND.held(shelf.scope, shelf.get("docs")) == why
