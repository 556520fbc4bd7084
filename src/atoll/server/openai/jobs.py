"""Fine-tuning jobs on the wire: what may be asked, and how a TrainingRun looks as a job with events and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from atoll.compute.jobs import CANCEL
from atoll.core.errors import Invalid
from atoll.core.resources import Resource
from atoll.core.store import Change
from atoll.server.openai.pages import Metadata
from atoll.training.recipes import Recipe

FILES = ("training_file", "validation_file")
METADATA = "metadata."
"""What begins the labels that hold a job's metadata."""

_DEFAULTS = Recipe.model_validate({})
_NAMES = ("n_epochs", "batch_size", "learning_rate_multiplier")


class Hyperparameters(BaseModel):
    """How it learns; fields of a TrainingRun's recipe may be given too."""

    model_config = ConfigDict(extra="allow")

    n_epochs: float | None = Field(None, gt=0, le=1000, description="Passes over the examples, or auto.")
    batch_size: int | None = Field(None, ge=1, le=4096, description="Examples of one step, or auto.")
    learning_rate_multiplier: float | None = Field(None, gt=0, le=100, description="Of the usual rate, or auto.")

    @field_validator(*_NAMES, mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        return None if value == "auto" else value


class Supervised(BaseModel):
    """Learning from answers."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    """How the model is tuned."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised"] = "supervised"
    supervised: Supervised | None = None


class NewJob(BaseModel):
    """What shall be tuned on what."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=128, description="Model, version or deployment to start from.")
    training_file: str = Field(min_length=1, max_length=128, description="File, dataset or dataset version.")
    validation_file: str | None = Field(None, max_length=128, description="File that is measured on.")
    suffix: str | None = Field(None, min_length=1, max_length=40, description="The tuned model is MODEL-SUFFIX.")
    seed: int | None = Field(None, ge=0, lt=1 << 31, description="Seed of every choice.")
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(None, description="As method.supervised.hyperparameters.")
    metadata: Metadata | None = None


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class JobObject(BaseModel):
    """One job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    model: str
    created_at: int
    finished_at: int | None = None
    estimated_finish: int | None = None
    fine_tuned_model: str | None = None
    organization_id: str
    result_files: list[str] = Field(default_factory=list)
    status: str = Field(description="validating_files, queued, running, paused, succeeded, failed or cancelled.")
    training_file: str
    validation_file: str | None = None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    trained_tokens: int | None = None
    error: JobError | None = None
    seed: int
    integrations: list[Any] = Field(default_factory=list)
    metadata: dict[str, str] | None = None
    progress: dict[str, Any] = Field(default_factory=dict, description="Where it is: stage, done, total, loss.")


class EventObject(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] | None = None


class CheckpointObject(BaseModel):
    """A version a job has made."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float | None]


def recipe_of(wanted: NewJob) -> dict[str, Any]:
    """The recipe a job asks for. A batch of OpenAI's is examples, ours is tokens: full sequences are reckoned."""
    given = wanted.method.supervised.hyperparameters if wanted.method and wanted.method.supervised else None
    asked = given or wanted.hyperparameters or Hyperparameters()
    recipe: dict[str, Any] = dict(asked.model_extra or {})
    unknown = sorted(set(recipe) - set(Recipe.model_fields))
    if unknown:
        hint = f"valid: {', '.join((*_NAMES, *Recipe.model_fields))}"
        name = unknown[0][:80]
        raise Invalid(f"{name!r} is no hyperparameter", field=f"hyperparameters.{name}", hint=hint)
    if asked.n_epochs is not None:
        recipe["epochs"] = asked.n_epochs
    if asked.learning_rate_multiplier is not None:
        recipe["learning_rate"] = min(1.0, _DEFAULTS.learning_rate * asked.learning_rate_multiplier)
    if asked.batch_size is not None:
        length = recipe.get("sequence_length", _DEFAULTS.sequence_length)
        recipe["batch_tokens"] = asked.batch_size * length
        recipe.setdefault("micro_batch_tokens", min(_DEFAULTS.micro_batch_tokens, recipe["batch_tokens"]))
    return recipe


def job_object(run: Resource, workload: Resource | None) -> JobObject:
    """A run on the wire; `workload` is its present one."""
    spec, status = run.spec, run.status
    state = _state(run, workload)
    hyperparameters = _hyperparameters(spec["recipe"])
    notes = {name[len(METADATA) :]: value for name, value in run.labels.items() if name.startswith(METADATA)}
    result = status.get("result") or {}
    return JobObject(
        id=run.name,
        model=status.get("base_version") or spec["base"],
        created_at=int(run.created_at),
        finished_at=int(run.updated_at) if state in ("succeeded", "failed", "cancelled") else None,
        fine_tuned_model=status.get("model_version") or None,
        organization_id=run.project,
        status=state,
        training_file=run.labels.get("training_file", spec["dataset"]),
        validation_file=run.labels.get("validation_file"),
        hyperparameters=hyperparameters,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        trained_tokens=result.get("tokens"),
        error=JobError(code="failed", message=status.get("reason", "")) if state == "failed" else None,
        seed=spec["seed"],
        metadata=notes or None,
        progress=status.get("progress") or {},
    )


def events_of(run: Resource, changes: Sequence[Change]) -> list[EventObject]:
    """What happened, newest first; where the run is now comes as metrics."""
    found = [_event(change) for change in changes]
    progress = run.status.get("progress") or {}
    if progress.get("stage"):
        done, total = progress.get("done"), progress.get("total")
        words = f"{progress['stage']}: {done} of {total} {progress.get('unit', '')}".rstrip()
        metrics = {"type": "metrics", "data": {"step": done, **_numbers(progress)}}
        event = {"id": f"ftevent-{run.version}-progress", "created_at": int(run.updated_at), "level": "info"}
        found.append(EventObject.model_validate({**event, "message": words, **metrics}))
    return found[::-1]


def checkpoints_of(run: Resource) -> list[CheckpointObject]:
    """The version a finished run made."""
    if not run.status.get("model_version"):
        return []
    result = run.status.get("result") or {}
    loss = result.get("loss") or {}
    losses = {"train_loss": loss.get("train_last"), "valid_loss": loss.get("heldout_after")}
    return [
        CheckpointObject(
            id=f"ftckpt-{run.uid[:24]}",
            created_at=int(run.updated_at),
            fine_tuning_job_id=run.name,
            fine_tuned_model_checkpoint=run.status["model_version"],
            step_number=int(result.get("steps") or 0),
            metrics={"step": result.get("steps"), **losses},
        )
    ]


def _event(change: Change) -> EventObject:
    message = f"{change.reason}: {change.message}" if change.message else change.reason
    level: Literal["info", "error"] = "error" if change.reason == "Failed" else "info"
    return EventObject(id=f"ftevent-{change.seq}", created_at=int(change.at), level=level, message=message)


def _state(run: Resource, workload: Resource | None) -> str:
    if run.phase == "succeeded":
        return "succeeded"
    if CANCEL in run.labels:
        return "cancelled"
    if run.phase == "failed":
        return "failed"
    if workload is None:
        return "validating_files"
    if workload.spec["suspended"]:
        return "paused"
    return "running" if run.phase == "running" else "queued"


def _hyperparameters(recipe: dict[str, Any]) -> dict[str, Any]:
    return {
        "n_epochs": recipe["epochs"] if recipe["epochs"] is not None else "auto",
        "batch_size": max(1, recipe["batch_tokens"] // recipe["sequence_length"]),
        "learning_rate_multiplier": round(recipe["learning_rate"] / _DEFAULTS.learning_rate, 6),
    }


def _numbers(progress: dict[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in progress.items()
        if name not in ("done", "total") and isinstance(value, int | float) and not isinstance(value, bool)
    }
