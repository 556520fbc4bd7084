"""Fine-tuning jobs through the official client: an uploaded file becomes a model version that can be served."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from running import Platform, until
from tiny_training import COLOURS, RECIPE

RECIPE_FIELDS = {name: value for name, value in RECIPE.items() if name not in ("learning_rate",)}


def chat(number: int) -> dict[str, Any]:
    said = [
        {"role": "system", "content": "You know the colours of items."},
        {"role": "user", "content": f"What is item {number}?"},
        {"role": "assistant", "content": f"Item {number} is {COLOURS[number % 4]}."},
    ]
    return {"messages": said}


def upload(door: openai.OpenAI, lines: list[Any]) -> str:
    data = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return door.files.create(file=("chats.jsonl", data.encode()), purpose="fine-tune").id


def begin(door: openai.OpenAI, training_file: str, *, steps: int = 4, **options: Any) -> FineTuningJob:
    hyperparameters = {"learning_rate_multiplier": 10.0, **RECIPE_FIELDS, "steps": steps}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return door.fine_tuning.jobs.create(model="tiny", training_file=training_file, method=method, **options)


def state(door: openai.OpenAI, job: FineTuningJob, *states: str, limit_s: float = 180.0) -> FineTuningJob:
    def look() -> FineTuningJob | None:
        found = door.fine_tuning.jobs.retrieve(job.id)
        assert found.status in states or found.status not in ("failed", "succeeded", "cancelled"), found
        return found if found.status in states else None

    return until(look, f"{job.id} to be {' or '.join(states)}", limit_s)


def test_a_job_makes_a_version_that_answers(door: openai.OpenAI, up: Platform) -> None:
    training = upload(door, [chat(n) for n in range(30)] + [{"prompt": "What is x?", "completion": "X is red."}])
    validation = upload(door, [chat(n) for n in range(30, 36)])
    job = begin(door, training, validation_file=validation, suffix="Colours!", seed=7, metadata={"why": "test"})
    assert (job.object, job.training_file, job.validation_file, job.seed) == (
        "fine_tuning.job",
        training,
        validation,
        7,
    )
    assert job.status in ("validating_files", "queued")
    done = state(door, job, "succeeded")
    assert done.fine_tuned_model == "tiny-colours.v1"
    assert done.trained_tokens
    assert done.metadata == {"why": "test"}
    assert done.hyperparameters.learning_rate_multiplier == 10.0
    messages = [event.message for event in door.fine_tuning.jobs.list_events(job.id, limit=3)]
    assert any(message.startswith("Succeeded") for message in messages)
    assert any(message.startswith("Started") for message in messages)
    (checkpoint,) = door.fine_tuning.jobs.checkpoints.list(job.id)
    assert (checkpoint.step_number, checkpoint.fine_tuned_model_checkpoint) == (4, "tiny-colours.v1")
    assert checkpoint.metrics.valid_loss is not None
    assert door.fine_tuning.jobs.list(limit=1).data[0].id == job.id
    assert [found.id for found in door.fine_tuning.jobs.list(metadata={"why": "test"})] == [job.id]
    assert door.fine_tuning.jobs.list(metadata={"why": "other"}).data == []
    with up.client() as client:
        served = {"model": "tiny-colours.v1", "context": 256, "slots": 1, "cpu": 0.1, "threads": 1}
        client.put("Deployment", "colours", served)
    up.reaches("Deployment", "colours", "ready")
    said = [{"role": "user", "content": "What is item 1?"}]
    answer = up.openai(retries=5).chat.completions.create(model="colours", messages=said, max_tokens=3)  # type: ignore[arg-type]
    assert answer.usage is not None
    again = begin(door, training, validation_file=validation, suffix="Colours!")
    assert state(door, again, "succeeded").fine_tuned_model == "tiny-colours.v2"
    with up.client() as client:
        imports = [r for r in client.find_all("DatasetImport").items if training in r.name]
    assert len(imports) == 1
    by_name = begin(door, f"{imports[0].name}.v1", steps=1)
    assert state(door, by_name, "succeeded").fine_tuned_model


def test_wrong_lines_fail_the_job_by_number(door: openai.OpenAI) -> None:
    lines = [chat(0), "{torn", {"messages": [{"role": "wizard", "content": "hi"}]}, {"messages": []}]
    failed = state(door, begin(door, upload(door, lines)), "failed")
    assert failed.error is not None
    assert "3 lines" in str(failed.error.message)
    assert "line 2" in str(failed.error.message)


def test_a_job_is_paused_resumed_and_cancelled(door: openai.OpenAI, up: Platform) -> None:
    job = begin(door, upload(door, [chat(n) for n in range(20)]), steps=100_000)
    state(door, job, "running")

    def step() -> int:
        found = door.fine_tuning.jobs.retrieve(job.id).model_dump()["progress"]
        return int(found["done"]) if found.get("stage") == "train" else 0

    until(lambda: step() > 5, "some steps", 120)
    door.post(f"/fine_tuning/jobs/{job.id}/pause", cast_to=FineTuningJob)
    state(door, job, "paused")
    with up.client() as client:
        name = f"trainingrun-{job.id}"
        until(lambda: client.get("Workload", name).status["reason"] == "suspended", "the tasks to end")
    reached = step()
    door.post(f"/fine_tuning/jobs/{job.id}/resume", cast_to=FineTuningJob)
    until(lambda: step() > reached > 5, "it to go on from its checkpoint", 120)
    assert door.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with up.client() as client:
        until(lambda: client.find("Workload", name) is None, "the workload to go")
    assert door.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        door.post(f"/fine_tuning/jobs/{job.id}/resume", cast_to=FineTuningJob)


@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"model": "tinny"}, 404, "model"),
        ({"training_file": "file-unknown"}, 404, "training_file"),
        ({"hyperparameters": {"n_epochs": -1}}, 400, "hyperparameters"),
        ({"hyperparameters": {"magic": 1}}, 400, "hyperparameters.magic"),
        ({"method": {"type": "dpo"}}, 400, "method.type"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_a_wrong_job_names_what_is_wrong(door: openai.OpenAI, options: dict[str, Any], status: int, param: str) -> None:
    body = {"model": "tiny", "training_file": upload(door, [chat(0)]), **options}
    with pytest.raises(openai.APIStatusError) as caught:
        door.post("/fine_tuning/jobs", body=body, cast_to=FineTuningJob)
    assert caught.value.status_code == status
    assert str(caught.value.body["param"]).startswith(param)  # type: ignore[index]


def test_another_tenant_sees_no_job(door: openai.OpenAI, stranger: openai.OpenAI) -> None:
    job = begin(door, upload(door, [chat(0)]), steps=1)
    for ask in (stranger.fine_tuning.jobs.retrieve, stranger.fine_tuning.jobs.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(job.id)
    for ask in (stranger.fine_tuning.jobs.list_events, stranger.fine_tuning.jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            ask(job.id)
    assert stranger.fine_tuning.jobs.list().data == []
    door.fine_tuning.jobs.cancel(job.id)
