"""Datasets, their immutable versions, and the runs that make them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from atoll.core.resources import KINDS, Kind, Spec, Status
from atoll.data.recipes import Recipe, Source


class DatasetSpec(Spec):
    """A dataset: a name its versions share."""

    description: str = Field("", max_length=2000, description="What the dataset is.")


class DatasetStatus(Status):
    """ready once it has a version."""

    versions: list[str] = Field(default_factory=list, description="Names of its versions, oldest first.")
    latest: str = Field("", description="The newest version.")


class DatasetVersionSpec(Spec):
    """One immutable version: a manifest of Parquet shards."""

    dataset: str = Field(description="The dataset it is a version of.")
    manifest: str = Field(description="Blob digest of the manifest.", pattern="^sha256:[0-9a-f]{64}$")
    curation_run: str = Field("", description="The run that made it.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows by split and documents in and out.")


class DatasetVersionStatus(Status):
    """ready when the manifest's blobs are all there, failed when one is missing."""


class CurationRunSpec(Spec):
    """Turns sources into a dataset version by a recipe."""

    dataset: str = Field(description="Dataset that receives the new version.")
    sources: list[Source] = Field(min_length=1, description="Where the documents come from.")
    recipe: Recipe = Field(default_factory=Recipe, description="What is done to them.")
    seed: int = Field(0, description="Seed of every choice.")
    cpu: float = Field(1.0, gt=0, description="Processor cores.")
    memory_bytes: int = Field(1 << 30, ge=0, description="Memory, bytes.")


class CurationRunStatus(Status):
    """pending, running, succeeded or failed."""

    dataset_version: str = Field("", description="The version it made.")
    counts: dict[str, int] = Field(default_factory=dict, description="Documents in and out, rows by split.")
    funnel: list[dict[str, Any]] = Field(default_factory=list, description="How many each rule dropped, with samples.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")
    seconds: float = Field(0.0, description="How long it took.")


DATASET = KINDS.register(
    Kind(
        "Dataset",
        "datasets",
        "A named, versioned collection of texts.",
        DatasetSpec,
        DatasetStatus,
        columns=(("PHASE", "status.phase"), ("LATEST", "status.latest")),
    )
)
DATASET_VERSION = KINDS.register(
    Kind(
        "DatasetVersion",
        "datasetversions",
        "An immutable version of a dataset: Parquet shards named by a manifest.",
        DatasetVersionSpec,
        DatasetVersionStatus,
        columns=(("PHASE", "status.phase"), ("DATASET", "spec.dataset"), ("COUNTS", "spec.counts")),
    )
)
CURATION_RUN = KINDS.register(
    Kind(
        "CurationRun",
        "curationruns",
        "One run of a recipe over sources, which makes a dataset version.",
        CurationRunSpec,
        CurationRunStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DATASET", "spec.dataset"),
            ("VERSION", "status.dataset_version"),
            ("REASON", "status.reason"),
        ),
    )
)
