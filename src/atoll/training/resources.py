"""Training runs, evaluations, and pipelines that chain runs of any kind."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from atoll.core.errors import AtollError, Forbidden, Invalid
from atoll.core.resources import KINDS, Kind, Model, Spec, Status
from atoll.training.recipes import Recipe
from atoll.training.references import references


class TrainingRunSpec(Spec):
    """Fine-tunes a base model on a dataset and registers the result as a model version."""

    base: str = Field(description="Model or version to start from.")
    dataset: str = Field(description="Dataset (its latest version) or version to learn from.")
    method: Literal["lora"] = Field("lora", description="How the weights are changed.")
    output: str = Field(description="Model that receives the new version.")
    recipe: Recipe = Field(default_factory=Recipe, description="Steps, rates, sizes.")
    seed: int = Field(0, description="Seed of every choice.")
    cpu: float = Field(1.0, gt=0, description="Processor cores.")
    memory_bytes: int = Field(2 << 30, ge=0, description="Memory, bytes.")


class TrainingRunStatus(Status):
    """pending, running, succeeded or failed."""

    base_version: str = Field("", description="The version it started from.")
    dataset_version: str = Field("", description="The data it learned from.")
    model_version: str = Field("", description="The version it made.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")
    restarts: int = Field(0, description="Times it was started again after a failure.")
    result: dict[str, Any] = Field(default_factory=dict, description="Losses, tokens, seconds, time lost.")


class Gate(Model):
    """When a tuned model is good enough."""

    metric: Literal["heldout_loss"] = Field("heldout_loss", description="What is compared.")
    min_drop: float = Field(0.05, ge=-10, lt=1, description="Fraction of the base's loss that must be gone.")


class EvaluationSpec(Spec):
    """Compares a tuned version with its base on held-out rows."""

    model: str = Field(description="Model or version to judge.")
    dataset: str = Field(description="Dataset or version with the held-out rows.")
    split: Literal["heldout", "qa_heldout"] = Field("qa_heldout", description="Which rows.")
    gate: Gate | None = Field(None, description="What must hold; empty measures only.")
    promote: bool = Field(False, description="Make the version its model's production version when the gate passes.")
    max_rows: int = Field(200, ge=1, description="At most so many rows.")
    seed: int = Field(0, description="Seed of the choice of rows.")
    cpu: float = Field(1.0, gt=0, description="Processor cores.")
    memory_bytes: int = Field(2 << 30, ge=0, description="Memory, bytes.")


class EvaluationStatus(Status):
    """pending, running, succeeded (gate passed, or none) or failed."""

    model: str = Field("", description="The model the judged version belongs to.")
    version: str = Field("", description="The version judged.")
    passed: bool | None = Field(None, description="Whether the gate let it pass.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="Losses of base and tuned.")
    ended_at: float = Field(0.0, description="Unix time of the verdict.")
    drop: float = Field(0.0, description="Fraction of the base's loss that is gone.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")


class Step(Model):
    """One step: a resource to make, and wait for."""

    name: str = Field(description="Name within the pipeline; others refer to it as ${steps.NAME.status.FIELD}.")
    kind: str = Field(description="Kind of the resource.")
    resource: str = Field("", description="Name of the resource; empty means pipeline-step.")
    spec: dict[str, Any] = Field(default_factory=dict, description="Its spec; ${…} is filled in when the step begins.")
    needs: list[str] | None = Field(None, description="Steps that must have succeeded; empty means the one before.")


def check_step(kind: Kind) -> None:
    """Forbidden unless every member may write things of this kind: members write pipelines, which act for them."""
    if not kind.is_plain:
        possible = ", ".join(sorted(each.name for each in KINDS if each.is_plain))
        raise Forbidden(f"a pipeline makes no {kind.plural}", hint=f"steps may be {possible}")


class PipelineSpec(Spec):
    """Steps from data to deployment; a failed step stops the rest."""

    steps: list[Step] = Field(min_length=1, description="The steps.")
    run: int = Field(0, ge=0, description="Raise it to run failed steps again.")
    creator: str = Field("", description="PROJECT/KEY its steps are charged to: who asked for it. The server sets it.")

    @field_validator("steps")
    @classmethod
    def _of_plain_kinds(cls, steps: list[Step]) -> list[Step]:
        """A step may not make what its author could not."""
        for step in steps:
            try:
                check_step(KINDS.named(step.kind))
            except AtollError as error:
                raise ValueError(f"step {step.name!r}: {error}") from error
        return steps

    @model_validator(mode="after")
    def _references_go_back(self) -> PipelineSpec:
        """Step names are unique, and needs and references name earlier steps only."""
        earlier: list[str] = []
        for step in self.steps:
            try:
                wanted = {name for name, _ in references(step.spec)} | set(step.needs or ())
            except Invalid as error:
                raise ValueError(str(error)) from error
            for name in sorted(wanted - set(earlier)):
                raise ValueError(
                    f"step {step.name!r} refers to {name!r}, steps before it: {', '.join(earlier) or 'none'}"
                )
            if step.name in earlier:
                raise ValueError(f"two steps are called {step.name!r}")
            earlier.append(step.name)
        return self


class StepStatus(Model):
    """How one step stands."""

    name: str = Field(description="The step.")
    kind: str = Field(description="Kind of its resource.")
    resource: str = Field("", description="Its resource.")
    phase: str = Field("pending", description="pending, running, succeeded or failed.")
    reason: str = Field("", description="Why.")


class PipelineStatus(Status):
    """pending, running, succeeded or failed."""

    steps: list[StepStatus] = Field(default_factory=list, description="The steps in order.")


TRAINING_RUN = KINDS.register(
    Kind(
        "TrainingRun",
        "trainingruns",
        "One fine-tuning of a model on a dataset.",
        TrainingRunSpec,
        TrainingRunStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("BASE", "status.base_version"),
            ("VERSION", "status.model_version"),
            ("RESTARTS", "status.restarts"),
            ("REASON", "status.reason"),
        ),
    )
)
EVALUATION = KINDS.register(
    Kind(
        "Evaluation",
        "evaluations",
        "A comparison of a tuned version with its base, with a gate.",
        EvaluationSpec,
        EvaluationStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("VERSION", "status.version"),
            ("DROP", "status.drop"),
            ("PASSED", "status.passed"),
            ("REASON", "status.reason"),
        ),
    )
)
PIPELINE = KINDS.register(
    Kind(
        "Pipeline",
        "pipelines",
        "Steps from data to deployment, each a resource of its own.",
        PipelineSpec,
        PipelineStatus,
        columns=(("PHASE", "status.phase"), ("REASON", "status.reason")),
        is_charged=True,
    )
)
