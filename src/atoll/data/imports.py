"""Dataset imports: files of examples become a dataset version as they are, without a recipe.

A line is a chat, {"messages": [{"role", "content"}, …]}, or {"prompt", "completion"}. Lines are judged by the engine
that reads them; it names the line that is wrong.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from atoll.compute.jobs import JobController, engine_workload
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Kind, Resource, Spec, Status
from atoll.core.store import Create, Scope, Write
from atoll.data.controllers import next_version

DIGEST = "^sha256:[0-9a-f]{64}$"


class DatasetImportSpec(Spec):
    """Takes files of examples, one JSON object a line, as a new version of a dataset."""

    dataset: str = Field(description="Dataset that receives the new version.")
    train: str = Field(description="Blob digest of the lines to learn from.", pattern=DIGEST)
    heldout: str = Field("", description="Blob digest of the lines to measure on; empty: none.")
    licence: str = Field("", description="Licence (SPDX) of the examples.")
    cpu: float = Field(0.25, gt=0, description="Processor cores.")
    memory_bytes: int = Field(256 << 20, ge=0, description="Memory, bytes.")


class DatasetImportStatus(Status):
    """pending, running, succeeded or failed."""

    dataset_version: str = Field("", description="The version it made.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows by split.")
    errors: list[dict[str, Any]] = Field(default_factory=list, description="Lines that are wrong: line, message.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")


DATASET_IMPORT = KINDS.register(
    Kind(
        "DatasetImport",
        "datasetimports",
        "Takes files of chats or prompts with completions as a dataset version.",
        DatasetImportSpec,
        DatasetImportStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DATASET", "spec.dataset"),
            ("VERSION", "status.dataset_version"),
            ("REASON", "status.reason"),
        ),
    )
)


class DatasetImportController(JobController):
    """An import that succeeded makes exactly one dataset version."""

    name = "dataset-imports"
    owns = "DatasetImport"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        wanted = {name: spec[name] for name in ("train", "heldout", "licence")}
        workload = engine_workload(
            "atoll.data.engine.chats", wanted, cpu=spec["cpu"], memory_bytes=spec["memory_bytes"], restart={"limit": 5}
        )
        return workload, {}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        dataset = run.spec["dataset"]
        version = next_version(world.scope, run.project, dataset)
        spec = {"dataset": dataset, "manifest": result["manifest"], "curation_run": "", "counts": result["counts"]}
        status = {"phase": "pending", "reason": "", "observed_generation": 0}
        fields = {"counts": result["counts"], "dataset_version": version}
        return fields, [Create("DatasetVersion", run.project, version, spec, status)]

    def failed(self, workload: Resource) -> dict[str, Any]:
        details = workload.status.get("error", {}).get("details") or {}
        return {"errors": details.get("errors", [])}


def failed_import(scope: Scope, project: str, dataset: str) -> Resource | None:
    """The import that was to make `dataset` and failed, if so."""
    for found in scope.find_all("DatasetImport"):
        if found.project == project and found.spec["dataset"] == dataset and found.phase == "failed":
            return found
    return None
