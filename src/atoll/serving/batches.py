"""Batches: files of requests worked off on capacity that online traffic leaves idle.

A batch is one workload whose task asks the door with a key of the batch's own: it may call the batch's one model, at
priority batch, is charged to the key that made the batch, and ends with the batch. Whether requests are well formed
is found out by the task; what a model answers is not known here.
"""

from __future__ import annotations

import hashlib
from typing import IO, Any, Literal

import orjson
from pydantic import Field

from atoll.compute.jobs import CANCEL, JobController, engine_workload
from atoll.compute.run_keys import close_key, key_reference, open_charged_key
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Key, Kind, Resource, Spec, Status
from atoll.core.store import Write
from atoll.data.files import create_file, give_key
from atoll.governance.secrets import Secrets
from atoll.governance.uploads import Uploads

BatchEndpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank"]

ENDING_S = 600.0
"""After its window, or after it was asked to end, a batch has so long to put its results together."""

KEY_VARIABLE = "ATOLL_BATCH_KEY"
LINE_BYTES_MAX = 32 << 20
RESTART = {"limit": 1000, "backoff_min_s": 0.5, "backoff_max_s": 30.0}


class BatchSpec(Spec):
    """A file of requests to one endpoint."""

    input_file: str = Field(description="File with the requests, one JSON object a line.")
    digest: str = Field(description="Blob digest of that file.", pattern="^sha256:[0-9a-f]{64}$")
    sealed: bool = Field(False, description="Whether that blob is sealed with the project's key.")
    endpoint: BatchEndpoint = Field(description="Path every request asks.")
    window_s: float = Field(86_400.0, gt=0, description="It ends after so long, done or not; seconds.")
    metadata: dict[str, str] = Field(default_factory=dict, description="What its maker noted.")
    results_kept_s: float | None = Field(None, gt=0, description="Lifetime of its output files; empty keeps them.")
    creator: str = Field(description="PROJECT/KEY it is charged to.")
    parallel: int = Field(16, ge=1, le=256, description="Requests in flight at most.")


class BatchStatus(Status):
    """pending, running, succeeded (`outcome` says how it ended) or failed (nothing was asked)."""

    model: str = Field("", description="The model asked.")
    outcome: str = Field("", description="completed, expired or cancelled.")
    counts: dict[str, int] = Field(default_factory=dict, description="Requests: total, completed, failed.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where it is.")
    output_file: str = Field("", description="File of the answers, in the order of the requests.")
    error_file: str = Field("", description="File of the requests that failed, in their order.")
    errors: list[dict[str, Any]] = Field(default_factory=list, description="Wrong lines: line, code, message.")
    started_at: float = Field(0.0, description="Unix time at which its first request was asked.")
    finalizing_at: float = Field(0.0, description="Unix time of the last answer.")
    ended_at: float = Field(0.0, description="Unix time of its end.")


BATCH = KINDS.register(
    Kind(
        "Batch",
        "batches",
        "A file of requests worked off on idle capacity; made through /v1/batches.",
        BatchSpec,
        BatchStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("MODEL", "status.model"),
            ("COUNTS", "status.counts"),
            ("OUTCOME", "status.outcome"),
            ("REASON", "status.reason"),
        ),
        is_internal=True,
    )
)


class BatchController(JobController):
    """Runs batches; `door` is the address of the door as tasks reach it."""

    name = "batches"
    owns = "Batch"

    def __init__(self, blobs: BlobStore, secrets: Secrets, door: str) -> None:
        self._blobs = blobs
        self._secrets = secrets
        self._door = door

    def reconcile(self, key: Key, world: Writer) -> float | None:
        batch = world.read(key)
        if batch is None or batch.phase not in ("succeeded", "failed"):
            return super().reconcile(key, world)
        is_closed = world.clock.now() - batch.updated_at > ENDING_S  # not looked at for ever
        if not is_closed and (closing := close_key(batch, world)):
            world.write(*closing)
        return None

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        model = self._model_asked(run, world)
        ends_at = run.created_at + spec["window_s"] + 2 * ENDING_S
        world.write(*open_charged_key(run, [model], self._secrets, world, expires_at=ends_at, role="member"))
        wanted = {
            "batch": run.name,
            "project": run.project,
            "door": self._door,
            "endpoint": spec["endpoint"],
            "file": spec["digest"],
            "sealed": spec.get("sealed", False),
            "model": model,
            "expires_at": run.created_at + spec["window_s"],
            "parallel": spec["parallel"],
        }
        workload = engine_workload(
            "atoll.serving.engine.batch", wanted, cpu=0.05, memory_bytes=64 << 20, restart=RESTART
        )
        workload["roles"][0]["secrets"] = {KEY_VARIABLE: key_reference(run)}
        give_key(workload)
        return workload, {"model": model}

    def _model_asked(self, run: Resource, world: Writer) -> str:
        is_sealed = bool(run.spec.get("sealed"))
        keys = self._secrets.data_keys(world.scope, run.project) if is_sealed else ()
        with Uploads(self._blobs, keys).open(run.spec["digest"], is_sealed=is_sealed) as stream:
            return model_of(stream)

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        now = world.clock.now()
        kept_s = run.spec["results_kept_s"]
        fields: dict[str, Any] = {name: result[name] for name in ("outcome", "counts", "reason")}
        fields |= {"started_at": result["started_at"], "finalizing_at": result["finalizing_at"], "ended_at": now}
        writes: list[Write] = []
        for name in ("output", "error"):
            if result[name] is not None:
                file = _result_file(run, name)
                expires_at = None if kept_s is None else now + kept_s
                writes.append(
                    create_file(
                        run.project,
                        file,
                        f"{run.name}_{name}.jsonl",
                        "batch_output",
                        **result[name],
                        expires_at=expires_at,
                    )
                )
                fields[f"{name}_file"] = file
        return fields, writes

    def is_cut_off(self, run: Resource, workload: Resource | None, now: float) -> bool:
        """A task that works sees by itself that it shall end, and keeps what is done; here only without one."""
        is_late = bool(now > run.created_at + run.spec["window_s"] + ENDING_S)
        if CANCEL not in run.labels:
            return is_late
        if workload is None or not workload.status.get("epoch"):
            return True
        return is_late or now > float(run.labels[CANCEL]) + ENDING_S

    def cut_off(self, run: Resource, now: float) -> dict[str, Any]:
        outcome = "cancelled" if CANCEL in run.labels else "expired"
        return {"phase": "succeeded", "outcome": outcome, "reason": outcome, "ended_at": now}

    def following(self, workload: Resource) -> dict[str, Any]:
        progress = workload.status.get("progress", {})
        counts = progress.get("counts")
        found: dict[str, Any] = {} if counts is None else {"counts": counts}
        message = str(progress.get("message") or "")
        if workload.phase == "running" and message.startswith("waiting"):
            found["reason"] = message
        return found | {name: progress[name] for name in ("started_at", "finalizing_at") if progress.get(name)}

    def failed(self, workload: Resource) -> dict[str, Any]:
        error = workload.status.get("error", {})
        wrong = (error.get("details") or {}).get("errors")
        plain = {"code": error.get("code", "failed"), "message": workload.status.get("reason", ""), "line": None}
        ended_at = workload.status.get("ended_at", 0.0)
        return {"errors": wrong or [{**plain, "param": None}], "ended_at": ended_at}


def model_of(stream: IO[bytes]) -> str:
    """The model the first request asks; a batch asks one. Invalid when there is no such thing."""
    for number in range(1, 1001):
        line = stream.readline(LINE_BYTES_MAX)
        if not line:
            break
        if line.strip():
            return _model_in(line, number)
    raise _wrong_line("empty_file", "the file holds no request", 1)


def _model_in(line: bytes, number: int) -> str:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _wrong_line("invalid_json_line", f"is not JSON: {error}", number) from error
    body = request.get("body") if isinstance(request, dict) else None
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not model:
        raise _wrong_line("missing_required_parameter", "has no body.model", number)
    return model


def _wrong_line(code: str, message: str, line: int) -> Invalid:
    error = {"code": code, "line": line, "message": message, "param": None}
    return Invalid(f"line {line}: {message}", field="input_file_id", errors=[error])


def _result_file(batch: Resource, name: str) -> str:
    return f"file-{hashlib.sha256(f'{batch.uid}/{name}'.encode()).hexdigest()[:24]}"
