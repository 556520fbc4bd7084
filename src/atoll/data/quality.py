"""Quality models: small models that score texts in the pass of a curation, trained from labels or from examples.

The model is a file in the blob store; recipes name it by the resource or by its digest. How good it is, is measured
on texts it was not trained on and stands in the status; whether that is good enough is for people to say.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from atoll.compute.jobs import JobController, NotYet, engine_workload
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Kind, Model, Resource, Spec, Status
from atoll.core.store import Write
from atoll.data.versions import resolve


class Labelled(Model):
    """A dataset version with labels, such as an export of a labelling task."""

    dataset: str = Field(description="A dataset version, a dataset, DATASET@BRANCH or DATASET@TAG.")
    split: str = Field("labels", description="Its split.")
    column: str = Field(description="Column with the label, such as label_quality.")
    good: list[str] = Field(min_length=1, description="Labels of good texts; all others are of the other kind.")


class Examples(Model):
    """A dataset version all of whose texts are of one kind."""

    dataset: str = Field(description="A dataset version, a dataset, DATASET@BRANCH or DATASET@TAG.")
    split: str = Field("train", description="Its split.")


class QualityModelSpec(Spec):
    """What is learnt from what. A classifier needs labels, or good and other examples; a perplexity model good ones."""

    method: Literal["classifier", "perplexity"] = Field(
        "classifier", description="classifier: tells good texts from others; perplexity: how much like the good ones."
    )
    labels: list[Labelled] = Field(default_factory=list, max_length=20, description="Labelled datasets.")
    good: list[Examples] = Field(default_factory=list, max_length=20, description="Good texts.")
    other: list[Examples] = Field(default_factory=list, max_length=20, description="Other texts.")
    text_column: str = Field("text", description="Column with the text.")
    epochs: int = Field(5, ge=1, le=100, description="Passes over the texts.")
    rate: float = Field(2.0, gt=0, le=100, description="Step of the first pass.")
    bits: int | None = Field(
        None, ge=10, le=24, description="The model's tables have 2**bits places; empty: 18, for perplexity 20."
    )
    shortest: int = Field(3, ge=1, le=8, description="Shortest run of characters that is a feature.")
    longest: int = Field(4, ge=1, le=8, description="Longest run of characters that is a feature.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every choice.")
    text_bytes_max: int = Field(256 << 20, ge=1 << 10, description="So much text of each kind is learnt from, bytes.")
    cpu: float = Field(1.0, gt=0, description="Processor cores.")
    memory_bytes: int = Field(1 << 30, ge=0, description="Memory, bytes.")

    @model_validator(mode="after")
    def _has_examples(self) -> QualityModelSpec:
        if self.method == "classifier" and not self.labels and not (self.good and self.other):
            raise ValueError("a classifier needs labels, or both good and other examples")
        if self.method == "perplexity" and (not self.good or self.labels or self.other):
            raise ValueError("a perplexity model is trained from good examples alone")
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} is above longest {self.longest}")
        return self


class QualityModelStatus(Status):
    """pending, running, ready or failed."""

    model: str = Field("", description="Blob digest of the model's file.")
    size_bytes: int = Field(0, description="Its size.")
    figures: dict[str, Any] = Field(default_factory=dict, description="How good it is on texts it did not learn from.")
    datasets: list[str] = Field(default_factory=list, description="The dataset versions it was trained from.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the training is.")


QUALITY_MODEL = KINDS.register(
    Kind(
        "QualityModel",
        "qualitymodels",
        "A small model that scores how good a text is, trained from labels or examples.",
        QualityModelSpec,
        QualityModelStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("METHOD", "spec.method"),
            ("AUC", "status.figures.auc"),
            ("ACCURACY", "status.figures.accuracy"),
            ("SIZE", "status.size_bytes"),
            ("REASON", "status.reason"),
        ),
    )
)

SETTINGS = ("method", "text_column", "epochs", "rate", "bits", "shortest", "longest", "seed", "text_bytes_max")


class QualityModelController(JobController):
    """Trains quality models; a changed spec trains anew."""

    name = "quality-models"
    owns = "QualityModel"
    phase_done = "ready"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        names: list[str] = []
        wanted: dict[str, Any] = {name: spec[name] for name in SETTINGS}
        for role in ("labels", "good", "other"):
            found = [(item, _version(item["dataset"], run, world)) for item in spec[role]]
            wanted[role] = [{**item, "manifest": version.spec["manifest"]} for item, version in found]
            names += [version.name for _, version in found]
        workload = engine_workload(
            "atoll.data.engine.quality.train",
            wanted,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart={"limit": 5},
        )
        return workload, {"datasets": list(dict.fromkeys(names))}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        return {name: result[name] for name in ("model", "size_bytes", "figures")}, []


def _version(reference: str, run: Resource, world: Writer) -> Resource:
    version = resolve(world.scope, run.project, reference)
    if version is None:
        raise NotYet(f"waiting for a ready version of dataset {reference!r}")
    return version
