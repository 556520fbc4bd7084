"""Controllers of labelling: tasks get their items and lose their rows at their end; runs go as workloads.

A run's task works through the door with a key of the run's own, as batches do: it may call the run's one model (none,
for those that only move items), is charged to whoever asked for it, and ends with the run.
"""

from __future__ import annotations

from typing import Any

from atoll.compute.jobs import JobController, NotYet, engine_workload
from atoll.compute.run_keys import close_key, key_reference, open_charged_key, open_key
from atoll.core.database import Database
from atoll.core.errors import NotFound
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Create, SetStatus, Write
from atoll.data.files import give_key, is_sealed
from atoll.data.labelling.resources import LABEL_RUN, terms_of
from atoll.data.labelling.schema import answer_schema
from atoll.data.labelling.store import Labels
from atoll.data.versions import make_version, resolve
from atoll.governance.secrets import Secrets

LOOK_EVERY_S = 15.0
LOOK_AGAIN_S = 0.25
KEY_KEPT_S = 30 * 86_400.0
"""A run's key ends after so long, whatever becomes of the run."""

KEY_VARIABLE = "ATOLL_LABEL_KEY"
ENGINES = {"import": "items", "prelabel": "prelabel", "export": "export"}
RESTART = {"limit": 100, "backoff_min_s": 0.5, "backoff_max_s": 30.0}


class LabelTaskController(Controller):
    """Brings in the items of a task's source once, tells its counts, and empties it at its end."""

    name = "label-tasks"
    owns = "LabelTask"
    watches = ("LabelRun",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def reconcile(self, key: Key, world: Writer) -> float | None:
        task = world.read(key)
        if task is None:
            return None
        labels = Labels(self._database, world.clock, task.project)
        if task.is_deleting:
            return self._empty(task, labels, world)
        labels.open(task.uid)
        phase, reason, writes = _imported(task, world)
        status = task.status | {"phase": phase, "reason": reason, "observed_generation": task.generation}
        status |= {"counts": labels.counts(task.uid)}
        is_news = (phase, reason) != (task.phase, task.status.get("reason", ""))
        if status != task.status:
            writes.append(SetStatus(task, status, phase.capitalize() if is_news else "", reason))
        if writes:
            world.write(*writes)
        return LOOK_EVERY_S

    def _empty(self, task: Resource, labels: Labels, world: Writer) -> float | None:
        """Its runs go first: they might still add items."""
        if world.scope.children(task.uid):
            return LOOK_AGAIN_S
        if not task.status.get("is_empty"):
            labels.drop(task.uid)
            world.write(SetStatus(task, task.status | {"is_empty": True}))
        return None


def _imported(task: Resource, world: Writer) -> tuple[str, str, list[Write]]:
    """(phase, reason, writes): where the import of the task's source stands, begun if it had not.

    One that failed is begun anew when the task is changed.
    """
    source = task.spec["source"]
    if source is None:
        return "ready", "", []
    name = f"{task.name}-import-{task.generation}"[:128].strip("-.")
    runs = [run for run in world.scope.find_all("LabelRun", owner=task.uid) if run.spec["action"] == "import"]
    counting = (run for run in runs if run.phase != "failed" or run.name == name)
    run = next((run for run in counting if run.spec["source"] == source), None)
    if run is None:
        spec = LABEL_RUN.parse_spec({"task": task.name, "action": "import", "source": source})
        made = Create("LabelRun", task.project, name, spec, {"phase": "pending"}, owner=task.uid)
        return "pending", "items are coming in", [made]
    if run.phase == "failed":
        return "failed", str(run.status.get("reason", "")), []
    is_done = run.phase == "succeeded"
    return ("ready", "", []) if is_done else ("pending", "items are coming in", [])


class LabelRunController(JobController):
    """Runs the errands; `door` is the address of the door as tasks reach it."""

    name = "label-runs"
    owns = "LabelRun"

    def __init__(self, secrets: Secrets, door: str) -> None:
        self._secrets = secrets
        self._door = door

    def reconcile(self, key: Key, world: Writer) -> float | None:
        run = world.read(key)
        if run is not None and run.phase in ("succeeded", "failed") and (closing := close_key(run, world)):
            world.write(*closing)
        return super().reconcile(key, world)

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        task = world.scope.find("LabelTask", spec["task"], run.project)
        if task is None:
            raise NotFound(f"labelling task {spec['task']!r} is gone")
        wanted: dict[str, Any] = {"project": run.project, "task": task.name, "door": self._door}
        wanted |= {"fields": task.spec["fields"], "instructions": task.spec["instructions"]}
        found, remembered = getattr(self, f"_{spec['action']}")(run, task, world)
        expires_at = run.created_at + KEY_KEPT_S
        if spec["creator"]:
            models = [spec["model"]] if spec["model"] else []
            opening = open_charged_key(run, models, self._secrets, world, expires_at=expires_at, role="member")
        else:  # the platform's own errand: it moves items and calls no model
            opening = open_key(run, [], self._secrets, world, expires_at=expires_at, role="member")
        world.write(*opening)
        workload = engine_workload(
            f"atoll.data.engine.label.{ENGINES[spec['action']]}",
            wanted | found,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart=RESTART,
        )
        workload["roles"][0]["secrets"] = {KEY_VARIABLE: key_reference(run)}
        if found.get("sealed"):
            give_key(workload)
        return workload, remembered

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        fields = {"counts": result["counts"], "errors": result.get("errors", [])}
        if run.spec["action"] != "export":
            return fields, []
        made = make_version(
            world.scope,
            run.project,
            run.spec["dataset"],
            result["manifest"],
            made_by=f"LabelTask/{run.spec['task']}",
            parents=run.status["parents"],
            counts=result["counts"],
        )
        return fields | {"dataset_version": made.version}, made.writes

    def following(self, workload: Resource) -> dict[str, Any]:
        counts = workload.status.get("progress", {}).get("counts")
        return {} if counts is None else {"counts": counts}

    def failed(self, workload: Resource) -> dict[str, Any]:
        details = workload.status.get("error", {}).get("details") or {}
        return {"errors": details.get("errors", [])}

    def _import(self, run: Resource, task: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        source = run.spec["source"]
        wanted = {"columns": source["columns"], "limit": source["limit"], "split": source["split"]}
        if source["file"]:
            file = world.scope.find("File", source["file"], run.project)
            if file is None:
                raise NotFound(f"there is no file {source['file']!r}", hint="upload it: POST /v1/files")
            return wanted | {"manifest": "", "file": file.spec["digest"], "sealed": is_sealed(file)}, {}
        version = resolve(world.scope, run.project, source["dataset"])
        if version is None:
            raise NotYet(f"waiting for a ready version of dataset {source['dataset']!r}")
        return wanted | {"manifest": version.spec["manifest"], "file": ""}, {"parents": [version.name]}

    def _prelabel(self, run: Resource, task: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        version = _version_of(spec["model"], run.project, world)
        wanted = {"model": spec["model"], "version": version, "again": spec["again"], "parallel": spec["parallel"]}
        return wanted | {"schema": answer_schema(terms_of(task.spec).fields)}, {"model_version": version}

    def _export(self, run: Resource, task: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        imports = [r for r in world.scope.find_all("LabelRun", owner=task.uid) if r.spec["action"] == "import"]
        names = list(dict.fromkeys(name for run in imports for name in run.status.get("parents", ())))
        there_are = filter(None, (world.scope.find("DatasetVersion", name, run.project) for name in names))
        wanted = {"decided_only": run.spec["decided_only"], "licence": task.spec["licence"]}
        return wanted | {"parents": [version.spec["manifest"] for version in there_are]}, {"parents": names}


def _version_of(model: str, project: str, world: Writer) -> str:
    """The version a deployment called `model` serves; "" for what is served elsewhere."""
    deployment = world.scope.find("Deployment", model, project)
    if deployment is None:
        return ""
    return str(deployment.status.get("version") or deployment.spec.get("model") or "")
