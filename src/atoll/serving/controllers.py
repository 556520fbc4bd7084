"""Controllers of serving: a deployment keeps its replicas, a replica keeps its engine running.

What a replica shall be is in `replicas`, how one revision follows another in `rollout`, how many there shall be in
`autoscale`, whether they fit in `plan`: pure all of them. Here the store is read, they are asked, and the answer is
written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from atoll.compute.jobs import LOOK_AGAIN_S, NotYet
from atoll.core.errors import AtollError, CapacityError, Unavailable
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Create, MarkDeleting, Note, SetStatus, Write
from atoll.serving.autoscale import State, Targets, decide
from atoll.serving.demand import Demand
from atoll.serving.plan import node_rooms, place
from atoll.serving.replicas import Blueprint, blueprint, replica_name, workload_spec
from atoll.serving.rollout import STUCK_RESTARTS, Copy, Steps, next_steps

BUSY_LOOK_S = 1.0
IDLE_LOOK_S = 5.0
REVISIONS_KEPT = 10
CANARY = {"track": "canary"}


@dataclass
class _Turn:
    """One reconcile of a deployment on its way: what was found, what shall be written."""

    deployment: Resource
    replicas: list[Resource]
    now: float
    status: dict[str, Any]
    writes: list[Write] = field(default_factory=list)
    look_again_s: float | None = None
    canary_trouble: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        return self.deployment.spec

    def look_within(self, seconds: float) -> None:
        self.look_again_s = seconds if self.look_again_s is None else min(self.look_again_s, seconds)


class DeploymentController(Controller):
    """Resolves the model, checks that it fits, and keeps the wanted number of replicas of the present revision."""

    name = "deployments"
    owns = "Deployment"
    watches = ("Replica", "Model", "Node")

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.kind == "Replica":
            return super().keys_for(change, world)
        concerned = world.scope.find_all("Deployment")
        return [d.key for d in concerned if change.kind == "Node" or d.project == change.project]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        deployment = world.read(key)
        if deployment is None or deployment.is_deleting:
            return None
        replicas = [r for r in world.scope.children(deployment.uid) if r.kind == "Replica"]
        status = deployment.status | {"observed_generation": deployment.generation}
        turn = _Turn(deployment, replicas, world.clock.now(), status)
        self._scale(turn)
        try:
            wanted = blueprint(world.scope, deployment.project, deployment.name, deployment.spec)
            turn.status["fit"] = _check_fits(turn, wanted, world)
            canary = _wanted_canary(turn, wanted, world)
            main, others = _tracks(turn, wanted, canary)
            _roll(turn, wanted, main)
            _keep_canary(turn, canary, others)
        except NotYet as waiting:
            _cannot(turn, "pending", str(waiting))
            turn.look_within(LOOK_AGAIN_S)
        except Unavailable:
            raise
        except AtollError as error:
            _cannot(turn, "failed", str(error))
        _say(deployment, turn.status, world, turn.writes)
        return turn.look_again_s

    def _scale(self, turn: _Turn) -> None:
        """Decide how many replicas there shall be."""
        spec, status = turn.spec, turn.status
        if spec["autoscale"] is None:
            status |= {"wanted": spec["replicas"], "scaler": {}, "scale_reason": "as the spec says"}
            return
        targets = Targets(**spec["autoscale"])
        state = State.from_dict(status.get("scaler") or {}, max(targets.min, 1), turn.now)
        serving = status.get("serving") or []
        ready = _ready(r for r in turn.replicas if r.spec.get("revision", "") in serving)
        load = self._demand.of(turn.deployment.uid, turn.now, ready)
        decision = decide(targets, spec["slots"], load, turn.now, state)
        before = status.get("wanted", 0) if status.get("scaler") else decision.wanted
        status |= {"wanted": decision.wanted, "scaler": decision.state.to_dict()}
        if decision.wanted != before:
            status |= {"scaled_at": turn.now, "scale_reason": decision.reason}
            word = "ScaledUp" if decision.wanted > before else "ScaledDown"
            message = f"{before} to {decision.wanted} replicas: {decision.reason}"
            turn.writes.append(Note(turn.deployment, word, message))
        turn.look_within(BUSY_LOOK_S if decision.wanted else IDLE_LOOK_S)


class ReplicaController(Controller):
    """Keeps one workload per replica, and says where it serves."""

    name = "replicas"
    owns = "Replica"
    watches = ("Workload",)

    def reconcile(self, key: Key, world: Writer) -> float | None:
        replica = world.read(key)
        if replica is None or replica.is_deleting:
            return None
        workloads = [w for w in world.scope.children(replica.uid) if not w.is_deleting]
        if not workloads:
            name = f"replica-{replica.name}"
            spec = workload_spec(replica)
            world.write(Create("Workload", replica.project, name, spec, {"phase": "pending"}, owner=replica.uid))
            return None
        newest = max(workloads, key=lambda w: w.created_at)
        _say(replica, replica.status | _replica_status(replica, newest, world.clock.now()), world, [])
        return None


# a revision takes the place of another


def _tracks(turn: _Turn, current: Blueprint, canary: Blueprint | None) -> tuple[list[Resource], list[Resource]]:
    """The deployment's own replicas, of the present revision or those before, and those of canaries."""
    known = {current.revision, *(entry["revision"] for entry in turn.status.get("revisions") or [])}
    known -= {canary.revision} if canary is not None else set()
    main: list[Resource] = []
    others: list[Resource] = []
    for replica in turn.replicas:
        revision = replica.spec.get("revision", "")
        is_canary = replica.labels.get("track") == "canary" and revision not in known
        is_canary = is_canary or (canary is not None and revision == canary.revision)
        (others if is_canary else main).append(replica)
    return main, others


def _roll(turn: _Turn, blueprint: Blueprint, main: list[Resource]) -> None:
    """Bring the replicas a step nearer to the present revision, and the status up to date."""
    status = turn.status
    revisions = _revisions(turn, blueprint)
    previous = revisions[1]["revision"] if len(revisions) > 1 else ""
    steps = next_steps(
        [_copy(replica) for replica in main],
        blueprint.revision,
        status["wanted"],
        turn.spec["rollout"]["surge"],
        previous=previous,
        kept=_kept(turn, revisions),
        is_done=bool(revisions[0]["ready_at"]),
    )
    if steps.is_done and not revisions[0]["ready_at"]:
        revisions = [revisions[0] | {"ready_at": turn.now}, *revisions[1:]]
        _kept(turn, revisions)  # look again when the time of the previous is over
    serving = [blueprint.revision] if steps.is_done else [*dict.fromkeys([blueprint.revision, *_alive(main)])]
    status |= {
        "version": blueprint.version,
        "revision": blueprint.revision,
        "revisions": revisions,
        "serving": serving,
        "engine": blueprint.engine,
        "memory_bytes": blueprint.estimate.total_bytes,
        "rollout": "done" if steps.is_done else "failed" if steps.is_stuck else "progressing",
        "ready": _ready([r for r in main if r.spec.get("revision", "") in serving]),
    }
    _carry_out(turn, steps, blueprint, main)
    status |= _standing(turn, blueprint, main, steps)
    _tell(turn)


def _tell(turn: _Turn) -> None:
    """Events of a rollout: begun, over, or not to be."""
    before, status = turn.deployment.status, turn.status
    now = (status["revision"], status["rollout"])
    if len(status["revisions"]) < 2 or now == (before.get("revision"), before.get("rollout")):
        return
    word = {"progressing": "RolloutBegan", "done": "RolloutDone", "failed": "RolloutFailed"}[status["rollout"]]
    message = f"revision {status['revision']} of {status['version']}"
    why = f": {status['reason']}" if word == "RolloutFailed" else ""
    turn.writes.append(Note(turn.deployment, word, message + why))


def _revisions(turn: _Turn, blueprint: Blueprint) -> list[dict[str, Any]]:
    """The history, newest first, with the blueprint's revision on top."""
    history: list[dict[str, Any]] = turn.status.get("revisions") or []
    if history and history[0]["revision"] == blueprint.revision:
        return history
    entry = {
        "revision": blueprint.revision,
        "version": blueprint.version,
        "since": turn.now,
        "ready_at": 0.0,
        "spec": blueprint.pinned,
    }
    older = [known for known in history if known["revision"] != blueprint.revision]
    return [entry, *older][:REVISIONS_KEPT]


def _kept(turn: _Turn, revisions: list[dict[str, Any]]) -> int:
    """How many replicas of the previous revision stay for an instant rollback."""
    keep_s = turn.spec["rollout"]["keep_previous_s"]
    if not keep_s or len(revisions) < 2:
        return 0
    if not revisions[0]["ready_at"]:
        return int(turn.status["wanted"])
    left_s = keep_s - max(0.0, turn.now - revisions[0]["ready_at"])
    if left_s <= 0:
        return 0
    turn.look_within(left_s)
    return int(turn.status["wanted"])


def _carry_out(turn: _Turn, steps: Steps, blueprint: Blueprint, main: list[Resource]) -> None:
    specs = {r.spec.get("revision", ""): r.spec for r in main} | {blueprint.revision: blueprint.spec}
    for revision, index in steps.create:
        turn.writes.append(_create(turn, specs[revision] | {"index": index}, {}))
    _delete(turn, [r for r in main if r.name in steps.delete])


def _create(turn: _Turn, spec: dict[str, Any], labels: dict[str, str]) -> Create:
    deployment = turn.deployment
    name = replica_name(deployment.name, spec["revision"] or "0", spec["index"])
    status = {"phase": "pending"}
    return Create("Replica", deployment.project, name, spec, status, labels, owner=deployment.uid)


def _delete(turn: _Turn, replicas: Iterable[Resource]) -> None:
    turn.writes += [MarkDeleting(r, message="not wanted any more") for r in replicas if not r.is_deleting]


# a canary beside it


def _wanted_canary(turn: _Turn, current: Blueprint, world: Writer) -> Blueprint | None:
    """The canary's blueprint, remembered in the status; None without one, while it cannot be, or while it must wait.

    A canary of a revision that was there before takes its replicas over, so it waits until a rollout is done.
    """
    deployment, canary = turn.deployment, turn.spec["canary"]
    was = turn.status.get("canary_revision", "")
    turn.status |= {"canary_version": "", "canary_revision": "", "canary_ready": 0}
    if canary is None:
        return None
    try:
        wanted = blueprint(world.scope, deployment.project, deployment.name, deployment.spec, canary["model"])
        _check_fits(turn, wanted, world)
    except Unavailable:
        raise
    except (NotYet, AtollError) as error:
        turn.look_within(IDLE_LOOK_S)
        turn.canary_trouble = f"canary: {error}"
        return None
    turn.status["canary_version"] = wanted.version
    history = turn.status.get("revisions") or [{"revision": "", "ready_at": 0.0}]
    is_settled = history[0]["revision"] == current.revision and bool(history[0]["ready_at"])
    if wanted.revision == current.revision or not (is_settled or was == wanted.revision):
        return None
    turn.status["canary_revision"] = wanted.revision
    return wanted


def _keep_canary(turn: _Turn, wanted: Blueprint | None, mine: list[Resource]) -> None:
    """Keep the canary's replicas; one that cannot be leaves the deployment as it is and says why."""
    if wanted is None:
        if not turn.canary_trouble:
            _delete(turn, mine)
        _trouble(turn, turn.canary_trouble)
        return
    count = turn.spec["canary"]["replicas"] if turn.status["wanted"] else 0
    present = [r for r in mine if r.spec["revision"] == wanted.revision]
    steps = next_steps([_copy(r) for r in present], wanted.revision, count, 0, is_done=True)
    for _, index in steps.create:
        turn.writes.append(_create(turn, wanted.spec | {"index": index}, CANARY))
    _delete(turn, [r for r in mine if r.name in steps.delete or r not in present])
    turn.status["canary_ready"] = _ready(present)
    failing = next((r for r in present if _copy(r).is_failing), None)
    if failing is not None:
        _trouble(turn, f"canary {wanted.version} does not start: {_why(failing)}")


def _trouble(turn: _Turn, reason: str) -> None:
    if reason and turn.status["phase"] == "ready":
        turn.status |= {"phase": "degraded", "reason": reason}


# what is, in words


def _copy(replica: Resource) -> Copy:
    status = replica.status
    was_ready = bool(status.get("ready_at") or status.get("url"))
    is_failing = replica.phase == "failed" or (status.get("restarts", 0) >= STUCK_RESTARTS and not was_ready)
    return Copy(
        replica.name,
        replica.spec.get("revision", ""),
        replica.spec["index"],
        is_ready=bool(status.get("url")),
        was_ready=was_ready,
        is_failing=is_failing,
        is_deleting=replica.is_deleting,
    )


def _ready(replicas: Iterable[Resource]) -> int:
    return sum(1 for r in replicas if r.status.get("url") and not r.is_deleting)


def _alive(replicas: Iterable[Resource]) -> list[str]:
    return [r.spec.get("revision", "") for r in replicas if not r.is_deleting]


def _standing(turn: _Turn, blueprint: Blueprint, main: list[Resource], steps: Steps) -> dict[str, Any]:
    """Phase and reason."""
    wanted, spec = turn.status["wanted"], turn.spec
    new = [r for r in main if r.spec.get("revision") == blueprint.revision and not r.is_deleting]
    ready, ready_new = turn.status["ready"], _ready(new)
    troubled = next((r for r in new if r.phase in ("failed", "pending") or r.status.get("restarts")), None)
    why = f"{troubled.name}: {_why(troubled)}" if troubled is not None and _why(troubled) else ""
    if not wanted and spec["autoscale"]:
        return {"phase": "asleep", "reason": f"{turn.status.get('scale_reason', '')}; the next request wakes it"}
    if not wanted:
        return {"phase": "ready", "reason": "no replicas are wanted"}
    if ready_new >= wanted and steps.is_done:
        return {"phase": "ready", "reason": ""}
    if steps.is_stuck:
        old = turn.status["revisions"][1:]
        before = next((e["version"] for e in old if e["revision"] in turn.status["serving"]), "the one before")
        return {"phase": "degraded", "reason": f"{blueprint.version} does not start, {before} serves on; {why}"}
    if ready:
        is_full = troubled is not None and troubled.phase == "pending" and spec["rollout"]["surge"]
        why += " (rollout.surge 0 needs no more room than there is)" if why and is_full else ""
        return {"phase": "degraded", "reason": why or f"{ready_new} of {wanted} replicas are up to date"}
    if new and len(new) >= wanted and all(r.phase == "failed" for r in new):
        return {"phase": "failed", "reason": why}
    return {"phase": "starting", "reason": why or "replicas are starting"}


def _why(replica: Resource) -> str:
    """Why a replica is not ready: its reason, and the last line of its last failure where that is not in it."""
    reason, tail = replica.status.get("reason", ""), replica.status.get("log_tail") or []
    said = str(tail[-1]) if tail and replica.phase != "ready" else ""
    return f"{reason}; it last said: {said}" if said and said not in reason else reason


def _cannot(turn: _Turn, phase: str, reason: str) -> None:
    """The spec cannot be had, at least not now: what serves goes on."""
    ready = _ready(turn.replicas)
    turn.status |= {"ready": ready, "rollout": "failed" if phase == "failed" else "progressing"}
    turn.status |= {"phase": "degraded" if ready else phase, "reason": reason}
    turn.writes = [write for write in turn.writes if isinstance(write, Note)]


def _check_fits(turn: _Turn, wanted: Blueprint, world: Writer) -> str:
    """Where a replica fits when nothing else runs, in words; CapacityError when nowhere."""
    rooms = node_rooms(world.scope.find_all("Node"), [])
    if not rooms:
        return ""
    fitting = place(wanted.estimate, turn.spec, rooms)
    if any(room.fits for room in fitting.nodes):
        return fitting.where
    raise CapacityError(
        f"deployment {turn.deployment.name!r} does not fit on any node: {fitting.why_not}", hint=fitting.hint
    )


def _replica_status(replica: Resource, workload: Resource, now: float) -> dict[str, Any]:
    status = workload.status
    endpoint = status.get("endpoint") or {}
    if workload.phase == "failed":
        phase = "failed"
    elif endpoint:
        phase = "ready"
    else:
        phase = "pending" if workload.phase == "pending" and not status.get("restarts") else "starting"
    was_ready_at = replica.status.get("ready_at", 0.0)
    return {
        "phase": phase,
        "reason": status.get("reason", "") if phase != "ready" else "",
        "observed_generation": replica.generation,
        "url": endpoint.get("url", "") if phase == "ready" else "",
        "api_key": endpoint.get("api_key", "") if phase == "ready" else "",
        "capabilities": endpoint.get("capabilities", []) if phase == "ready" else [],
        "restarts": status.get("restarts_total", 0),
        "ready_at": now if phase == "ready" and replica.phase != "ready" else was_ready_at,
        "progress": status.get("progress", {}) if phase == "starting" else {},
        "log_tail": status.get("log_tail", []),
    }


def _say(resource: Resource, status: dict[str, Any], world: Writer, writes: list[Write]) -> None:
    if status != resource.status:
        event = status["phase"].capitalize() if status["phase"] != resource.phase else ""
        writes = [*writes, SetStatus(resource, status, event, status["reason"])]
    world.write(*writes)
