"""A synthesis on a real platform: kind, workload, a key of its own, the gateway, and a model server behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.data.manifest import read_split
from integration.synthesis.author import Author
from integration.synthesis.conftest import dataset
from running import Platform, platform, until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("synthesis")
    with platform(root / "home") as made:
        manifest = dataset(blobs(made), root, 8, 4)
        with made.client() as client:
            client.put("DatasetVersion", "reefs.v1", {"dataset": "reefs", "manifest": manifest})
        made.reaches("DatasetVersion", "reefs.v1", "ready")
        yield made


def blobs(up: Platform) -> BlobStore:
    return BlobStore(str(up.home / "blobs"))


def rows(up: Platform, version: str, split: str) -> list[dict[str, Any]]:
    found = up.reaches("DatasetVersion", version, "ready", "failed")
    assert found.phase == "ready", found.status
    made: list[dict[str, Any]] = read_split(blobs(up), found.spec["manifest"], split).to_pylist()
    return made


def test_a_run_asks_through_the_gateway_and_makes_a_version(up: Platform, model: Author) -> None:
    with up.client() as client:
        told = {"name": "author", "model": "author", "context": 8192}
        client.put("Provider", "press", {"url": f"{model.url}/v1", "models": [told]})
        up.reaches("Provider", "press", "ready")
    words = ["data", "synthesise", "reefs", "--model", "author", "--dataset", "reef-questions"]
    done = up.cli(*words, "--per-document", "2", "--name", "first")
    assert done.returncode == 0, done.stderr
    assert "reef-questions.v1: 24 of 24 pairs kept, 8 of them held out" in done.stdout
    again = up.cli(*words, "--name", "first")
    assert (again.returncode != 0, "synthesis 'first' is there already" in again.stderr) == (True, True)
    run = up.reaches("SynthesisRun", "first", "succeeded")
    assert run.status["dataset_version"] == "reef-questions.v1"
    assert len(rows(up, "reef-questions.v1", "qa_train")) == 16
    assert len(rows(up, "reef-questions.v1", "qa_heldout")) == 8
    assert run.status["counts"]["tokens"] == 2400
    until(lambda: up.is_gone("Secret", "key-synthesisrun-first"), "the run's secret to go")
    with up.client() as client:
        assert client.get("ApiKey", "key-synthesisrun-first").spec["revoked"]
        assert client.get("DatasetVersion", "reef-questions.v1").spec["parents"] == ["reefs.v1"]


def test_a_real_model_writes_pairs_that_are_supported(up: Platform, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the serving engine is not installed (pip install atoll[serve])")
    path = os.environ.get("ATOLL_TEST_MODEL")
    if not path:
        pytest.skip("no real model here: set ATOLL_TEST_MODEL to a GGUF chat model")
    with up.client() as client:
        client.put("ModelVersion", "small.v1", {"model": "small", "source": f"file:{path}", "licence": "apache-2.0"})
        up.reaches("ModelVersion", "small.v1", "ready")
        client.put("Deployment", "small", {"model": "small.v1", "context": 4096, "slots": 2, "cpu": 0.5, "threads": 2})
        up.reaches("Deployment", "small", "ready")
        spec = {"dataset": "small-questions", "source": "reefs", "model": "small", "attempts": 2, "temperature": 0.3}
        sizes = {"documents_max": 4, "per_document": 1, "parallel": 2, "answer_characters_max": 200}
        client.put("SynthesisRun", "second", spec | sizes)
    run = up.reaches("SynthesisRun", "second", "succeeded", "failed", limit_s=280)
    if run.phase == "failed":  # a small model may have nothing to say
        assert run.status["reason"].startswith("none of 4 answers made a supported pair: "), run.status
        return
    texts = {row["id"]: row["text"] for side in ("train", "heldout") for row in rows(up, "reefs.v1", side)}
    made = [row for split in ("qa_train", "qa_heldout") for row in rows(up, run.status["dataset_version"], split)]
    assert made, run.status["funnel"]
    for row in made:
        assert texts[row["document"]][row["span_start"] : row["span_end"]] == row["evidence"]
        assert row["support"] >= 0.48
