"""Controllers of data: curation runs make dataset versions; datasets know their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.compute.jobs import JobController, engine_workload
from atoll.core.blobs import BlobStore
from atoll.core.errors import NotFound
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Create, Scope, SetStatus, Write


def next_version(scope: Scope, project: str, dataset: str) -> str:
    """A free version name, DATASET.vN."""
    found = scope.find_all("DatasetVersion")
    versions = (v.name for v in found if v.project == project and v.spec["dataset"] == dataset)
    numbers = [int(n) for v in versions if (n := v.rpartition(".v")[2]).isdigit()]
    return f"{dataset}.v{max(numbers, default=0) + 1}"


def resolve(scope: Scope, project: str, reference: str) -> Resource | None:
    """The dataset version `reference` (a version, or a dataset's latest) stands for; None while there is none."""
    version = scope.find("DatasetVersion", reference, project)
    if version is not None:
        return version
    dataset = scope.find("Dataset", reference, project)
    if dataset is None:
        raise NotFound(f"there is no dataset {reference!r} in project {project!r}", hint="make one by a CurationRun")
    latest = dataset.status.get("latest")
    return scope.find("DatasetVersion", latest, project) if latest else None


class CurationRunController(JobController):
    """Runs recipes; a run that succeeded makes exactly one dataset version."""

    name = "curation-runs"
    owns = "CurationRun"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        wanted = {k: spec[k] for k in ("sources", "recipe", "seed")}
        workload = engine_workload(
            "atoll.data.engine.run", wanted, cpu=spec["cpu"], memory_bytes=spec["memory_bytes"], restart={"limit": 5}
        )
        return workload, {}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        version = next_version(world.scope, run.project, run.spec["dataset"])
        fields = {k: result[k] for k in ("counts", "funnel", "seconds")}
        spec = {
            "dataset": run.spec["dataset"],
            "manifest": result["manifest"],
            "curation_run": run.name,
            "counts": result["counts"],
        }
        status = {"phase": "pending", "reason": "", "observed_generation": 0}
        return fields | {"dataset_version": version}, [Create("DatasetVersion", run.project, version, spec, status)]


class DatasetVersionController(Controller):
    """A version is ready when its manifest is in the blob store."""

    name = "dataset-versions"
    owns = "DatasetVersion"

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def reconcile(self, key: Key, world: Writer) -> float | None:
        version = world.read(key)
        if version is None or version.is_deleting or version.phase == "ready":
            return None
        dataset = version.spec["dataset"]
        if world.scope.find("Dataset", dataset, version.project) is None:
            world.write(Create("Dataset", version.project, dataset, {"description": ""}))
        is_there = self._blobs.exists(version.spec["manifest"])
        status: dict[str, Any] = {
            "phase": "ready" if is_there else "failed",
            "reason": "" if is_there else f"manifest {version.spec['manifest']} is not in the blob store",
            "observed_generation": version.generation,
        }
        if status != version.status:
            world.write(SetStatus(version, status, status["phase"].capitalize(), status["reason"]))
        return None


class DatasetController(Controller):
    """Keeps each dataset's list of ready versions."""

    name = "datasets"
    owns = "Dataset"
    watches = ("DatasetVersion",)

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        version = world.read(change.key)
        if version is not None:
            return [Key("Dataset", change.project, version.spec["dataset"])]
        return [d.key for d in world.scope.find_all("Dataset") if d.project == change.project]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        dataset = world.read(key)
        if dataset is None or dataset.is_deleting:
            return None
        versions = [v for v in world.scope.find_all("DatasetVersion") if _is_of(v, dataset) and v.phase == "ready"]
        names = [v.name for v in sorted(versions, key=lambda v: (v.created_at, v.version))]
        status: dict[str, Any] = {
            "phase": "ready" if names else "pending",
            "reason": "" if names else "no version is ready",
            "observed_generation": dataset.generation,
            "versions": names,
            "latest": names[-1] if names else "",
        }
        if status != dataset.status:
            world.write(SetStatus(dataset, status, "VersionReady" if names else "", status["latest"]))
        return None


def _is_of(version: Resource, dataset: Resource) -> bool:
    return version.project == dataset.project and str(version.spec["dataset"]) == dataset.name
