"""Routes of fine-tuning jobs. A job is a TrainingRun; an uploaded file first becomes a version of a dataset.

`model` names a model of the library, one of its versions, or a deployment of one. `training_file` is a file with
purpose fine-tune, or the name of a dataset or of one of its versions.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress

from fastapi import APIRouter, Request

from atoll.compute.jobs import workload_name
from atoll.core.errors import AtollError, Conflict, Invalid, NotFound
from atoll.core.resources import Resource
from atoll.core.store import Create, SetSpec, Write
from atoll.data import controllers as data
from atoll.data.files import is_sealed
from atoll.data.imports import DATASET_IMPORT, DatasetImportStatus
from atoll.models import library
from atoll.server.access import CentreOf, Tenant
from atoll.server.openai.batches import ask_to_end
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.jobs import (
    FILES,
    METADATA,
    CheckpointObject,
    EventObject,
    JobObject,
    NewJob,
    checkpoints_of,
    events_of,
    job_object,
    recipe_of,
)
from atoll.server.openai.pages import After, Limit, Page, cut, page
from atoll.server.openai.project import Member, Viewer, find, may_be_name
from atoll.training.resources import TRAINING_RUN, TrainingRunStatus

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], responses=RESPONSES)

EVENTS_MAX = 1000


@router.post("")
def create(tenant: Member, wanted: NewJob) -> JobObject:
    """Begin a job."""
    base = _base(tenant, wanted.model)
    dataset, writes = _dataset(tenant, wanted.training_file, wanted.validation_file)
    job_id = f"ftjob-{secrets.token_hex(12)}"
    spec = TRAINING_RUN.parse_spec(
        {
            "base": base,
            "dataset": dataset,
            "output": _output(wanted.model, wanted.suffix or job_id[-6:]),
            "recipe": recipe_of(wanted),
            "seed": wanted.seed if wanted.seed is not None else secrets.randbelow(1 << 31),
        }
    )
    labels = {name: value for name in FILES if (value := getattr(wanted, name))}
    labels |= {f"{METADATA}{name}": value for name, value in (wanted.metadata or {}).items()}
    status = TrainingRunStatus().model_dump(mode="json")
    tenant.scope.write([*writes, Create("TrainingRun", tenant.project, job_id, spec, status, labels)])
    return _job(tenant, tenant.scope.get("TrainingRun", job_id))


@router.get("")
def list_jobs(tenant: Viewer, request: Request, after: After = "", limit: Limit = 20) -> Page:
    """The project's jobs, newest first; training runs that were applied are among them.

    `metadata[NAME]=VALUE` in the query leaves those that carry it.
    """
    query = request.query_params.items()
    wanted = {f"{METADATA}{name[9:-1]}": value for name, value in query if name.startswith("metadata[")}
    found = [run for run in tenant.scope.find_all("TrainingRun", labels=wanted) if not run.is_deleting]
    found.sort(key=lambda run: (run.created_at, run.name), reverse=True)
    shown, has_more = cut(found, lambda run: run.name, after, limit)
    return page([_job(tenant, run).model_dump() for run in shown], has_more)


@router.get("/{name}")
def read(tenant: Viewer, name: str) -> JobObject:
    """One job."""
    return _job(tenant, _find(tenant, name))


@router.post("/{name}/cancel")
def cancel(centre: CentreOf, tenant: Member, name: str) -> JobObject:
    """End a job; what it has learned is dropped."""
    return _job(tenant, ask_to_end(tenant, _find(tenant, name), centre.clock.now()))


@router.post("/{name}/pause")
def pause(tenant: Member, name: str) -> JobObject:
    """Stop a job's tasks after a checkpoint; it keeps what it has learned."""
    return _suspend(tenant, name, suspended=True)


@router.post("/{name}/resume")
def resume(tenant: Member, name: str) -> JobObject:
    """Go on with a paused job from its checkpoint."""
    return _suspend(tenant, name, suspended=False)


@router.get("/{name}/events")
def events(tenant: Viewer, name: str, after: After = "", limit: Limit = 20) -> Page:
    """What happened to a job, newest first."""
    run = _find(tenant, name)
    workload = _workload(tenant, run)
    uids = [run.uid, *([workload.uid] if workload else [])]
    found: list[EventObject] = events_of(run, tenant.scope.events(uids=uids, limit=EVENTS_MAX))
    shown, has_more = cut(found, lambda event: event.id, after, limit)
    return page([event.model_dump() for event in shown], has_more)


@router.get("/{name}/checkpoints")
def checkpoints(tenant: Viewer, name: str, after: After = "", limit: Limit = 10) -> Page:
    """The versions a job has made; checkpoints on the way serve restarts and cannot be deployed."""
    found: list[CheckpointObject] = checkpoints_of(_find(tenant, name))
    shown, has_more = cut(found, lambda checkpoint: checkpoint.id, after, limit)
    return page([checkpoint.model_dump() for checkpoint in shown], has_more)


def _find(tenant: Tenant, name: str) -> Resource:
    return find(tenant, "TrainingRun", name, "fine-tuning job")


def _job(tenant: Tenant, run: Resource) -> JobObject:
    return job_object(run, _workload(tenant, run))


def _workload(tenant: Tenant, run: Resource) -> Resource | None:
    return tenant.scope.find("Workload", workload_name(run))


def _suspend(tenant: Tenant, name: str, *, suspended: bool) -> JobObject:
    while True:
        run = _find(tenant, name)
        workload = _workload(tenant, run)
        if workload is None or run.phase not in ("pending", "running"):
            words = "has not begun" if run.phase in ("pending", "running") else f"has {run.phase}"
            raise Conflict(f"{run.name} {words}", hint="only a job that is under way can be paused or resumed")
        if workload.spec["suspended"] == suspended:
            return _job(tenant, run)
        reason = "Paused" if suspended else "Resumed"
        with suppress(Conflict):  # its progress was noted in between
            tenant.scope.write([SetSpec(workload, workload.spec | {"suspended": suspended}, reason=reason)])


def _base(tenant: Tenant, model: str) -> str:
    """The library's name of what is asked to be tuned; NotFound names the nearest."""
    if not may_be_name(model):
        raise NotFound(f"there is no model {model[:100]!r}", field="model", code="model_not_found")
    try:
        library.resolve(tenant.scope, tenant.project, model)
    except NotFound as error:
        deployment = tenant.scope.find("Deployment", model)
        if deployment is None:
            raise NotFound(error.message, hint=error.hint, field="model", code="model_not_found") from error
        return str(deployment.status.get("version") or deployment.spec["model"])
    return model


def _output(model: str, suffix: str) -> str:
    """The model that receives the tuned version: MODEL-SUFFIX."""
    base = re.sub(r"(\.v[0-9]+)?(@.*)?$", "", model)
    slug = re.sub(r"[^a-z0-9]+", "-", suffix.lower()).strip("-") or "tuned"
    return f"{base[:80]}-{slug}"


def _dataset(tenant: Tenant, training: str, validation: str | None) -> tuple[str, list[Write]]:
    """The dataset to learn from, and the writes that make it of files where it is not there yet."""
    if not may_be_name(training):
        raise NotFound(f"there is no file and no dataset {training[:100]!r}", field="training_file")
    if tenant.scope.find("File", training) is None:
        return _named_dataset(tenant, training, validation), []
    files = [_file(tenant, training, "training_file")]
    if validation:
        files.append(_file(tenant, validation, "validation_file"))
    name = "-".join(file.name for file in files)
    if (existing := tenant.scope.find("DatasetImport", name)) is not None:
        if existing.phase != "failed":
            return name, []
        raise Invalid(f"{files[0].name}: {existing.status['reason']}", field="training_file")
    given = dict(zip(("train", "heldout"), files, strict=False))
    wanted: dict[str, object] = {side: file.spec["digest"] for side, file in given.items()}
    sealed = [side for side, file in given.items() if is_sealed(file)]
    spec = DATASET_IMPORT.parse_spec({"dataset": name, "sealed": sealed, **wanted})
    writes: list[Write] = []
    if tenant.scope.find("Dataset", name) is None:
        status = {"phase": "pending", "reason": "", "observed_generation": 0, "versions": [], "latest": ""}
        description = f"made of {', '.join(file.spec['filename'] for file in files)}"
        writes.append(Create("Dataset", tenant.project, name, {"description": description}, status))
    status = DatasetImportStatus().model_dump(mode="json")
    writes.append(Create("DatasetImport", tenant.project, name, spec, status))
    return name, writes


def _named_dataset(tenant: Tenant, name: str, validation: str | None) -> str:
    if validation:
        raise Invalid("a dataset brings its own held-out rows", field="validation_file", hint="leave it out")
    try:
        data.resolve(tenant.scope, tenant.project, name)
    except AtollError as error:
        hint = "the id of an uploaded file, a dataset or one of its versions"
        raise NotFound(f"there is no file and no dataset {name[:100]!r}", field="training_file", hint=hint) from error
    return name


def _file(tenant: Tenant, name: str, param: str) -> Resource:
    file = find(tenant, "File", name, "File object")
    if file.spec["purpose"] != "fine-tune":
        raise Invalid(f"file {file.name} is for {file.spec['purpose']}", field=param, hint="upload it for fine-tune")
    return file
