"""A digest of another project's bytes is of no use: whatever takes digests asks whether the project has the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from atoll.core.blobs import digest_of
from atoll.core.resources import Resource
from atoll.core.store import Create
from atoll.data.files import create_file
from atoll.data.manifest import read_manifest
from atoll.data.resources import DATASET_VERSION
from running import until
from small_datasets import dataset, document

from .conftest import House, opened

LINES = b"".join(json.dumps({"prompt": f"p{n}", "completion": "kept by red alone"}).encode() + b"\n" for n in range(3))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of our own: runs begin here, and their workloads would be handed to others' nodes."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def red(house: House) -> str:
    return house.key("red")


@pytest.fixture(scope="module")
def blue(house: House) -> str:
    return house.key("blue")


@pytest.fixture(scope="module")
def lines(house: House) -> str:
    """The digest of a plain file of red, as those were that were uploaded before they were sealed."""
    blob = house.centre.blobs.put_bytes(LINES)
    write = create_file("red", "file-plain", "a.jsonl", "fine-tune", digest=blob.digest, size_bytes=blob.size_bytes)
    house.centre.store.everything("test").write([write])
    return blob.digest


@pytest.fixture(scope="module")
def papers(house: House) -> str:
    """The digest of the manifest of a version of red."""
    digest = dataset(house.centre.blobs, house.home, {"train": [[document("a", "read by red alone")]]})
    spec = DATASET_VERSION.parse_spec({"dataset": "papers", "manifest": digest})
    house.centre.store.everything("test").write([Create("DatasetVersion", "red", "papers.v1", spec)])
    until(lambda: find(house, "red", "DatasetVersion", "papers.v1").phase == "ready", "the version")
    return digest


def find(house: House, project: str, kind: str, name: str) -> Resource:
    return house.centre.store.scope(project).get(kind, name)


def begun(house: House, project: str, name: str, key: str, **spec: Any) -> Resource:
    """An import, once its controller has looked at it."""
    house.put(project, "datasetimports", name, {"dataset": name, **spec}, key=key)
    until(lambda: find(house, project, "DatasetImport", name).status.get("reason"), "the import to begin")
    return find(house, project, "DatasetImport", name)


def send(house: House, project: str, data: bytes, key: str) -> None:
    """Upload `data` as a plain blob."""
    where = f"/projects/{project}/uploads"
    upload = f"{where}/{house.ask('POST', where, key=key)['id']}"
    headers = {"Authorization": f"Bearer {key}", "Upload-Offset": "0"}
    assert house.client.patch(upload, content=data, headers=headers).status_code == 200
    house.ask("POST", upload, {"digest": digest_of(data)}, key=key)


@pytest.mark.parametrize("side", ["train", "heldout"])
def test_an_import_takes_only_lines_the_project_has(house: House, red: str, blue: str, lines: str, side: str) -> None:
    named = {"train": lines} if side == "train" else {"train": digest_of(b"own"), "heldout": lines}
    send(house, "blue", b"own", blue)
    stolen = begun(house, "blue", f"stolen-{side}", blue, **named)
    assert stolen.phase == "failed", stolen.status
    assert f"{side}: project 'blue' has no file {lines}" in stolen.status["reason"]
    assert house.centre.store.scope("blue").children(stolen.uid) == []
    own = begun(house, "red", f"own-{side}", red, train=lines, heldout=lines)
    assert own.phase == "pending" and house.centre.store.scope("red").children(own.uid)


def test_what_a_project_sent_itself_it_may_name(house: House, blue: str, lines: str) -> None:
    send(house, "blue", LINES, blue)
    assert begun(house, "blue", "sent", blue, train=lines).phase == "pending"


def test_who_has_the_bytes_under_a_name_is_not_who_has_it_later(house: House) -> None:
    house.put("system", "projects", "brief", {})
    send(house, "brief", b"sent by the first of this name", house.key("brief"))
    house.ask("DELETE", "/projects/system/projects/brief")
    everything = house.centre.store.everything()
    until(lambda: everything.find("Project", "brief", "system") is None, "the project to be gone")
    house.put("system", "projects", "brief", {})
    taken = begun(house, "brief", "taken", house.admin, train=digest_of(b"sent by the first of this name"))
    assert taken.phase == "failed", taken.status


def test_a_version_is_made_of_shards_the_project_has(house: House, red: str, blue: str, papers: str) -> None:
    blobs = house.centre.blobs
    manifest = blobs.read(papers)
    body = {"manifest": manifest.decode()}
    for key in (blue, house.admin):
        said = house.ask("POST", "/projects/blue/datasets/taken/versions", body, key=key, code=400)["error"]
        assert said["details"]["missing"] == ["train/00000.parquet"]
    wrong = json.loads(manifest)
    wrong["splits"]["train"]["shards"][0]["bytes"] += 1
    told = {"manifest": json.dumps(wrong)}
    said = house.ask("POST", "/projects/blue/datasets/taken/versions", told, key=blue, code=400)["error"]
    assert said["details"]["missing"] == ["train/00000.parquet"], "whether others have it is not told"
    assert house.ask("POST", "/projects/red/datasets/again/versions", body, key=red)["created"]
    (shard,) = read_manifest(blobs, papers).splits["train"].shards
    send(house, "blue", blobs.read(shard.digest), blue)
    assert house.ask("POST", "/projects/blue/datasets/taken/versions", body, key=blue)["version"] == "taken.v1"


@pytest.mark.parametrize(
    "recipe", [{"quality": [{"name": "q", "model": "X"}]}, {"words": [{"name": "w", "digest": "X"}]}, {}]
)
def test_a_curation_takes_only_bytes_the_project_has(house: House, blue: str, lines: str, recipe: Any) -> None:
    name = f"curious-{'-'.join(recipe) or 'source'}"
    sources = [{"kind": "stdlib"}] if recipe else [{"kind": "upload", "digest": lines}]
    spec = {"dataset": name, "sources": sources, "recipe": json.loads(json.dumps(recipe).replace('"X"', f'"{lines}"'))}
    house.put("blue", "curationruns", name, spec, key=blue)
    until(lambda: find(house, "blue", "CurationRun", name).status.get("reason"), "the run to begin")
    run = find(house, "blue", "CurationRun", name)
    assert run.phase == "failed" and f"project 'blue' has no file {lines}" in run.status["reason"]


@pytest.mark.parametrize("reference", ["papers.v1", "PAPERS", "papers@main"])
def test_no_reference_reaches_into_another_project(house: House, blue: str, papers: str, reference: str) -> None:
    reference = reference.replace("PAPERS", papers)
    house.ask("GET", f"/projects/blue/datasetversions/{reference}/manifest", key=blue, code=404)
    for plural, spec in (
        ("curationruns", {"dataset": "x", "sources": [{"kind": "dataset", "reference": reference}]}),
        ("synthesisruns", {"dataset": "x", "source": reference, "model": "m"}),
        ("qualitymodels", {"method": "perplexity", "good": [{"dataset": reference}]}),
        ("trainingruns", {"base": "m", "dataset": reference, "output": "x"}),
        ("labeltasks", {"fields": [{"name": "x", "type": "text"}], "source": {"dataset": reference}}),
    ):
        name = f"{plural}-{abs(hash(reference))}"
        house.put("blue", plural, name, spec, key=blue)
        kind = {"curationruns": "CurationRun", "synthesisruns": "SynthesisRun", "qualitymodels": "QualityModel"}
        kind |= {"trainingruns": "TrainingRun", "labeltasks": "LabelTask"}
        until(lambda k=kind[plural], n=name: find(house, "blue", k, n).phase == "failed", plural)
    assert not any(papers in str(w.spec) for w in house.centre.store.scope("blue").find_all("Workload"))


def test_a_dataset_that_is_held_is_not_deleted_and_says_why(house: House, red: str, papers: str) -> None:
    house.ask("POST", "/projects/red/datasets/held/versions", {"manifest": house.centre.blobs.read(papers).decode()})
    scope = house.centre.store.scope("red")
    until(lambda: scope.get("Dataset", "held").status.get("latest"), "the version to be ready")
    house.put("red", "datasets", "held", {"tags": {"stable": "held.v1"}}, key=red)
    error = house.ask("DELETE", "/projects/red/datasets/held", key=red, code=409)["error"]
    assert "Dataset/red/held is in use: held.v1 is tagged 'stable'" in error["message"] and "untag" in error["hint"]
    house.put("red", "datasets", "held", {}, key=red)
    house.ask("DELETE", "/projects/red/datasets/held", key=red)
    until(lambda: scope.find("Dataset", "held") is None, "the dataset to be gone")
    assert scope.find("DatasetVersion", "held.v1") is None
    house.ask("GET", "/projects/red/datasetversions/papers.v1/manifest", key=red)
