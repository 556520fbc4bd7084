"""Labelling on a whole platform: items from a file, a model's suggestions through the door, people, a dataset, a model
of quality trained from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from atoll.core.blobs import BlobStore
from atoll.core.resources import Resource
from atoll.data.engine.quality import classifier
from atoll.data.manifest import open_split, read_manifest
from atoll.sdk import resolve_credentials
from running import Platform, platform, processes, until
from tiny_training import write_model

FIELDS: list[dict[str, Any]] = [
    {"name": "quality", "type": "class", "options": ["good", "poor"], "description": "Is it a sentence?"}
]
GOOD = ("the registry opens at nine", "bring your passport with you", "the council meets on monday evening")
POOR = ("buy now click here", "qx zv kk jj ww", "win win win free free")
ROWS = 80


def text_of(number: int) -> str:
    kind = GOOD if number % 2 else POOR
    return f"{kind[number % 3]} {number} {kind[(number // 3) % 3]}"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("labels")
    with platform(root / "home") as made:
        model = write_model(root / "tiny.gguf")
        with made.client() as client:
            client.put("ModelVersion", "tiny.v1", {"model": "tiny", "source": f"file:{model}", "licence": "MIT"})
            client.put("Deployment", "tiny", {"model": "tiny", "context": 1024, "slots": 2, "cpu": 0.1, "threads": 1})
        yield made


def ask(up: Platform, method: str, path: str, body: Any = None, key: str = "") -> Any:
    key = key or resolve_credentials(home=up.home, environment={}).key
    answer = httpx.request(
        method,
        f"{up.address}/api/v1/projects/default{path}",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    assert answer.status_code == 200, (method, path, answer.text)
    return answer.json()


@pytest.fixture(scope="module")
def task(up: Platform) -> Resource:
    """A task whose items come from an uploaded file."""
    lines = "\n".join(json.dumps({"id": f"r{n:03d}", "text": text_of(n), "page": n}) for n in range(ROWS))
    file = up.openai().files.create(file=("rows.jsonl", lines.encode()), purpose="user_data")
    with up.client() as client:
        client.put("LabelTask", "tone", {"fields": FIELDS, "source": {"file": file.id}, "labels_per_item": 2})
    return up.reaches("LabelTask", "tone", "ready")


def end_of(up: Platform, run: dict[str, Any]) -> Resource:
    return up.reaches("LabelRun", run["name"], "succeeded", limit_s=120)


def test_items_come_in_from_a_file_with_everything_the_file_says(up: Platform, task: Resource) -> None:
    page = ask(up, "GET", "/labels/tone/rows?limit=2")["rows"]
    assert [row["id"] for row in page] == ["r000", "r001"]
    assert page[1]["item"] == {"text": text_of(1), "meta": {"page": 1}}
    until(lambda: (found := up.read("LabelTask", "tone")) and found.status["counts"]["items"] == ROWS, "the counts")


@contextlib.contextmanager
def silent_model(up: Platform) -> Iterator[None]:
    """The model answers nobody meanwhile: what asks it cannot be done before it is looked at."""
    (serving,) = processes(up.home, "atoll.serving.engine.llamacpp")
    os.kill(serving, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(serving, signal.SIGCONT)


def test_a_model_suggests_through_the_door_and_outlives_a_kill(up: Platform, task: Resource) -> None:
    up.reaches("Deployment", "tiny", "ready")
    with silent_model(up):
        run = ask(up, "POST", "/labels/tone/prelabel", {"model": "tiny", "parallel": 2})
        engine = until(lambda: processes(up.home, "atoll.data.engine.label.prelabel"), "the engine to run")
        os.kill(engine[-1], signal.SIGKILL)
    done = end_of(up, run)
    assert done.status["model_version"] == "tiny.v1"
    assert done.status["counts"]["labelled"] + done.status["counts"]["passed_over"] == ROWS
    rows = ask(up, "GET", "/labels/tone/rows?limit=500")["rows"]
    assert {row["prelabel_by"] for row in rows} == {"tiny@tiny.v1"}
    assert {row["prelabel"]["quality"] for row in rows} <= {"good", "poor"}
    with up.client() as client:
        found = client.find_all("ApiKey").items
        (key,) = [key for key in found if key.owner == done.uid]
        spec = key.spec
        assert (spec["models"], spec["priority"], spec["charged_to"]) == (["tiny"], "batch", "default/admin")
        until(lambda: client.get("ApiKey", key.name).spec["revoked"], "the run's key to be refused")


def test_a_model_that_is_not_there_fails_the_run_by_name(up: Platform, task: Resource) -> None:
    run = ask(up, "POST", "/labels/tone/prelabel", {"model": "nothing"})
    failed = up.reaches("LabelRun", run["name"], "failed", limit_s=120)
    assert "nothing" in failed.status["reason"]


def test_labels_become_a_dataset_and_a_model_of_quality(up: Platform, task: Resource) -> None:
    with up.client() as client:
        keys = [client.create_key().key for _ in range(2)]
    for key in keys:
        while items := ask(up, "POST", "/labels/tone/next", {"count": 20}, key)["items"]:
            for item in items:
                said = {"quality": "good" if item["text"].startswith(GOOD) else "poor"}
                ask(up, "POST", "/labels/tone/answers", {"item": item["item"], "values": said}, key)
    assert ask(up, "GET", "/labels/tone/status")["counts"]["decided"] == ROWS
    assert ask(up, "GET", "/labels/tone/agreement")["fields"][0]["kappa"] == 1.0
    exported = end_of(up, ask(up, "POST", "/labels/tone/export", {"dataset": "tones"}))
    version = up.reaches("DatasetVersion", exported.status["dataset_version"], "ready")
    store = BlobStore((up.home / "blobs").as_uri())
    rows = list(open_split(store, read_manifest(store, version.spec["manifest"]), "labels"))
    assert len(rows) == ROWS
    assert rows[1]["label_quality"] == "good"
    assert json.loads(rows[1]["answers"])[0]["labeller"] in ("L1", "L2")
    wanted = {"labels": [{"dataset": "tones", "column": "label_quality", "good": ["good"]}]}
    with up.client() as client:
        client.put("QualityModel", "sentences", wanted)
    trained = up.reaches("QualityModel", "sentences", "ready", limit_s=120)
    assert trained.status["figures"]["auc"] == 1.0
    assert trained.status["datasets"] == [version.name]
    path = store.fetch(trained.status["model"], Path(up.home) / "sentences.aqm")
    scores = classifier.load(path).score(pa.array([GOOD[0], POOR[0]]))
    assert scores[0] > 0.5 > scores[1]


def test_an_export_came_from_the_version_its_items_came_from(up: Platform) -> None:
    with up.client() as client:
        client.put("LabelTask", "second", {"fields": FIELDS, "source": {"dataset": "tones", "split": "labels"}})
        up.reaches("LabelTask", "second", "ready")
        ask(up, "POST", "/labels/tone/adjudicate", {"item": "r001", "values": {"quality": "poor"}})
        again = end_of(up, ask(up, "POST", "/labels/tone/export", {"dataset": "tones"}))
        assert again.status["dataset_version"] == "tones.v2"
        up.reaches("DatasetVersion", "tones.v2", "ready")
        exported = end_of(up, ask(up, "POST", "/labels/second/export", {"dataset": "seconds", "decided_only": False}))
        assert client.get("DatasetVersion", exported.status["dataset_version"]).spec["parents"] == ["tones.v1"]
    assert ask(up, "GET", "/labels/second/rows?limit=1")["rows"][0]["item"]["meta"]["label_quality"] == "poor"


def test_an_import_that_failed_is_tried_again_when_its_task_is_changed(up: Platform, task: Resource) -> None:
    wanted = {"fields": FIELDS, "source": {"dataset": "late", "split": "labels"}}
    with up.client() as client:
        client.put("LabelTask", "early", wanted)
        assert "no dataset 'late'" in up.reaches("LabelTask", "early", "failed").status["reason"]
        made = end_of(up, ask(up, "POST", "/labels/tone/export", {"dataset": "late", "decided_only": False}))
        up.reaches("DatasetVersion", made.status["dataset_version"], "ready")
        client.put("LabelTask", "early", wanted | {"instructions": "Now it is there."})
        up.reaches("LabelTask", "early", "ready")
    assert ask(up, "GET", "/labels/early/status")["counts"]["items"] == ROWS


def test_a_task_goes_with_its_rows_and_runs(up: Platform, task: Resource) -> None:
    with up.client() as client:
        client.delete("LabelTask", "tone")
        until(lambda: client.find("LabelTask", "tone") is None, "the task to go")
        assert [run for run in client.find_all("LabelRun").items if run.owner == task.uid] == []
        client.put("LabelTask", "tone", {"fields": FIELDS})
    assert ask(up, "GET", "/labels/tone/status")["counts"]["items"] == 0
