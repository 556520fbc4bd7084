"""From a version up to its sources and down to what people ask, and nothing of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import digest_of
from atoll.core.clock import VirtualClock
from atoll.core.errors import NotFound
from atoll.core.resources import KINDS
from atoll.core.store import Store
from atoll.data.lineage import UNTOLD, Lineage, Node, lines
from atoll.server import kinds
from small_datasets import Shelf, document

assert kinds.DOMAINS
FILE = {"filename": "raw.jsonl", "purpose": "fine-tune", "digest": digest_of(b"raw"), "size_bytes": 3}


@pytest.fixture
def shelf(sqlite_store: Store, clock: VirtualClock, tmp_path: Path) -> Shelf:
    """raw.jsonl → import → docs.v1 → curate → docs.v2 → train → m.v2 (on m.v1 from a package) → a deployment."""
    made = Shelf(sqlite_store, clock, tmp_path)
    made.create("File", "file-1", FILE, phase="ready")
    done = {"phase": "succeeded", "observed_generation": 1}
    load = {"dataset": "docs", "train": FILE["digest"]}
    made.create("DatasetImport", "load", load, **done, dataset_version="docs.v1")
    made.add("docs", document("a", "one"), made_by="DatasetImport/load")
    source = {"kind": "folder", "path": "/srv/pages", "licence": "MIT"}
    sources = [{"kind": "dataset", "reference": "docs.v1"}, source]
    made.create("CurationRun", "clean", {"dataset": "docs", "sources": sources}, **done, dataset_version="docs.v2")
    made.add("docs", document("a", "two"), curation_run="clean", parents=["docs.v1"])
    made.create("ModelVersion", "m.v1", {"model": "m", "source": "pypi:m==1"}, phase="ready")
    run = {"base": "m", "dataset": "docs", "output": "m"}
    told = {"dataset_version": "docs.v2", "base_version": "m.v1", "model_version": "m.v2"}
    made.create("TrainingRun", "tune", run, **done, **told)
    origin = {"training_run": "tune", "base": "m.v1", "dataset": "docs.v2"}
    version = {"model": "m", "training_run": "tune", "base": "m.v1"}
    made.create("ModelVersion", "m.v2", version, phase="ready", origin=origin)
    made.create("Deployment", "chat", {"model": "m"}, phase="ready", version="m.v2")
    return made


def lineage(shelf: Shelf, project: str = "p") -> Lineage:
    scope = shelf.store.scope(project)
    return Lineage(r for kind in KINDS if kind.name not in UNTOLD for r in scope.find_all(kind.name))


def names(node: Node) -> list[str]:
    return [f"{n.kind}/{n.name}" for n in node.walk()]


def test_up_leads_through_runs_and_parents_to_files_and_folders(shelf: Shelf) -> None:
    up = lineage(shelf).up("DatasetVersion", "docs.v2")
    assert [child.name for child in up.children] == ["clean", "docs.v1"]
    found = names(up)
    assert {"CurationRun/clean", "DatasetImport/load", "File/file-1", "source/folder /srv/pages"} <= set(found)
    assert found.count("File/file-1") == 1


def test_down_leads_to_the_deployments(shelf: Shelf) -> None:
    found = names(lineage(shelf).down("File", "file-1"))
    expected = ["DatasetImport/load", "DatasetVersion/docs.v1", "DatasetVersion/docs.v2", "TrainingRun/tune"]
    assert set(expected) | {"ModelVersion/m.v2", "Deployment/chat"} <= set(found)
    assert "ModelVersion/m.v1" not in found, "the base came from elsewhere"


def test_a_model_leads_back_to_its_data_and_its_base(shelf: Shelf) -> None:
    found = names(lineage(shelf).up("ModelVersion", "m.v2"))
    assert {"TrainingRun/tune", "DatasetVersion/docs.v2", "ModelVersion/m.v1", "source/pypi:m==1"} <= set(found)
    assert "Deployment/chat" not in found


def test_a_tree_is_readable(shelf: Shelf) -> None:
    text = lines(lineage(shelf).up("DatasetVersion", "docs.v1"))
    assert text == [
        "DatasetVersion docs.v1 (ready) train 1",
        "  DatasetImport load (succeeded)",
        "    File file-1 (ready) raw.jsonl",
    ]


def test_circles_end(shelf: Shelf) -> None:
    shelf.create("ModelVersion", "x.v1", {"model": "x", "training_run": "t", "base": "y.v1"}, phase="ready")
    shelf.create("ModelVersion", "y.v1", {"model": "y", "training_run": "t", "base": "x.v1"}, phase="ready")
    assert names(lineage(shelf).up("ModelVersion", "x.v1")) == [
        "ModelVersion/x.v1",
        "ModelVersion/y.v1",
        "ModelVersion/x.v1",
    ]


def test_another_project_is_not_seen(shelf: Shelf) -> None:
    shelf.add("docs", document("z", "theirs"), project="q", parents=["docs.v1"])
    theirs = lineage(shelf, "q")
    assert names(theirs.up("DatasetVersion", "docs.v1")) == ["DatasetVersion/docs.v1"]
    with pytest.raises(NotFound, match=r"docs\.v2"):
        theirs.down("DatasetVersion", "docs.v2")
    assert lineage(shelf).find("docs.v2") == ("DatasetVersion", "docs.v2")


def test_things_are_found_by_name_alone(shelf: Shelf) -> None:
    found: Any = lineage(shelf).find
    assert found("tune") == ("TrainingRun", "tune") and found("nothing") is None


def test_what_a_run_knew_and_what_scored_and_packed_its_documents_are_its_origins(shelf: Shelf) -> None:
    labels = {"labels": [{"dataset": "docs", "split": "labels", "column": "label_tone", "good": ["good"]}]}
    shelf.create("QualityModel", "tone", labels, phase="ready", datasets=["docs.v1"])
    recipe = {"quality": [{"name": "tone", "model": "tone"}], "dedup": {"known": ["docs"]}, "pack": {"model": "m"}}
    spec = {"dataset": "more", "sources": [{"kind": "stdlib"}], "recipe": recipe}
    told = {"dataset_version": "more.v1", "known": ["docs.v1", "docs.v2"], "model_version": "m.v1"}
    shelf.create("CurationRun", "again", spec, phase="succeeded", observed_generation=1, **told)
    shelf.add("more", document("b", "three"), curation_run="again")
    found = names(lineage(shelf).up("DatasetVersion", "more.v1"))
    assert {"CurationRun/again", "QualityModel/tone", "ModelVersion/m.v1", "DatasetVersion/docs.v2"} <= set(found)
    assert "DatasetVersion/more.v1" in names(lineage(shelf).down("DatasetVersion", "docs.v1"))
    assert "CurationRun/again" in names(lineage(shelf).down("QualityModel", "tone"))
