"""Curation runs that name other things of the platform: datasets they know, a deployment that embeds, a model that
packs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.core.resources import Resource
from atoll.data.manifest import read_split
from embedding_server import Embedder
from running import Platform, platform, until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("curation") / "home") as made:
        yield made


def sentence(number: int) -> str:
    """A text of its own."""
    return " ".join(f"reef{number * 100 + place}" for place in range(50))


def source(path: Path, texts: dict[str, str]) -> list[dict[str, Any]]:
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    return [{"kind": "files", "paths": [str(path)]}]


def curated(up: Platform, name: str, sources: list[dict[str, Any]], **recipe: Any) -> Resource:
    wanted = {"preset": "instructions", "privacy": None, **recipe}
    with up.client() as client:
        client.put("CurationRun", name, {"dataset": "web", "sources": sources, "recipe": wanted})
    run = up.reaches("CurationRun", name, "succeeded", "failed", limit_s=240)
    assert run.phase == "succeeded", run.status["reason"]
    return run


def rows(up: Platform, version: str, split: str) -> list[dict[str, Any]]:
    found = up.reaches("DatasetVersion", version, "ready", "failed")
    assert found.phase == "ready", found.status
    made: list[dict[str, Any]] = read_split(
        BlobStore(str(up.home / "blobs")), found.spec["manifest"], split
    ).to_pylist()
    return made


def dropped(run: Resource) -> dict[str, int]:
    return {step["rule"]: step["dropped"] for step in run.status["funnel"] if step["dropped"]}


def test_a_run_drops_what_earlier_versions_of_its_dataset_have(up: Platform, tmp_path: Path) -> None:
    known = {"dedup": {"known": ["web"]}}
    texts = {f"d{number}": sentence(number) for number in range(12)}
    first = curated(up, "monday", source(tmp_path / "1.jsonl", texts), **known)
    assert first.status["known"] == [] and first.status["counts"]["documents_out"] == 12
    again = {"copy": sentence(3), "near": sentence(4).replace("reef400", "rock"), "new": sentence(50)}
    second = curated(up, "tuesday", source(tmp_path / "2.jsonl", again), **known)
    assert second.status["known"] == ["web.v1"] and dropped(second) == {"known_before": 2}
    third = source(tmp_path / "3.jsonl", {"old": sentence(0), "late": sentence(50), "other": sentence(60)})
    wednesday = curated(up, "wednesday", third, **known)
    assert wednesday.status["known"] == ["web.v1", "web.v2"] and dropped(wednesday) == {"known_before": 2}
    assert [row["id"] for row in rows(up, "web.v3", "index")] == ["other"]
    tree = up.cli("data", "lineage", "web.v3").stdout
    assert "CurationRun wednesday" in tree and "DatasetVersion web.v1" in tree and "DatasetVersion web.v2" in tree


def test_a_run_with_nothing_new_fails_and_says_so(up: Platform, tmp_path: Path) -> None:
    with up.client() as client:
        spec = {"dataset": "fresh", "sources": source(tmp_path / "4.jsonl", {"old": sentence(0)})}
        client.put("CurationRun", "idle", {**spec, "recipe": {"preset": "instructions", "dedup": {"known": ["web"]}}})
    run = up.reaches("CurationRun", "idle", "failed", limit_s=240)
    assert "known_before 1" in run.status["reason"] and "none of them is new" in run.status["reason"]


def test_a_deployment_embeds_through_the_gateway(up: Platform, tmp_path: Path) -> None:
    server = Embedder()
    try:
        with up.client() as client:
            models = [{"name": "words", "task": "embed"}]
            client.put("Provider", "press", {"url": f"{server.url}/v1", "models": models})
            up.reaches("Provider", "press", "ready")
        words = sentence(70).split()
        texts = {"one": " ".join(words), "turned": " ".join(words[::-1]), "other": sentence(71)}
        semantic = {"semantic": {"deployment": "words", "threshold": 0.99}}
        run = curated(up, "meaning", source(tmp_path / "5.jsonl", texts), dedup=semantic)
        assert dropped(run) == {"semantic_duplicate": 1}
        assert sorted(server.asked) == sorted(texts.values())
        until(lambda: up.is_gone("Secret", "key-curationrun-meaning"), "the run's secret to go")
        with up.client() as client:
            assert client.get("ApiKey", "key-curationrun-meaning").spec["revoked"]
    finally:
        server.close()


def test_a_model_of_the_library_packs(up: Platform, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="no model can be made here (pip install atoll[train])")
    from tiny_safetensors import tokenizer, write_model

    folder = write_model(tmp_path / "small")
    with up.client() as client:
        client.put("ModelVersion", "small.v1", {"model": "small", "source": f"file:{folder}", "licence": "MIT"})
    assert up.reaches("ModelVersion", "small.v1", "ready", "failed").phase == "ready"
    pack = {"model": "small", "length": 64}
    run = curated(up, "packed", source(tmp_path / "6.jsonl", {"a": sentence(80), "b": sentence(81)}), pack=pack)
    assert run.status["model_version"] == "small.v1"
    version = run.status["dataset_version"]
    trained = [row["text"] for row in rows(up, version, "train")]
    tokens = sum(len(tokenizer().encode(text).ids) + 1 for text in trained)
    assert sum(row["used"] for row in rows(up, version, "packed")) == tokens
    assert "ModelVersion small.v1" in up.cli("data", "lineage", version).stdout
