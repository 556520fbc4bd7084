"""Routes of batches: made of an uploaded file of requests, followed, cancelled."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from atoll.compute.jobs import CANCEL
from atoll.core.errors import Conflict, Invalid
from atoll.core.resources import Resource
from atoll.core.store import Create, SetSpec
from atoll.data.files import is_sealed
from atoll.server.access import CentreOf, Tenant, creator_of
from atoll.server.openai.errors import RESPONSES
from atoll.server.openai.pages import After, Limit, Metadata, Page, cut, page
from atoll.server.openai.project import Member, Viewer, find
from atoll.serving.batches import BATCH, BatchEndpoint, BatchStatus

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=RESPONSES)

WINDOW_S_MAX = 7 * 86_400
_UNITS = {"m": 60, "h": 3_600, "d": 86_400}


class ExpiresAfter(BaseModel):
    """When output files go by themselves."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3_600, le=2_592_000)


class NewBatch(BaseModel):
    """What shall be worked off."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str = Field(max_length=128, description="File with purpose batch.")
    endpoint: BatchEndpoint = Field(description="Path every request asks.")
    completion_window: str = Field(
        "24h", pattern=r"^[1-9][0-9]{0,5}[mhd]$", description="It ends after so long, done or not: 90m, 24h, 7d."
    )
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class Counts(BaseModel):
    """Requests."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchError(BaseModel):
    """What is wrong with the file, or one line of it."""

    code: str | None = None
    line: int | None = None
    message: str | None = None
    param: str | None = None


class BatchErrors(BaseModel):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchObject(BaseModel):
    """One batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: str = Field(
        description="validating, in_progress, finalizing, completed, failed, expired, cancelling or cancelled."
    )
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: Counts
    metadata: dict[str, str] | None = None
    reason: str = Field("", description="Why it stands where it stands, for people.")


@router.post("")
def create(tenant: Member, wanted: NewBatch) -> BatchObject:
    """Begin a batch; the file is checked before its first request is asked."""
    file = find(tenant, "File", wanted.input_file_id, "File object")
    if file.spec["purpose"] != "batch":
        raise Invalid(f"file {file.name} is for {file.spec['purpose']}", field="input_file_id", hint="upload for batch")
    spec = BATCH.parse_spec(
        {
            "input_file": file.name,
            "digest": file.spec["digest"],
            "sealed": is_sealed(file),
            "endpoint": wanted.endpoint,
            "window_s": _window_s(wanted.completion_window),
            "metadata": wanted.metadata or {},
            "results_kept_s": wanted.output_expires_after.seconds if wanted.output_expires_after else None,
            "creator": creator_of(tenant),
        }
    )
    name = f"batch-{secrets.token_hex(12)}"
    labels = {"completion-window": wanted.completion_window}
    status = BatchStatus().model_dump(mode="json")
    tenant.scope.write([Create("Batch", tenant.project, name, spec, status, labels)])
    return batch_object(tenant.scope.get("Batch", name))


@router.get("")
def list_batches(tenant: Viewer, after: After = "", limit: Limit = 20) -> Page:
    """The project's batches, newest first."""
    found = [b for b in tenant.scope.find_all("Batch") if not b.is_deleting]
    found.sort(key=lambda b: (b.created_at, b.name), reverse=True)
    shown, has_more = cut(found, lambda b: b.name, after, limit)
    return page([batch_object(b).model_dump() for b in shown], has_more)


@router.get("/{name}")
def read(tenant: Viewer, name: str) -> BatchObject:
    """One batch."""
    return batch_object(find(tenant, "Batch", name, "Batch object"))


@router.post("/{name}/cancel")
def cancel(centre: CentreOf, tenant: Member, name: str) -> BatchObject:
    """Ask no more requests; what is done is kept."""
    batch = ask_to_end(tenant, find(tenant, "Batch", name, "Batch object"), centre.clock.now())
    return batch_object(batch)


def ask_to_end(tenant: Tenant, run: Resource, now: float) -> Resource:
    """Label a run so that it ends; Conflict when it has ended by itself. Asking again changes nothing."""
    while CANCEL not in run.labels:
        if run.phase in ("succeeded", "failed"):
            raise Conflict(f"{run.name} has {run.phase} already", hint="there is nothing to cancel")
        try:
            tenant.scope.write([SetSpec(run, run.spec, {**run.labels, CANCEL: f"{now:.3f}"}, "Cancelling")])
        except Conflict:
            run = tenant.scope.get(run.kind, run.name)
            continue
        return tenant.scope.get(run.kind, run.name)
    return run


def batch_object(batch: Resource) -> BatchObject:
    """A batch on the wire."""
    spec, status, state = batch.spec, batch.status, state_of(batch)
    ended_at = _time(status, "ended_at") or (int(batch.updated_at) if batch.phase in ("succeeded", "failed") else None)
    asked_at = batch.labels.get(CANCEL)
    return BatchObject(
        id=batch.name,
        endpoint=spec["endpoint"],
        model=status.get("model") or None,
        errors=_errors(batch),
        input_file_id=spec["input_file"],
        completion_window=batch.labels.get("completion-window", f"{spec['window_s'] / 3600:g}h"),
        status=state,
        output_file_id=status.get("output_file") or None,
        error_file_id=status.get("error_file") or None,
        created_at=int(batch.created_at),
        in_progress_at=_time(status, "started_at"),
        expires_at=int(batch.created_at + spec["window_s"]),
        finalizing_at=_time(status, "finalizing_at"),
        completed_at=ended_at if state == "completed" else None,
        failed_at=ended_at if state == "failed" else None,
        expired_at=ended_at if state == "expired" else None,
        cancelling_at=None if asked_at is None else int(float(asked_at)),
        cancelled_at=ended_at if state == "cancelled" else None,
        request_counts=Counts(**status.get("counts", {})),
        metadata=spec["metadata"] or None,
        reason=status.get("reason", ""),
    )


def state_of(batch: Resource) -> str:
    """Where a batch stands, in OpenAI's words."""
    if batch.phase == "failed":
        return "failed"
    if batch.phase == "succeeded":
        return str(batch.status.get("outcome") or "completed")
    if CANCEL in batch.labels:
        return "cancelling"
    stages = {"ask": "in_progress", "finalize": "finalizing"}
    return stages.get((batch.status.get("progress") or {}).get("stage", ""), "validating")


def _errors(batch: Resource) -> BatchErrors | None:
    if batch.phase != "failed":
        return None
    plain = [{"code": "failed", "message": batch.status.get("reason", "")}]
    return BatchErrors(data=[BatchError(**error) for error in batch.status.get("errors") or plain])


def _time(status: dict[str, Any], name: str) -> int | None:
    return int(status[name]) if status.get(name) else None


def _window_s(text: str) -> float:
    seconds = int(text[:-1]) * _UNITS[text[-1]]
    if seconds > WINDOW_S_MAX:
        raise Invalid(f"completion_window {text} is too long", field="completion_window", hint="at most 7d")
    return float(seconds)
