"""Syntheses: a deployed model writes questions, answers and instructions about the documents of a dataset version.

A run is one workload whose task asks the door with a key of the run's own: it may call the run's models, at priority
batch, is charged to the key that asked for the run and bound like it, and ends with the run. Whether what a model
writes is supported by the documents is found out by the engine; whether the model speaks a document's language is not
known before.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from atoll.compute.jobs import JobController, NotYet, engine_workload
from atoll.compute.run_keys import close_key, key_reference, open_charged_key
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Key, Kind, Resource, Spec, Status
from atoll.core.store import Write
from atoll.data.resources import DatasetName, TagName
from atoll.data.versions import MAIN, make_version, resolve
from atoll.governance.secrets import Secrets

KEY_VARIABLE = "ATOLL_SYNTHESIS_KEY"
KEY_KEPT_S = 30 * 86_400.0
"""A run's key is refused after so long, whatever becomes of the run."""

RESTART = {"limit": 1000, "backoff_min_s": 0.5, "backoff_max_s": 30.0}

PASSED_ON = (
    *("model", "judge", "kinds", "documents_max", "per_document", "attempts", "seed", "tokens_max", "parallel"),
    *("temperature", "support_min", "passage_characters", "answer_characters_max"),
)
"""Fields the engine gets as they are."""


class SynthesisRunSpec(Spec):
    """Makes a dataset version of questions, answers and instructions about the documents of another."""

    dataset: DatasetName = Field(description="Dataset that receives the new version.")
    branch: TagName = Field(MAIN, description="The line of versions it continues.")
    source: str = Field(description="Dataset version whose documents are asked about: its splits train and heldout.")
    model: str = Field(min_length=1, description="Deployment, route or provider's model that writes.")
    judge: str = Field("", description="Model that is asked whether a document says what an answer says; empty: none.")
    kinds: list[Literal["question_answer", "instruction"]] = Field(
        default=["question_answer"], min_length=1, description="What is written, in turns."
    )
    documents_max: int = Field(1000, ge=1, le=100_000, description="Documents asked about; more are drawn by the seed.")
    per_document: int = Field(3, ge=1, le=20, description="Pairs asked for of each document, one a sentence.")
    attempts: int = Field(2, ge=1, le=5, description="How often one pair is asked for until it is supported.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of what is asked about, and of the model's choices.")
    tokens_max: int | None = Field(None, ge=1, description="Prompt and generated tokens in all; empty does not limit.")
    parallel: int = Field(8, ge=1, le=256, description="Requests in flight at most.")
    temperature: float = Field(0.7, ge=0, le=2, description="How freely the model writes.")
    support_min: float = Field(
        0.6, ge=0, le=1, description="Share of an answer's content words that its quoted evidence must hold."
    )
    passage_characters: int = Field(1500, ge=200, le=20_000, description="How much of a document is shown at once.")
    answer_characters_max: int = Field(600, ge=40, le=4000, description="Longest answer; half as long in Chinese.")
    decontaminate: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        max_length=64,
        description="Evaluation sets to keep out: dataset versions, or files on the node.",
    )
    creator: str = Field("", description="PROJECT/KEY it is charged to: who asked for this spec. The server sets it.")
    cpu: float = Field(0.25, gt=0, description="Processor cores.")
    memory_bytes: int = Field(512 << 20, ge=0, description="Memory, bytes.")


class SynthesisRunStatus(Status):
    """pending, running, succeeded or failed. `reason` of one that succeeded says why it ended early, if it did."""

    dataset_version: str = Field("", description="The version it made.")
    parents: list[str] = Field(default_factory=list, description="The version it read.")
    counts: dict[str, int] = Field(default_factory=dict, description="Documents, pairs asked for, tokens, rows.")
    funnel: list[dict[str, Any]] = Field(default_factory=list, description="Why answers made no pair, with samples.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")


SYNTHESIS_RUN = KINDS.register(
    Kind(
        "SynthesisRun",
        "synthesisruns",
        "Questions, answers and instructions a deployed model writes about documents, held to what they say.",
        SynthesisRunSpec,
        SynthesisRunStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DATASET", "spec.dataset"),
            ("MODEL", "spec.model"),
            ("VERSION", "status.dataset_version"),
            ("REASON", "status.reason"),
        ),
        is_charged=True,
    )
)


class SynthesisRunController(JobController):
    """Runs syntheses; `door` is the address of the door as tasks reach it. One that succeeded makes one version."""

    name = "synthesis-runs"
    owns = "SynthesisRun"

    def __init__(self, secrets: Secrets, door: str) -> None:
        self._secrets = secrets
        self._door = door

    def reconcile(self, key: Key, world: Writer) -> float | None:
        run = world.read(key)
        if run is not None and run.phase in ("succeeded", "failed") and _is_current(run):
            if closing := close_key(run, world):
                world.write(*closing)
            return None
        return super().reconcile(key, world)

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        source = _version(run, spec["source"], world)
        wanted = {name: spec[name] for name in PASSED_ON}
        wanted |= {"manifest": source.spec["manifest"], "project": run.project, "door": self._door}
        wanted["decontaminate"] = [_set(run, reference, world) for reference in spec["decontaminate"]]
        models = list(dict.fromkeys(filter(None, (spec["model"], spec["judge"]))))
        expires_at = world.clock.now() + KEY_KEPT_S
        world.write(*open_charged_key(run, models, self._secrets, world, expires_at=expires_at))
        workload = engine_workload(
            "atoll.data.engine.synthesis.run",
            wanted,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart=RESTART,
        )
        workload["roles"][0]["secrets"] = {KEY_VARIABLE: key_reference(run)}
        return workload, {"parents": [source.name]}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        made = make_version(
            world.scope,
            run.project,
            run.spec["dataset"],
            result["manifest"],
            branch=run.spec["branch"],
            made_by=f"SynthesisRun/{run.name}",
            parents=run.status["parents"],
            counts=result["counts"],
        )
        fields = {name: result[name] for name in ("counts", "funnel", "reason")}
        return fields | {"dataset_version": made.version}, made.writes

    def failed(self, workload: Resource) -> dict[str, Any]:
        details = workload.status.get("error", {}).get("details") or {}
        return {"funnel": details["funnel"]} if details.get("funnel") else {}


def _is_current(run: Resource) -> bool:
    return run.status.get("observed_generation") == run.generation


def _version(run: Resource, reference: str, world: Writer) -> Resource:
    version = resolve(world.scope, run.project, reference)
    if version is None or version.phase != "ready":
        raise NotYet(f"waiting for a ready version of dataset {reference!r}")
    return version


def _set(run: Resource, reference: str, world: Writer) -> str:
    """The digest of an evaluation set that is a dataset version; a path stays what it is."""
    return reference if "/" in reference else str(_version(run, reference, world).spec["manifest"])
