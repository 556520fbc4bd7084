"""Dataset imports: prebuilt data becomes a dataset version as it is, without a recipe.

From files of examples: a line is a chat, {"messages": [{"role", "content"}, …]}, or {"prompt", "completion"}. From a
package, a hub, a folder or uploads: files of documents (JSON lines, CSV, Parquet, text, and whatever else is read),
or of examples. Lines are judged by the engine that reads them; it names the line that is wrong.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from atoll.compute.jobs import JobController, engine_workload
from atoll.core.blobs import BlobStore
from atoll.core.errors import AtollError, NotFound
from atoll.core.origins.source import parse
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Kind, Model, Resource, Spec, Status
from atoll.core.store import Scope, Write
from atoll.data.files import give_key, is_sealed
from atoll.data.resources import DatasetName, Digest, TagName
from atoll.data.rights import Rights
from atoll.data.versions import MAIN, make_version, parents_of

PATTERNS_MAX = 100


class ImportFields(Model):
    """What the fields of records are called. Dots reach into objects."""

    text: str = Field("text", description="The text.")
    id: str = Field("id", description="The id; a record without one gets FILE:LINE.")
    url: str = Field("url", description="Where it was found.")
    title: str = Field("title", description="What it is called.")


class DatasetImportSpec(Spec):
    """Takes files as a new version of a dataset: two files of examples, or the files of a source."""

    dataset: DatasetName = Field(description="Dataset that receives the new version.")
    branch: TagName = Field(MAIN, description="Branch the version continues.")
    train: Digest | Literal[""] = Field("", description="Digest of the lines to learn from: a file the project has.")
    heldout: Digest | Literal[""] = Field("", description="Digest of the lines to measure on; empty: none.")
    sealed: list[Literal["train", "heldout"]] = Field(
        default_factory=list, description="Which of the two are sealed uploads; those of living files are known to be."
    )
    source: str = Field("", description="pypi:NAME==VERSION, hf:OWNER/NAME[@REVISION] or file:/path, instead of files.")
    uploads: list[str] = Field(default_factory=list, max_length=1_000, description="Files of the project, by id.")
    files: list[str] = Field(
        default_factory=list, max_length=PATTERNS_MAX, description="Patterns of the source's files to learn from."
    )
    heldout_files: list[str] = Field(
        default_factory=list, max_length=PATTERNS_MAX, description="Patterns of its files to measure on."
    )
    rows: Literal["documents", "chats"] = Field("documents", description="What the source's files hold.")
    fields: ImportFields = Field(default_factory=ImportFields, description="What the fields of documents are called.")
    sha256: dict[str, str] = Field(default_factory=dict, description="Checksums (hex) the files must have, by name.")
    licence: str = Field("", description="Licence (SPDX), where the source does not say.")
    parents: list[str] = Field(default_factory=list, description="Versions the files were made from.")
    cpu: float = Field(0.25, gt=0, description="Processor cores.")
    memory_bytes: int = Field(256 << 20, ge=0, description="Memory, bytes.")

    @model_validator(mode="after")
    def _one_origin(self) -> DatasetImportSpec:
        given = [name for name in ("train", "source", "uploads") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("name one of train, source and uploads")
        if self.sealed and not self.train:
            raise ValueError("sealed goes with train")
        if self.heldout and not self.train:
            raise ValueError("heldout goes with train; a source has heldout_files")
        if self.source:
            try:
                parse(self.source, "source of datasets")
            except AtollError as error:
                raise ValueError(str(error)) from error
        return self


class DatasetImportStatus(Status):
    """pending, running, succeeded or failed."""

    dataset_version: str = Field("", description="The version it made.")
    counts: dict[str, int] = Field(default_factory=dict, description="Rows by split.")
    errors: list[dict[str, Any]] = Field(default_factory=list, description="Lines that are wrong: line, message.")
    origin: dict[str, Any] = Field(default_factory=dict, description="What the source was resolved to.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")


DATASET_IMPORT = KINDS.register(
    Kind(
        "DatasetImport",
        "datasetimports",
        "Takes prebuilt data as a dataset version: examples, or the files of a package, a hub, a folder or uploads.",
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

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        parents_of(world.scope, run.project, spec.get("parents", ()))
        if spec["train"]:
            module, wanted = "chats", {"licence": spec["licence"]} | self._examples(run, world)
        else:
            names = ("source", "files", "heldout_files", "rows", "fields", "sha256", "licence")
            module, wanted = "prebuilt", {name: spec[name] for name in names}
            wanted["uploads"] = [_upload(name, run.project, world.scope) for name in spec["uploads"]]
        workload = engine_workload(
            f"atoll.data.engine.versions.{module}",
            wanted,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart={"limit": 5},
        )
        if wanted.get("sealed") or any(upload["sealed"] for upload in wanted.get("uploads", ())):
            give_key(workload)
        return workload, {}

    def _examples(self, run: Resource, world: Writer) -> dict[str, Any]:
        """The two files the project named by digest, and which of them are sealed; NotFound when they are not its."""
        rights = Rights(world.scope, self._blobs, run.project)
        wanted: dict[str, Any] = {"train": "", "heldout": "", "sealed": []}
        for name in ("train", "heldout"):
            if digest := run.spec[name]:
                file = rights.file(digest, name)
                wanted[name] = digest if file is None else file.spec["digest"]
                if is_sealed(file) if file is not None else name in run.spec.get("sealed", ()):
                    wanted["sealed"].append(name)
        return wanted

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        made = make_version(
            world.scope,
            run.project,
            run.spec["dataset"],
            result["manifest"],
            branch=run.spec.get("branch", MAIN),
            made_by=f"DatasetImport/{run.name}",
            parents=parents_of(world.scope, run.project, run.spec.get("parents", ())),
            counts=result["counts"],
        )
        fields = {"counts": result["counts"], "dataset_version": made.version, "origin": result.get("origin", {})}
        return fields, made.writes

    def failed(self, workload: Resource) -> dict[str, Any]:
        details = workload.status.get("error", {}).get("details") or {}
        return {"errors": details.get("errors", [])}


def failed_import(scope: Scope, project: str, dataset: str) -> Resource | None:
    """The import that was to make `dataset` and failed, if so."""
    for found in scope.find_all("DatasetImport"):
        if found.project == project and found.spec["dataset"] == dataset and found.phase == "failed":
            return found
    return None


def _upload(name: str, project: str, scope: Scope) -> dict[str, Any]:
    file = scope.find("File", name, project)
    if file is None or file.is_deleting:
        raise NotFound(f"there is no file {name!r} in project {project!r}", hint="upload it through /v1/files")
    told = {"id": name, "name": file.spec["filename"], "digest": file.spec["digest"]}
    return told | {"sealed": is_sealed(file)}
