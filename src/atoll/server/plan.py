"""Whether a deployment would fit, before anything is written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from atoll.compute.jobs import NotYet
from atoll.core.errors import NotFound
from atoll.core.resources import Resource
from atoll.core.store import Scope
from atoll.models import library
from atoll.server.access import CentreOf, Reader
from atoll.server.api import Body
from atoll.serving.plan import node_rooms, place, suggest, summarise
from atoll.serving.replicas import Blueprint, blueprint, estimate_memory
from atoll.serving.resources import DEPLOYMENT

router = APIRouter(prefix="/api/v1")


class Planned(Body):
    """The deployment to plan for: its spec, and the name it would have."""

    spec: dict[str, Any]
    name: str = "planned"


@router.post("/projects/{project}/plan/serving")
def plan_serving(tenant: Reader, centre: CentreOf, wanted: Planned) -> dict[str, Any]:
    """What one replica needs, where it fits, why not, and what would make it fit. Nothing is written."""
    spec = DEPLOYMENT.parse_spec(wanted.spec)
    try:
        made = blueprint(tenant.scope, tenant.project, wanted.name, spec)
    except NotYet as waiting:
        return {"fits": None, "summary": f"cannot be said yet: {waiting}"}
    scope = centre.store.everything()
    rooms = node_rooms(scope.find_all("Node"), scope.find_all("Task"))
    base, adapters = _parts(tenant.scope, tenant.project, made, spec)

    def memory_of(context: int, slots: int) -> Any:
        return estimate_memory(spec | {"context": context, "slots": slots}, base, adapters, made.engine)

    placement = place(made.estimate, spec, rooms)
    suggestions = suggest(memory_of, spec, rooms)
    replicas = spec["autoscale"]["max"] if spec["autoscale"] else spec["replicas"]
    return {
        "model": spec["model"],
        "version": made.version,
        "engine": made.engine,
        "context": spec["context"],
        "slots": spec["slots"],
        "replicas": replicas,
        "fits": placement.fits if rooms else None,
        "fits_now": placement.count_now >= replicas,
        "best": placement.best.room.node if placement.best else None,
        "needed": _needed(made, spec, adapters) | asdict(placement.need),
        "nodes": [node.to_dict() for node in placement.nodes],
        "suggestions": [asdict(suggestion) for suggestion in suggestions],
        "summary": summarise(placement, replicas, suggestions),
    }


def _parts(scope: Scope, project: str, made: Blueprint, spec: dict[str, Any]) -> tuple[Resource, list[Resource]]:
    """The base version and all adapters on it."""
    pinned = [made.version, *(adapter["model"] for adapter in made.pinned["adapters"])]
    found = [library.resolve(scope, project, name) for name in pinned]
    resolved = [one for one in found if one is not None]
    if not resolved:
        raise NotFound(f"model version {made.version!r} is gone", hint="try again")
    base = resolved[0].base or resolved[0].version
    return base, [one.version for one in resolved if one.base is not None]


def _needed(made: Blueprint, spec: dict[str, Any], adapters: list[Resource]) -> dict[str, Any]:
    estimate = made.estimate
    adapters_bytes = sum(int(file["size_bytes"]) for version in adapters for file in version.status["files"])
    return {
        "total_bytes": estimate.total_bytes,
        "weights_bytes": estimate.weights_bytes - adapters_bytes,
        "adapters_bytes": adapters_bytes,
        "kv_bytes": estimate.kv_bytes,
        "kv_per_slot_bytes": estimate.kv_bytes // max(1, spec["slots"]),
        "compute_bytes": estimate.compute_bytes,
        "prompt_cache_bytes": estimate.prompt_cache_bytes,
    }
