"""The whole journey on a tiny model: documents, dataset, fine-tune, gate, deployment, answers, statement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import yaml

import tiny_training
from running import Platform, platform, until

RECIPE = {
    "rank": 4,
    "steps": 6,
    "batch_tokens": 256,
    "micro_batch_tokens": 128,
    "sequence_length": 128,
    "heldout_rows": 8,
    "checkpoint_every_steps": 2,
    "learning_rate": 0.02,
    "precision": "float32",
    "threads": 1,
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("journey")
    (root / "docs").mkdir()
    for name, text in sorted(topics.items())[:60]:
        (root / "docs" / f"{name}.rst").write_text(text)
    (root / "docs" / "empty.md").touch()
    tiny_training.write_model(root / "tiny.gguf")
    with platform(root / "home") as made:
        yield made


def pipeline(up: Platform, name: str, min_drop: float) -> Path:
    root = up.home.parent
    documents = [{"kind": "folder", "path": str(root / "docs")}]
    version, tuned = "${steps.curate.status.dataset_version}", "${steps.train.status.model_version}"
    served = {"context": 256, "slots": 2, "cpu": 0.1, "threads": 1}
    price = {"input_per_million": 1_000_000, "output_per_million": 2_000_000, "currency": "EUR"}
    steps: list[dict[str, Any]] = [
        step("import", "ModelVersion", {"model": "tiny", "source": f"file:{root / 'tiny.gguf'}"}, resource="tiny.v1"),
        step("curate", "CurationRun", {"dataset": "topics", "sources": documents}, needs=[], resource="topics"),
        step(
            "train",
            "TrainingRun",
            {"base": "${steps.import.name}", "dataset": version, "output": "tuned", "recipe": RECIPE},
            needs=["import", "curate"],
            resource="train",
        ),
        step(
            "judge",
            "Evaluation",
            {"model": tuned, "dataset": version, "gate": {"min_drop": min_drop}, "promote": True, "max_rows": 8},
        ),
        step("serve", "Deployment", {"model": tuned, "price": price, **served}, resource=f"tutor-{name}"),
    ]
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"kind": "Pipeline", "name": name, "spec": {"steps": steps}}))
    return path


def step(name: str, kind: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "spec": spec, **fields}


def test_documents_become_a_served_and_billed_model(up: Platform) -> None:
    done = up.cli("pipeline", "run", "-f", str(pipeline(up, "good", -10.0)), "--yes", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    with up.client() as client:
        curated = client.get("CurationRun", "topics").status
        trained = client.get("TrainingRun", "train").status
        model = client.get("Model", "tuned").status
        key = client.create_key(description="journey")
    funnel = {rule["rule"]: rule["dropped"] for rule in curated["funnel"]}
    counts = curated["counts"]
    assert funnel["unreadable"] == 1
    assert counts["documents_in"] - sum(funnel.values()) == counts["documents_out"] > 0
    assert counts["qa_train"] > 0
    assert counts["qa_heldout"] > 0
    assert trained["result"]["steps"] == RECIPE["steps"]
    assert model["production"] == trained["model_version"] == "tuned.v1"
    up.knows("tutor-good", key.key, is_ready=True)
    door = up.openai(key.key, retries=3)
    reply = door.chat.completions.create(
        model="tutor-good", messages=[{"role": "user", "content": "What is a class?"}], max_tokens=6
    )
    assert reply.usage is not None
    usage = reply.usage

    def bill() -> list[tuple[int, int, float]]:
        with up.client() as client:
            rows = [row for row in client.usage().rows if row.key == key.id]
        return [(row.prompt_tokens, row.completion_tokens, row.cost) for row in rows]

    told = (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + 2.0 * usage.completion_tokens)
    assert until(bill, "the statement") == [told]


def test_running_it_again_runs_nothing_again(up: Platform) -> None:
    path = str(pipeline(up, "good", -10.0))
    assert up.cli("pipeline", "run", "-f", path, "--yes", timeout=600).returncode == 0
    with up.client() as client:
        before = {t.uid for t in client.find_all("Task").items}
    assert up.cli("pipeline", "run", "-f", path, "--yes", timeout=600).returncode == 0
    with up.client() as client:
        assert {t.uid for t in client.find_all("Task").items} == before


def test_a_failed_gate_stops_the_pipeline_with_its_numbers(up: Platform) -> None:
    done = up.cli("pipeline", "run", "-f", str(pipeline(up, "strict", 0.99)), "--yes", timeout=600)
    assert done.returncode == 1
    assert "judge" in done.stdout + done.stderr
    with up.client() as client:
        strict = client.get("Pipeline", "strict")
        assert client.find("Deployment", "tutor-strict") is None
    assert strict.phase == "failed"
    assert "99" in strict.status["reason"]


def test_the_tuned_adapter_is_served_beside_its_base_by_one_engine(up: Platform) -> None:
    with up.client() as client:
        adapters = [{"name": "tutored", "model": "tuned.v1"}]
        spec = {"model": "tiny.v1", "context": 256, "slots": 2, "cpu": 0.1, "threads": 1, "adapters": adapters}
        client.put("Deployment", "both", spec)
    up.reaches("Deployment", "both", "ready")
    door = up.openai(retries=3)
    for model in ("both", "tutored"):
        up.knows(model, is_ready=True)
        reply = door.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "What is a class?"}], max_tokens=8, temperature=0
        )
        assert reply.usage is not None
        assert reply.usage.completion_tokens > 0
    assert {"both", "tutored"} <= {m.id for m in door.models.list()}
    with up.client() as client:
        assert len([r for r in client.find_all("Replica").items if r.spec["deployment"] == "both"]) == 1


def test_embeddings_are_served(up: Platform) -> None:
    with up.client() as client:
        client.put("ModelVersion", "plain.v1", {"model": "plain", "source": f"file:{up.home.parent / 'tiny.gguf'}"})
        spec = {"model": "plain.v1", "context": 256, "slots": 1, "cpu": 0.1, "threads": 1, "task": "embed"}
        client.put("Deployment", "vectors", spec)
    up.reaches("Deployment", "vectors", "ready")
    up.knows("vectors", is_ready=True)
    answer = up.openai(retries=3).embeddings.create(model="vectors", input=["one", "two"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) == 64
