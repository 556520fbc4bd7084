"""Controllers of serving: a deployment keeps its replicas, a replica keeps its engine running."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.compute.jobs import LOOK_AGAIN_S, engine_workload
from atoll.compute.resources import WORKLOAD
from atoll.core.errors import AtollError, CapacityError, Unavailable
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Create, MarkDeleting, SetSpec, SetStatus
from atoll.models import library
from atoll.models.formats import ModelShape
from atoll.serving.engine.base import Engine, choose_engine
from atoll.serving.fit import FitEstimate, explain, memory_needed

RESTART = {"policy": "always", "limit": 0, "backoff_min_s": 0.5, "backoff_max_s": 30.0, "stable_s": 60.0}


class DeploymentController(Controller):
    """Resolves the model, checks that it fits, and keeps the wanted number of replicas."""

    name = "deployments"
    owns = "Deployment"
    watches = ("Replica", "Model", "Node")

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.kind == "Replica":
            return super().keys_for(change, world)
        return [d.key for d in world.scope.find_all("Deployment")]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        deployment = world.read(key)
        if deployment is None or deployment.is_deleting:
            return None
        replicas = world.scope.find_all("Replica", owner=deployment.uid)
        status: dict[str, Any] = {"observed_generation": deployment.generation, "ready": _ready(replicas)}
        again_s = None
        try:
            resolved = library.resolve(world.scope, deployment.project, deployment.spec["model"])
            if resolved is None:
                status |= {"phase": "pending", "reason": f"waiting for model {deployment.spec['model']!r}"}
                again_s = LOOK_AGAIN_S
            else:
                wanted, estimate = _wanted(deployment, resolved, world)
                _keep(deployment, wanted, replicas, world)
                status |= {"version": resolved.version.name, "memory_bytes": estimate.total_bytes}
                status |= _standing(deployment, replicas)
        except Unavailable:
            raise
        except AtollError as error:
            status |= {"phase": "failed", "reason": str(error)}
        _say(deployment, deployment.status | status, world)
        return again_s


class ReplicaController(Controller):
    """Keeps one workload per replica; a changed replica starts anew before the old one goes."""

    name = "replicas"
    owns = "Replica"
    watches = ("Workload",)

    def reconcile(self, key: Key, world: Writer) -> float | None:
        replica = world.read(key)
        if replica is None or replica.is_deleting:
            return None
        workloads = [w for w in world.scope.children(replica.uid) if not w.is_deleting]
        name = f"replica-{replica.name}-g{replica.generation}"
        current = next((w for w in workloads if w.name == name), None)
        if current is None:
            spec = WORKLOAD.parse_spec(_workload(replica))
            world.write(Create("Workload", replica.project, name, spec, {"phase": "pending"}, owner=replica.uid))
            return None
        older = [w for w in workloads if w.name != name]
        serving = next((w for w in [current, *older] if w.status.get("endpoint")), current)
        if serving is current or current.phase == "pending":
            world.write(*(MarkDeleting(w, message="replaced") for w in older))
        _say(replica, replica.status | _replica_status(replica, current, serving), world)
        return None


def _wanted(deployment: Resource, resolved: library.Resolved, world: Writer) -> tuple[dict[str, Any], FitEstimate]:
    """The spec all replicas shall have, and the memory each needs; CapacityError when no node is large enough."""
    spec = deployment.spec
    base = resolved.base or resolved.version
    adapters = resolved.version.status["files"] if resolved.is_adapter else []
    engine = choose_engine(spec["engine"], base.status["format"])
    shape = ModelShape.from_metadata(base.status["metadata"])
    estimate = memory_needed(
        shape, spec["context"], spec["slots"], [a["size_bytes"] for a in adapters], embedding=spec["embedding"]
    )
    _check_fits(deployment, estimate, world)
    engine_input = {
        "model": base.status["files"][0],
        "adapters": adapters,
        "alias": deployment.name,
        "context": spec["context"],
        "slots": spec["slots"],
        "threads": spec["threads"],
        "embedding": spec["embedding"],
        "warm_up": True,
    }
    wanted = {
        "deployment": deployment.name,
        "version": resolved.version.name,
        "engine": engine.name,
        "input": engine_input,
        "cpu": spec["cpu"],
        "memory_bytes": estimate.total_bytes,
    }
    return wanted, estimate


def _check_fits(deployment: Resource, estimate: FitEstimate, world: Writer) -> None:
    nodes = [n for n in world.scope.find_all("Node") if n.phase == "schedulable"]
    largest = max(nodes, key=lambda n: int(n.spec["inventory"]["memory_bytes"]), default=None)
    if largest is None:
        return
    has_bytes = int(largest.spec["inventory"]["memory_bytes"])
    if estimate.total_bytes > has_bytes:
        raise CapacityError(
            f"deployment {deployment.name!r} does not fit on any node, the largest is {largest.name!r}: "
            + explain(estimate, has_bytes),
            hint="lower spec.context or spec.slots, choose a smaller model, or join a larger node",
        )


def _keep(deployment: Resource, wanted: dict[str, Any], replicas: list[Resource], world: Writer) -> None:
    """Create, change and delete replicas; a change goes through them one at a time."""
    by_index = {r.spec["index"]: r for r in replicas}
    for index in range(deployment.spec["replicas"]):
        if index not in by_index:
            name = f"{deployment.name}-{index}"
            spec = {**wanted, "index": index}
            world.write(Create("Replica", deployment.project, name, spec, {"phase": "pending"}, owner=deployment.uid))
    living = [r for i, r in sorted(by_index.items()) if i < deployment.spec["replicas"] and not r.is_deleting]
    outdated = [r for r in living if r.spec != {**wanted, "index": r.spec["index"]}]
    others_ready = all(_is_settled(r) for r in living if r not in outdated)
    if outdated and (others_ready or len(outdated) == len(living)):
        first = outdated[0]
        world.write(SetSpec(first, {**wanted, "index": first.spec["index"]}, message=f"to {wanted['version']}"))
    gone = [r for i, r in by_index.items() if i >= deployment.spec["replicas"] and not r.is_deleting]
    world.write(*(MarkDeleting(r, message="not wanted any more") for r in gone))


def _is_settled(replica: Resource) -> bool:
    return replica.phase == "ready" and replica.status.get("observed_generation") == replica.generation


def _ready(replicas: list[Resource]) -> int:
    return sum(1 for r in replicas if r.status.get("url") and not r.is_deleting)


def _standing(deployment: Resource, replicas: list[Resource]) -> dict[str, Any]:
    wanted = deployment.spec["replicas"]
    ready = _ready(replicas)
    settled = sum(1 for r in replicas if _is_settled(r) and not r.is_deleting)
    troubled = [r for r in replicas if r.status.get("reason") and not r.is_deleting]
    reason = f"{troubled[0].name}: {troubled[0].status['reason']}" if troubled else ""
    if wanted and all(r.phase == "failed" for r in replicas) and len(replicas) >= wanted:
        return {"phase": "failed", "reason": reason}
    if settled >= wanted:
        return {"phase": "ready", "reason": "" if wanted else "no replicas are wanted"}
    if ready:
        return {"phase": "degraded", "reason": reason or f"{settled} of {wanted} replicas are up to date"}
    return {"phase": "starting", "reason": reason or "replicas are starting"}


def _workload(replica: Resource) -> dict[str, Any]:
    spec = replica.spec
    engine: Engine = choose_engine(spec["engine"], "")
    return engine_workload(
        engine.module,
        spec["input"],
        cpu=spec["cpu"],
        memory_bytes=spec["memory_bytes"],
        restart=RESTART,
        on_partition="continue",
    )


def _replica_status(replica: Resource, current: Resource, serving: Resource) -> dict[str, Any]:
    endpoint = serving.status.get("endpoint") or {}
    status = current.status
    if current.phase == "failed":
        phase, generation = "failed", replica.generation
    elif current.status.get("endpoint"):
        phase, generation = "ready", replica.generation
    else:
        phase = "pending" if current.phase == "pending" and not status.get("restarts") else "starting"
        generation = replica.status.get("observed_generation", 0)
    return {
        "phase": phase,
        "reason": status.get("reason", "") if phase != "ready" else "",
        "observed_generation": generation,
        "url": endpoint.get("url", ""),
        "api_key": endpoint.get("api_key", ""),
        "capabilities": endpoint.get("capabilities", []),
        "restarts": status.get("restarts_total", 0),
        "log_tail": status.get("log_tail", []),
    }


def _say(resource: Resource, status: dict[str, Any], world: Writer) -> None:
    if status != resource.status:
        event = status["phase"].capitalize() if status["phase"] != resource.phase else ""
        world.write(SetStatus(resource, status, event, status["reason"]))
