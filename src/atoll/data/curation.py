"""Curation runs: a recipe over sources, worked off as a workload, which makes one dataset version.

The controller resolves names of the project (dataset versions, uploads, quality models) to digests and sees to it that
they are the project's own; what is done to documents is the engine's. The project's key for hashes of personal data is
made when a recipe first needs it, and lies with its secrets.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from atoll.compute.jobs import JobController, NotYet, engine_workload
from atoll.compute.run_keys import close_key, key_reference, open_charged_key
from atoll.core.errors import Invalid, NotFound
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Key, Kind, Resource, Spec, Status
from atoll.core.store import Create, Scope, Write
from atoll.data.files import find_file, give_key, is_sealed
from atoll.data.recipes import Recipe, Source
from atoll.data.resources import DatasetName, TagName
from atoll.data.versions import MAIN, make_version, meant, resolve
from atoll.governance.resources import SECRET
from atoll.governance.secrets import Secrets

KEY_SECRET, KEY_VALUE = "curation-privacy-key", "key"
"""The project's secret for hashes of, and stand-ins for, personal data."""

KEY_VARIABLE = "ATOLL_PRIVACY_KEY"
ASKING_VARIABLE = "ATOLL_CURATION_KEY"
ASKING_KEPT_S = 30 * 86_400.0
"""The key a run asks a deployment with is refused after so long, whatever becomes of the run."""

RESTART = {"limit": 5}
RESTART_ASKING = {"limit": 100, "backoff_min_s": 0.5, "backoff_max_s": 30.0}
"""A run that asks a deployment outlives it: what was answered is kept."""

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json")
KEYED_ACTIONS = frozenset({"hash", "pseudonymise"})
DIGEST = "sha256:"
KEY_BYTES = 32

WORKER_BYTES = 384 << 20
"""What a worker may take, and as much again for what leads them."""


class Model(Protocol):
    """What a reference to a model of the library stands for: a version, and for an adapter its base."""

    @property
    def version(self) -> Resource: ...

    @property
    def base(self) -> Resource | None: ...


FindModel = Callable[[Scope, str, str], Model | None]
"""find(scope, project, reference): None while the version is still being made; NotFound, Invalid as of the library."""


class CurationRunSpec(Spec):
    """Turns sources into a dataset version by a recipe."""

    dataset: DatasetName = Field(description="Dataset that receives the new version.")
    branch: TagName = Field(MAIN, description="The line of versions it continues.")
    sources: list[Source] = Field(min_length=1, description="Where the documents come from.")
    recipe: Recipe = Field(default_factory=Recipe, description="What is done to them.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every choice.")
    workers: int = Field(1, ge=1, le=256, description="Processes that read, measure and write side by side.")
    runtime: Literal["process", "ray"] = Field(
        "process", description="process: children on one node; ray: Ray Data on the cluster the node belongs to."
    )
    creator: str = Field("", description="PROJECT/KEY it is charged to: who asked for this spec. The server sets it.")
    cpu: float | None = Field(None, gt=0, description="Processor cores; empty: one a worker.")
    memory_bytes: int | None = Field(None, ge=0, description="Memory, bytes; empty: 384 MiB, and as much a worker.")


class CurationRunStatus(Status):
    """pending, running, succeeded or failed."""

    dataset_version: str = Field("", description="The version it made.")
    parents: list[str] = Field(default_factory=list, description="Versions its sources of kind dataset stand for.")
    known: list[str] = Field(default_factory=list, description="Versions whose documents are not new to it.")
    model_version: str = Field("", description="Version of the model whose tokenizer packs.")
    counts: dict[str, int] = Field(default_factory=dict, description="Documents in and out, rows by split.")
    funnel: list[dict[str, Any]] = Field(default_factory=list, description="How many each rule dropped, with samples.")
    privacy: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="Personal data found in the documents kept: kind, what was done, how many."
    )
    languages: dict[str, int] = Field(default_factory=dict, description="Documents kept by language, if identified.")
    progress: dict[str, Any] = Field(default_factory=dict, description="Where the run is.")
    seconds: float = Field(0.0, description="How long it took.")
    cpu_s: float = Field(0.0, description="Processor seconds of all workers.")


CURATION_RUN = KINDS.register(
    Kind(
        "CurationRun",
        "curationruns",
        "One run of a recipe over sources, which makes a dataset version.",
        CurationRunSpec,
        CurationRunStatus,
        columns=(
            ("PHASE", "status.phase"),
            ("DATASET", "spec.dataset"),
            ("VERSION", "status.dataset_version"),
            ("REASON", "status.reason"),
        ),
        is_charged=True,
    )
)


class CurationRunController(JobController):
    """Runs recipes; a run that succeeded makes exactly one dataset version."""

    name = "curation-runs"
    owns = "CurationRun"

    def __init__(self, secrets: Secrets | None = None, door: str = "", find_model: FindModel | None = None) -> None:
        """secrets: seals the projects' keys; without it recipes that need one are refused. door: where tasks reach
        the platform's door. find_model: knows the library; without it recipes that name a model are refused.
        """
        self._secrets = secrets
        self._door = door
        self._find_model = find_model

    def reconcile(self, key: Key, world: Writer) -> float | None:
        run = world.read(key)
        is_over = run is not None and run.phase in ("succeeded", "failed")
        if run is not None and is_over and run.status.get("observed_generation") == run.generation:
            if closing := close_key(run, world):
                world.write(*closing)
            return None
        return super().reconcile(key, world)

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = run.spec
        project = _Project(world.scope, run.project, self._find_model)
        wanted = {
            "sources": [project.source(source, f"sources[{i}]") for i, source in enumerate(spec["sources"])],
            "recipe": project.recipe(spec["recipe"], spec["dataset"]),
            "names": project.names,
            "known": project.known,
            "tokenizer": project.tokenizer,
            "sealed": list(project.sealed),
            **{name: spec[name] for name in ("seed", "workers", "runtime")},
        }
        deployment = deployment_of(spec["recipe"])
        if deployment:
            wanted |= {"door": self._door, "project": run.project}
        cpu = float(spec["cpu"] or spec["workers"])
        memory_bytes = (1 + spec["workers"]) * WORKER_BYTES if spec["memory_bytes"] is None else spec["memory_bytes"]
        restart = RESTART_ASKING if deployment else RESTART
        workload = engine_workload(
            "atoll.data.engine.curate.run", wanted, cpu=cpu, memory_bytes=memory_bytes, restart=restart
        )
        if secrets := self._secrets_of(run, deployment, world):
            workload["roles"][0]["secrets"] = secrets
        if project.sealed:
            give_key(workload)
        remembered = {"parents": list(project.parents), "known": list(project.known)}
        return workload, remembered | {"model_version": project.model_version}

    def _secrets_of(self, run: Resource, deployment: str, world: Writer) -> dict[str, str]:
        """The secrets the task is given, by the variables it finds them in; made where they are not there."""
        found = {}
        if is_keyed(run.spec["recipe"].get("privacy")):
            self._make_key(run.project, world)
            found[KEY_VARIABLE] = f"{KEY_SECRET}/{KEY_VALUE}"
        if deployment:
            if self._secrets is None:
                raise Invalid("no key can be made here", field="recipe.dedup.semantic", hint="leave out deployment")
            expires_at = world.clock.now() + ASKING_KEPT_S
            world.write(*open_charged_key(run, [deployment], self._secrets, world, expires_at=expires_at))
            found[ASKING_VARIABLE] = key_reference(run)
        return found

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        result = workload.status["result"]
        fields = {name: result[name] for name in ("counts", "funnel", "privacy", "languages", "seconds", "cpu_s")}
        made = make_version(
            world.scope,
            run.project,
            run.spec["dataset"],
            result["manifest"],
            branch=run.spec["branch"],
            curation_run=run.name,
            parents=run.status.get("parents", []),
            counts=result["counts"],
        )
        return fields | {"dataset_version": made.version}, made.writes

    def failed(self, workload: Resource) -> dict[str, Any]:
        details = workload.status.get("error", {}).get("details") or {}
        return {"funnel": details["funnel"]} if details.get("funnel") else {}

    def _make_key(self, project: str, world: Writer) -> None:
        """Make the project's key unless it has one."""
        if world.scope.find("Secret", KEY_SECRET, project) is not None:
            return
        if self._secrets is None:
            raise Invalid("no key can be made here", field="recipe.privacy", hint="mask or drop personal data")
        sealed = self._secrets.seal(project, KEY_SECRET, {KEY_VALUE: randomness.token_hex(KEY_BYTES)})
        told = {"description": "stand-ins for personal data", "names": [KEY_VALUE], "sealed": sealed}
        world.write(Create("Secret", project, KEY_SECRET, SECRET.parse_spec(told), {"phase": "ready"}))


def is_keyed(privacy: Mapping[str, Any] | None) -> bool:
    """Whether what is done about personal data needs a key."""
    return privacy is not None and bool({privacy["default"], *privacy["actions"].values()} & KEYED_ACTIONS)


def deployment_of(recipe: Mapping[str, Any]) -> str:
    """The deployment a recipe asks for embeddings, or ""."""
    return str((recipe["dedup"].get("semantic") or {}).get("deployment", ""))


def _check_index(index: str) -> None:
    if index and not index.startswith("/"):
        hint = f"the absolute path of a folder on the node; for the documents of a dataset: dedup.known: [{index}]"
        raise Invalid(f"an index cannot be kept at {index!r}", field="recipe.dedup.index", hint=hint)


class _Project:
    """Resolves what a run names to what is the project's own."""

    def __init__(self, scope: Scope, project: str, find_model: FindModel | None = None) -> None:
        self._scope = scope
        self._project = project
        self._find_model = find_model
        self.parents: dict[str, None] = {}
        self.names: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.tokenizer: dict[str, str] = {}
        self.model_version = ""
        self.sealed: dict[str, None] = {}

    def source(self, source: Mapping[str, Any], where: str) -> dict[str, Any]:
        """A source with the digest of a manifest for a dataset's name; uploads get their file's name."""
        if source["kind"] == "dataset":
            version = self._version(source["reference"])
            self.parents[version.name] = None
            return {**source, "reference": version.spec["manifest"]}
        if source["kind"] == "upload":
            file = self._file(source["digest"], f"{where}.digest")
            self.names[file.spec["digest"]] = file.spec["filename"]
            return {**source, "digest": file.spec["digest"]}
        return dict(source)

    def recipe(self, recipe: Mapping[str, Any], dataset: str) -> dict[str, Any]:
        """The recipe with digests for the names of quality models, word lists and evaluation sets, and the version of
        the model that packs. `dataset` gets the new version."""
        changed = dict(recipe)
        _check_index(recipe["dedup"]["index"])
        for reference in recipe["dedup"].get("known", ()):
            self._know(reference, dataset)
        if (recipe.get("pack") or {}).get("model"):
            changed["pack"] = {**recipe["pack"], "model": self._packing(recipe["pack"]["model"])}
        changed["quality"] = [{**item, "model": self._model(item["model"])} for item in recipe["quality"]]
        changed["words"] = [self._words(words) for words in recipe["words"]]
        if recipe["decontaminate"]:
            sets = list(self._sets(recipe["decontaminate"]["sets"]))
            changed["decontaminate"] = {**recipe["decontaminate"], "sets": sets}
        return changed

    def _know(self, reference: str, dataset: str) -> None:
        """Note the versions whose documents are not new; the dataset the run is for may have none yet."""
        if "/" in reference:
            hint = "on the platform datasets are known by their names; a kept folder is dedup.index"
            raise Invalid(f"{reference!r} names no dataset", field="recipe.dedup.known", hint=hint)
        found = meant(self._scope, self._project, reference, may_be_new=reference.partition("@")[0] == dataset)
        if found is None:
            raise NotYet(f"waiting for dataset {reference!r}")
        self.known |= {version.name: str(version.spec["manifest"]) for version in found}

    def _packing(self, reference: str) -> str:
        """The name of the version a model's reference stands for; its tokenizer's files are noted."""
        if self._find_model is None:
            raise Invalid("there is no library of models here", field="recipe.pack.model", hint="name a tokenizer")
        found = self._find_model(self._scope, self._project, reference)
        if found is None:
            raise NotYet(f"waiting for model {reference!r}")
        version = found.base or found.version
        files: Sequence[Mapping[str, Any]] = version.status.get("files", ())
        self.tokenizer = {f["name"]: f["digest"] for f in files if f["name"] in TOKENIZER_FILES}
        if TOKENIZER not in self.tokenizer:
            held = ", ".join(str(f["name"]) for f in files[:8]) or "no files"
            words = f"model version {version.name!r} has no {TOKENIZER}; it has {held}"
            hint = "name a version in safetensors format with one, or a folder on the node as `tokenizer`"
            raise Invalid(words, field="recipe.pack.model", hint=hint)
        self.model_version = found.version.name
        return self.model_version

    def _sets(self, references: Iterable[str]) -> Iterable[str]:
        for reference in references:
            yield reference if "/" in reference else self._version(reference).spec["manifest"]

    def _model(self, name: str) -> str:
        """The digest of a quality model by its name; a path stays what it is."""
        if name.startswith(DIGEST):
            models = self._scope.find_all("QualityModel")
            if not any(m.project == self._project and m.status.get("model") == name for m in models):
                return str(self._file(name, "recipe.quality").spec["digest"])
            return name
        if "/" in name:
            return name
        model = self._scope.find("QualityModel", name, self._project)
        if model is None:
            hint = "apply a QualityModel of this name, or give the path of one on the node"
            raise NotFound(f"there is no quality model {name!r} in project {self._project!r}", hint=hint)
        if model.phase == "failed":
            raise Invalid(f"the quality model {name!r} has failed", field="recipe.quality", hint=model.status["reason"])
        if not model.status.get("model"):
            raise NotYet(f"waiting for quality model {name!r}")
        return str(model.status["model"])

    def _version(self, reference: str) -> Resource:
        version = resolve(self._scope, self._project, reference)
        if version is None or version.phase == "pending":
            raise NotYet(f"waiting for dataset {reference!r}")
        return version

    def _words(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """A word list with the digest its file has now."""
        if not words["digest"]:
            return dict(words)
        return {**words, "digest": self._file(words["digest"], "recipe.words").spec["digest"]}

    def _file(self, digest: str, where: str) -> Resource:
        """The project's file with these bytes, or that had them: a digest alone gives no right to them."""
        file = find_file(self._scope, self._project, digest)
        if file is None:
            raise NotFound(f"{where}: project {self._project!r} has no file {digest}", hint="upload it")
        if is_sealed(file):
            self.sealed[file.spec["digest"]] = None
        return file
