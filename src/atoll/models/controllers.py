"""Controllers of the library: versions are imported or taken from a run; models know their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.compute.jobs import JobController, engine_workload
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Create, SetStatus, Write

IMPORT_MEMORY_BYTES = 512 << 20
_FACTS = (
    "files",
    "format",
    "architecture",
    "parameters",
    "context_length",
    "quantization",
    "licence",
    "origin",
    "chat_template",
    "metadata",
    "scan",
)


class ModelVersionController(JobController):
    """Imports versions from their sources, and adopts the adapters of training runs."""

    name = "model-versions"
    owns = "ModelVersion"
    watches = ("Workload", "TrainingRun")
    phase_done = "ready"

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.kind != "TrainingRun":
            return super().keys_for(change, world)
        run = world.read(change.key)
        version = run.status.get("model_version") if run is not None else None
        return [Key("ModelVersion", change.project, version)] if version else []

    def reconcile(self, key: Key, world: Writer) -> float | None:
        version = world.read(key)
        if version is not None and not version.is_deleting:
            _ensure_model(version, world)
            if version.spec["training_run"]:
                _adopt(version, world)
                return None
        return super().reconcile(key, world)

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        wanted = {k: run.spec[k] for k in ("source", "files", "sha256", "licence")}
        restart = {"limit": 4, "backoff_min_s": 1.0}
        spec = engine_workload(
            "atoll.models.engine.fetch", wanted, cpu=0.5, memory_bytes=IMPORT_MEMORY_BYTES, restart=restart
        )
        return spec, {}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        return {k: result[k] for k in _FACTS if k in result}, []


class ModelController(Controller):
    """Keeps each model's list of ready versions and its production version."""

    name = "models"
    owns = "Model"
    watches = ("ModelVersion", "Evaluation")

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        resource = world.read(change.key)
        if resource is None:
            return [m.key for m in world.scope.find_all("Model") if m.project == change.project]
        model = resource.spec["model"] if change.kind == "ModelVersion" else resource.status.get("model")
        return [Key("Model", change.project, model)] if model else []

    def reconcile(self, key: Key, world: Writer) -> float | None:
        model = world.read(key)
        if model is None or model.is_deleting:
            return None
        versions = [v for v in world.scope.find_all("ModelVersion") if _is_of(v, model) and v.phase == "ready"]
        names = [v.name for v in sorted(versions, key=lambda v: (v.created_at, v.version))]
        promoted = [e for e in world.scope.find_all("Evaluation") if _promotes(e, model, names)]
        last = max(promoted, key=lambda e: e.status.get("ended_at", e.updated_at), default=None)
        status: dict[str, Any] = {
            "phase": "ready" if names else "pending",
            "reason": "" if names else "no version is ready",
            "observed_generation": model.generation,
            "versions": names,
            "latest": names[-1] if names else "",
            "production": last.status["version"] if last else "",
        }
        if status != model.status:
            world.write(SetStatus(model, status, _event(model, status), status["production"] or status["latest"]))
        return None


def _ensure_model(version: Resource, world: Writer) -> None:
    name = version.spec["model"]
    if world.scope.find("Model", name, version.project) is None:
        world.write(Create("Model", version.project, name, {"description": ""}))


def _adopt(version: Resource, world: Writer) -> None:
    """The adapter of a training run that succeeded becomes this version's files."""
    if version.phase in ("ready", "failed"):
        return
    run = world.scope.find("TrainingRun", version.spec["training_run"], version.project)
    if run is None:
        status = version.status | {
            "phase": "failed",
            "reason": f"training run {version.spec['training_run']!r} is gone",
        }
    elif not run.status.get("result", {}).get("adapter"):
        status = version.status | {"phase": "pending", "reason": f"training run {run.name!r} is not done"}
    else:
        status = version.status | _adapter_facts(version, run, world) | {"phase": "ready", "reason": ""}
    status["observed_generation"] = version.generation
    if status != version.status:
        world.write(SetStatus(version, status, status["phase"].capitalize(), status["reason"]))


def _adapter_facts(version: Resource, run: Resource, world: Writer) -> dict[str, Any]:
    base = world.scope.find("ModelVersion", version.spec["base"], version.project)
    inherited = base.status if base is not None else {}
    result = run.status["result"]
    return {
        "files": [result[part] for part in ("adapter", "peft", "peft_config") if result.get(part)],
        "format": "adapter-gguf",
        "architecture": inherited.get("architecture", ""),
        "parameters": inherited.get("parameters", 0),
        "context_length": inherited.get("context_length", 0),
        "licence": version.spec["licence"] or inherited.get("licence"),
        "chat_template": inherited.get("chat_template", False),
        "origin": {"training_run": run.name, "base": version.spec["base"], "dataset": run.status["dataset_version"]},
    }


def _is_of(version: Resource, model: Resource) -> bool:
    return version.project == model.project and str(version.spec["model"]) == model.name


def _promotes(evaluation: Resource, model: Resource, versions: list[str]) -> bool:
    status = evaluation.status
    return (
        evaluation.project == model.project
        and bool(evaluation.spec["promote"])
        and evaluation.phase == "succeeded"
        and status.get("passed") is True
        and status.get("version") in versions
    )


def _event(model: Resource, status: dict[str, Any]) -> str:
    if status["production"] != model.status.get("production", ""):
        return "Promoted"
    return "VersionReady" if status["latest"] != model.status.get("latest", "") else ""
