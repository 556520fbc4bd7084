"""Controllers of training: runs make model versions, evaluations pass or stop them, pipelines chain steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.compute.jobs import LOOK_AGAIN_S, JobController, NotYet, engine_workload
from atoll.core.errors import AtollError, Forbidden, Invalid, Unavailable
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import KINDS, TERMINAL_BAD, TERMINAL_GOOD, Key, Kind, Resource
from atoll.core.store import Change, Create, MarkDeleting, SetSpec, SetStatus, Write
from atoll.data import controllers as data
from atoll.data.imports import failed_import
from atoll.models import library
from atoll.training.references import fill_in
from atoll.training.resources import check_step

RESTART = {"limit": 20, "backoff_min_s": 0.5, "backoff_max_s": 10.0}


class TrainingRunController(JobController):
    """A run that succeeded makes exactly one model version."""

    name = "training-runs"
    owns = "TrainingRun"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        base = _ready_model(world, run.project, spec["base"])
        if base.is_adapter:
            raise Invalid(f"{base.version.name!r} is an adapter", field="spec.base", hint="train from its base model")
        dataset = _ready_dataset(world, run.project, spec["dataset"])
        wanted = {
            "base": _files(base.version),
            "dataset": dataset.spec["manifest"],
            "method": spec["method"],
            "recipe": spec["recipe"],
            "seed": spec["seed"],
        }
        workload = engine_workload(
            "atoll.training.engine.main", wanted, cpu=spec["cpu"], memory_bytes=spec["memory_bytes"], restart=RESTART
        )
        return workload, {"base_version": base.version.name, "dataset_version": dataset.name}

    def following(self, workload: Resource) -> dict[str, Any]:
        return {"restarts": workload.status.get("restarts_total", 0)}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        version = library.next_version(world.scope, run.project, run.spec["output"])
        spec = {
            "model": run.spec["output"],
            "source": "",
            "training_run": run.name,
            "base": run.status["base_version"],
            "files": None,
            "sha256": None,
            "licence": None,
        }
        fields = {
            "model_version": version,
            "result": workload.status["result"],
            "restarts": workload.status.get("restarts_total", 0),
        }
        return fields, [Create("ModelVersion", run.project, version, spec, {"phase": "pending"})]


class EvaluationController(JobController):
    """Measures a tuned version against its base; a gate that does not pass fails the evaluation."""

    name = "evaluations"
    owns = "Evaluation"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        model = _ready_model(world, run.project, spec["model"])
        dataset = _ready_dataset(world, run.project, spec["dataset"])
        wanted = {
            "base": _files(model.base or model.version),
            "adapter": model.version.status["files"][0] if model.is_adapter else None,
            "dataset": dataset.spec["manifest"],
            "split": spec["split"],
            "gate": spec["gate"],
            "max_rows": spec["max_rows"],
            "seed": spec["seed"],
        }
        workload = engine_workload(
            "atoll.training.engine.evaluate",
            wanted,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart=RESTART,
        )
        return workload, {"version": model.version.name, "model": model.version.spec["model"]}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        gate = result.get("gate") or {}
        passed = gate.get("passed") if run.spec["gate"] else None
        fields = {
            "metrics": result["metrics"],
            "drop": result.get("drop", 0.0),
            "passed": passed,
            "reason": gate.get("reason", ""),
            "ended_at": world.clock.now(),
        }
        if passed is False:
            fields["phase"] = "failed"
        return fields, []


class PipelineController(Controller):
    """Makes each step's resource when the steps it needs have succeeded.

    A step whose resource exists with the same spec is not run again; its children outlive the pipeline.
    """

    name = "pipelines"
    owns = "Pipeline"
    watches = ("*",)

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        resource = world.read(change.key)
        pipeline = resource.labels.get("pipeline") if resource is not None else None
        return [Key("Pipeline", change.project, pipeline)] if pipeline else []

    def reconcile(self, key: Key, world: Writer) -> float | None:
        pipeline = world.read(key)
        if pipeline is None or pipeline.is_deleting or _is_over(pipeline):
            return None
        steps = _Walk(pipeline, world).steps()
        status = _summary(pipeline, steps)
        if status != pipeline.status:
            event = status["phase"].capitalize() if status["phase"] != pipeline.phase else ""
            world.write(SetStatus(pipeline, status, event, status["reason"]))
        return LOOK_AGAIN_S if status["phase"] == "running" else None


class _Walk:
    """One pass over a pipeline's steps."""

    def __init__(self, pipeline: Resource, world: Writer) -> None:
        self._pipeline = pipeline
        self._world = world
        self._resources: dict[str, Resource] = {}
        self._labels = {"pipeline": pipeline.name, "pipeline-run": str(pipeline.spec["run"])}

    def steps(self) -> list[dict[str, Any]]:
        """The status of every step, having begun those whose time has come."""
        found: dict[str, dict[str, Any]] = {}
        before: list[str] = []
        for step in self._pipeline.spec["steps"]:
            needs = before if step["needs"] is None else step["needs"]
            missing = [n for n in needs if found.get(n, {}).get("phase") != "succeeded"]
            found[step["name"]] = self._advance(step, missing)
            before = [step["name"]]
        return list(found.values())

    def _advance(self, step: dict[str, Any], missing: list[str]) -> dict[str, Any]:
        name = step["resource"] or f"{self._pipeline.name}-{step['name']}"
        state = {"name": step["name"], "kind": step["kind"], "resource": name, "phase": "pending", "reason": ""}
        if missing:
            return state | {"reason": f"waits for {', '.join(missing)}"}
        try:
            resource = self._apply(step, name)
        except Unavailable:
            raise
        except AtollError as error:
            return state | {"phase": "failed", "reason": str(error)}
        if resource is None:
            return state | {"phase": "running", "reason": "clearing away the failed run before"}
        self._resources[step["name"]] = resource
        return state | _standing(resource)

    def _apply(self, step: dict[str, Any], name: str) -> Resource | None:
        kind = KINDS.named(step["kind"])
        check_step(kind)
        spec = self._signed(kind, kind.parse_spec(fill_in(step["spec"], self._resources)))
        project = self._pipeline.project
        existing = self._world.scope.find(kind.name, name, project)
        if existing is not None and existing.owner is not None:
            raise Forbidden(f"{existing.key} is what the platform runs for another resource", hint="name another")
        if existing is None:
            status = kind.status().model_dump(mode="json")
            message = f"step of pipeline {self._pipeline.name}"
            self._world.write(Create(kind.name, project, name, spec, status, self._labels, message=message))
        elif existing.is_deleting:
            return None
        elif existing.phase == "failed" and existing.labels.get("pipeline-run") != self._labels["pipeline-run"]:
            self._world.write(MarkDeleting(existing, message="its pipeline runs again"))
            return None
        elif existing.spec != spec or not self._labels.items() <= existing.labels.items():
            reason = "Changed" if existing.spec != spec else ""
            self._world.write(SetSpec(existing, spec, {**existing.labels, **self._labels}, reason))
        return self._world.scope.get(kind.name, name, project)

    def _signed(self, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec, charged to whoever asked for the pipeline where its kind is charged."""
        return spec | {"creator": self._pipeline.spec.get("creator", "")} if kind.is_charged else spec


def _is_over(pipeline: Resource) -> bool:
    is_current = pipeline.status.get("observed_generation") == pipeline.generation
    return is_current and pipeline.phase in ("succeeded", "failed")


def _ready_model(world: Writer, project: str, reference: str) -> library.Resolved:
    model = library.resolve(world.scope, project, reference)
    if model is None:
        raise NotYet(f"waiting for model {reference!r}")
    return model


def _ready_dataset(world: Writer, project: str, reference: str) -> Resource:
    dataset = data.resolve(world.scope, project, reference)
    if dataset is None or dataset.phase == "pending":
        failed = failed_import(world.scope, project, reference) if dataset is None else None
        if failed is not None:
            raise Invalid(f"dataset {reference!r} was not made: {failed.status['reason']}", field="spec.dataset")
        raise NotYet(f"waiting for dataset {reference!r}")
    if dataset.phase == "failed":
        raise Invalid(f"dataset version {dataset.name!r} failed: {dataset.status.get('reason')}", field="spec.dataset")
    return dataset


def _files(version: Resource) -> dict[str, Any]:
    return {"files": version.status["files"], "format": version.status["format"]}


def _standing(resource: Resource) -> dict[str, Any]:
    is_current = resource.status.get("observed_generation") == resource.generation
    reason = resource.status.get("reason", "")
    if is_current and resource.phase in TERMINAL_GOOD:
        return {"phase": "succeeded", "reason": reason}
    if is_current and resource.phase in TERMINAL_BAD:
        return {"phase": "failed", "reason": reason}
    return {"phase": "running", "reason": reason}


def _summary(pipeline: Resource, steps: list[dict[str, Any]]) -> dict[str, Any]:
    failed = next((s for s in steps if s["phase"] == "failed"), None)
    if failed:
        phase, reason = "failed", f"step {failed['name']}: {failed['reason']}"
    elif all(s["phase"] == "succeeded" for s in steps):
        phase, reason = "succeeded", ""
    else:
        running = [s["name"] for s in steps if s["phase"] == "running"]
        phase, reason = "running", f"running {', '.join(running)}" if running else ""
    return {"phase": phase, "reason": reason, "observed_generation": pipeline.generation, "steps": steps}
