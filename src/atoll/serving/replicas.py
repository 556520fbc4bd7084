"""What a deployment's replicas shall be: one blueprint, named by a revision, from the models it refers to.

A revision is a short hash of the model version, the engine and its input: two specs that lead to the same engine are
one revision, whatever else they say. Reads the library, writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.compute.jobs import NotYet, engine_workload
from atoll.compute.resources import WORKLOAD
from atoll.core.errors import Invalid
from atoll.core.resources import Resource
from atoll.core.store import Scope
from atoll.models import library
from atoll.serving.engine.base import Engine, ServeInput, choose_engine
from atoll.serving.engine.folder_fit import folder_memory
from atoll.serving.fit import FitEstimate, estimate_files, memory_needed, shape_of

RESTART = {"policy": "always", "limit": 0, "backoff_min_s": 0.5, "backoff_max_s": 30.0, "stable_s": 60.0}
STOP_GRACE_S = 30.0
"""How long an engine that is told to stop may finish the requests it has."""

HOST_BYTES = 2 << 30
"""Memory a replica needs beside its accelerators."""

REVISION_FIELDS = (
    "model",
    "task",
    "engine",
    "engine_options",
    "environment",
    "predictor",
    "context",
    "slots",
    "adapters",
    "cpu",
    "accelerators",
    "threads",
    "warm_up",
    "health",
)
"""Fields of a deployment's spec that make a revision; a rollback sets them back together."""

_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What each replica of one revision is. `spec` is a ReplicaSpec without its index; `pinned` the fields of the
    deployment that made it, with every model named by version."""

    revision: str
    version: str
    engine: str
    spec: dict[str, Any]
    estimate: FitEstimate
    pinned: dict[str, Any]


def blueprint(scope: Scope, project: str, name: str, spec: Mapping[str, Any], model: str = "") -> Blueprint:
    """The blueprint of deployment `name`; `model` in place of its own for a canary.

    NotYet while a model is being made; NotFound, Invalid when a reference or an engine cannot be.
    """
    reference = model or spec["model"]
    resolved = _resolved(scope, project, reference)
    _check_names(name, [adapter["name"] for adapter in spec["adapters"]])
    adapters = {a["name"]: _adapter(scope, project, a, resolved) for a in spec["adapters"]}
    own = {name: resolved.version} if resolved.is_adapter else {}
    base = resolved.base or resolved.version
    engine = choose_engine(spec["engine"], base.status["format"], spec["task"], spec["accelerators"])
    if (own or adapters) and engine.adapters == "none":
        raise Invalid(f"engine {engine.name!r} serves no adapters", field="spec.adapters", hint="choose another engine")
    told = _input(name, spec, base, own | adapters) | {"version": resolved.version.name}
    engine_input = engine.input(ServeInput.from_dict(told))
    estimate = estimate_memory(spec, base, [*own.values(), *adapters.values()], engine.name)
    made = {
        "deployment": name,
        "version": resolved.version.name,
        "engine": engine.name,
        "input": engine_input,
        "cpu": spec["cpu"],
        "accelerators": spec["accelerators"],
    }
    pins = [{"name": served, "model": version.name} for served, version in adapters.items()]
    pinned = {field: spec[field] for field in REVISION_FIELDS} | {"model": resolved.version.name, "adapters": pins}
    revision = revision_of(made)
    counted = {"revision": revision, "memory_bytes": host_bytes(estimate, spec["accelerators"])}
    return Blueprint(revision, resolved.version.name, engine.name, made | counted, estimate, pinned)


def revision_of(made: Mapping[str, Any]) -> str:
    """Eight hex digits of what a replica is made of."""
    return hashlib.sha256(orjson.dumps(dict(made), option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]


def estimate_memory(
    spec: Mapping[str, Any], base: Resource, adapters: Sequence[Resource], engine: str = ""
) -> FitEstimate:
    """Memory of one replica of `base` with `adapters` on `engine`, by their facts in the library."""
    size_bytes, sizes = _size_bytes(base), [_size_bytes(version) for version in adapters]
    shape = shape_of(base.status["format"], base.status["metadata"], size_bytes)
    if shape is None:
        return estimate_files(size_bytes, sizes)
    is_embedding = spec["task"] in ("embed", "rerank")
    if engine == "transformers":
        dtype = str(spec["engine_options"].get("dtype", "float32"))
        facts = base.status["metadata"]
        return folder_memory(facts, size_bytes, spec["context"], spec["slots"], dtype=dtype, embedding=is_embedding)
    return memory_needed(shape, spec["context"], spec["slots"], sizes, embedding=is_embedding)


def host_bytes(estimate: FitEstimate, accelerators: int) -> int:
    """Memory of its node a replica is counted with; with accelerators the model lies in theirs."""
    return min(HOST_BYTES, estimate.total_bytes) if accelerators else estimate.total_bytes


def replica_name(deployment: str, revision: str, index: int) -> str:
    """DEPLOYMENT-REVISION-N."""
    return f"{deployment[:_NAME_CHARACTERS].rstrip('.-')}-{revision}-{index}"


def workload_spec(replica: Resource) -> dict[str, Any]:
    """The workload that runs one replica for as long as it is wanted."""
    spec = replica.spec
    engine: Engine = choose_engine(spec["engine"], "")
    made = engine_workload(
        engine.module,
        spec["input"],
        cpu=spec["cpu"],
        memory_bytes=spec["memory_bytes"],
        restart=RESTART,
        on_partition="continue",
        stop_grace_s=STOP_GRACE_S,
    )
    made["roles"][0]["resources"]["accelerators"] = spec.get("accelerators", 0)
    return WORKLOAD.parse_spec(made)


def _check_names(deployment: str, adapters: Sequence[str]) -> None:
    twice = next((name for name in adapters if name == deployment or adapters.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"two models would be called {twice!r}", field="spec.adapters", hint="name each adapter once")


def _resolved(scope: Scope, project: str, reference: str) -> library.Resolved:
    found = library.resolve(scope, project, reference)
    if found is None:
        raise NotYet(f"waiting for model {reference!r}")
    return found


def _adapter(scope: Scope, project: str, wanted: Mapping[str, Any], deployed: library.Resolved) -> Resource:
    """The version of one of spec.adapters; Invalid when it does not belong to the deployed model."""
    found = _resolved(scope, project, wanted["model"])
    base = deployed.base or deployed.version
    if found.base is None:
        raise Invalid(f"{found.version.name!r} is a model, not an adapter", field="spec.adapters")
    if found.base.name != base.name:
        raise Invalid(
            f"adapter {wanted['name']!r} belongs to {found.base.name!r}, the deployment serves {base.name!r}",
            field="spec.adapters",
            hint=f"deploy {found.base.name}, or choose an adapter of {base.name}",
        )
    return found.version


def _input(name: str, spec: Mapping[str, Any], base: Resource, adapters: Mapping[str, Resource]) -> dict[str, Any]:
    """The engine's input in the form ServeInput reads."""
    same = ("task", "context", "slots", "threads", "warm_up", "health", "engine_options", "environment", "predictor")
    return {field: spec[field] for field in same} | {
        "model": _file(_main_file(base)),
        "files": [_file(file) for file in base.status["files"]],
        "format": base.status["format"],
        "alias": name,
        "adapters": [
            {"name": served, "file": _file(_main_file(v)), "files": [_file(file) for file in v.status["files"]]}
            for served, v in adapters.items()
        ],
        "accelerators": spec["accelerators"],
    }


def _main_file(version: Resource) -> Mapping[str, Any]:
    """The one file engines that read a single file take: the first that holds weights."""
    files: list[dict[str, Any]] = version.status["files"]
    if not files:
        raise Invalid(f"model version {version.name!r} has no files", field="spec.model", hint="import it again")
    return next((f for f in files if f["name"].endswith((".gguf", ".safetensors"))), files[0])


def _file(file: Mapping[str, Any]) -> dict[str, str]:
    return {"name": file["name"], "digest": file["digest"]}


def _size_bytes(version: Resource) -> int:
    return sum(int(file["size_bytes"]) for file in version.status["files"])
