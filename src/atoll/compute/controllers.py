"""Controllers of the fleet: nodes are alive or lost, workloads are admitted and followed, tasks of lost nodes end."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from atoll.compute.gang import Decision, backoff_left_s, decide
from atoll.compute.resources import TASK_ENDED
from atoll.compute.scheduler import Machine, Need, Plan, Waiting, plan
from atoll.core.leases import Leases
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import SYSTEM_PROJECT, Key, Resource
from atoll.core.store import Change, Create, MarkDeleting, SetSpec, SetStatus, Write

QUEUE = Key("Workload", SYSTEM_PROJECT, "queue")
"""The one key under which waiting workloads are admitted, so that admission is serial."""

AWAY = Key("Task", SYSTEM_PROJECT, "away")
"""The one key under which tasks that may run on without contact are looked at, all of lost nodes together."""

AWAY_REASON = "its node is lost, it may run on there; it is replaced when there is room elsewhere"
AWAY_LOOK_S = 5.0
TASK_HISTORY_EPOCHS = 3
LOST_AFTER_TTLS = 2.0
"""A node is lost after so many lease times of silence; shims have ended the tasks they stop after one and a half."""

DRAIN_LOOK_S = 1.0


def node_lease(name: str) -> str:
    """Name of a node's lease."""
    return f"node/{name}"


class NodeController(Controller):
    """Judges nodes by their leases."""

    name = "nodes"
    owns = "Node"

    def __init__(self, leases: Leases, lease_ttl_s: float) -> None:
        self._leases = leases
        self._ttl_s = lease_ttl_s

    def reconcile(self, key: Key, world: Writer) -> float | None:
        node = world.read(key)
        if node is None:
            self._leases.drop(node_lease(key.name))  # an agent that is there after all registers again
            return None
        silent_s = self._leases.stale_s(node_lease(node.name))
        if node.phase == "lost" and silent_s != 0.0:
            return self._ttl_s / 2  # until its lease is seen to move
        phase, reason = self._judge(node, silent_s or 0.0, world)
        status = {"phase": phase, "reason": reason, "observed_generation": node.generation, "silent_s": 0.0}
        if phase == "lost":
            status["silent_s"] = round(silent_s or 0.0, 1)
        if status != node.status:
            world.write(SetStatus(node, status, phase.capitalize() if phase != node.phase else "", reason))
        return DRAIN_LOOK_S if phase == "draining" else self._ttl_s / 2

    def _judge(self, node: Resource, silent_s: float, world: Writer) -> tuple[str, str]:
        if silent_s > LOST_AFTER_TTLS * self._ttl_s:
            return "lost", f"silent for more than {LOST_AFTER_TTLS * self._ttl_s:g} s"
        if node.is_deleting:
            left = sum(t.phase not in TASK_ENDED for t in _tasks_on(node.name, world))
            return ("draining", f"{left} tasks are ending") if left else ("drained", "")
        return ("cordoned", "cordoned") if node.spec["cordoned"] else ("schedulable", "")


class TaskController(Controller):
    """Ends tasks of lost nodes in their agents' stead, and ended tasks that nobody needs any more.

    While a node is there its agent reports its tasks; a task that ended never changes again, so a report that
    comes after is refused. A task that may run on without contact is therefore given up only for a replacement: until
    its gang fits elsewhere it stays what it is, and the agent that comes back finds it wanted.
    """

    name = "tasks"
    owns = "Task"
    watches = ("Node",)

    def all_keys(self, world: Writer) -> Iterable[Key]:
        return [*super().all_keys(world), AWAY]

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        node = world.read(change.key)
        if node is None or (node.phase != "lost" and not node.is_deleting):
            return [AWAY]
        return [*(t.key for t in _tasks_on(change.name, world)), AWAY]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        if key == AWAY:
            return self._settle_away(world)
        task = world.read(key)
        if task is None or task.phase in TASK_ENDED:
            return None
        node = world.scope.find("Node", task.spec["node"], SYSTEM_PROJECT)
        if node is not None and node.phase == "lost" and _may_run_on(task):
            return None
        if node is None or node.phase == "lost":
            world.write(_lost(task))
        elif (task.is_deleting or node.is_deleting) and not task.spec["stop"]:
            world.write(SetSpec(task, task.spec | {"stop": True}, reason=""))
        return None

    def _settle_away(self, world: Writer) -> float | None:
        """Give up tasks of lost nodes whose gangs fit elsewhere, beside all that waits; mark the others, for people."""
        phases = {n.name: n.phase for n in world.scope.find_all("Node")}
        tasks = [t for t in world.scope.find_all("Task") if t.phase not in TASK_ENDED and _may_run_on(t)]
        away = [t for t in tasks if phases.get(t.spec["node"], "lost") == "lost"]
        back = [t for t in tasks if _is_marked(t) and phases.get(t.spec["node"], "lost") != "lost"]
        replaced = _gangs_with_room({t.owner for t in away if t.owner}, world) if away else frozenset()
        stay = [t for t in away if t.owner not in replaced and t.spec["node"] in phases]
        kept = {t.uid for t in stay}
        world.write(
            *(_lost(t) for t in away if t.uid not in kept),
            *(SetStatus(t, t.status | {"reason": AWAY_REASON}, "Away", AWAY_REASON) for t in stay if not _is_marked(t)),
            *(SetStatus(t, t.status | {"reason": ""}) for t in back),
        )
        return AWAY_LOOK_S if stay else None


class WorkloadController(Controller):
    """Follows each workload through its tasks, and admits waiting ones in turn."""

    name = "workloads"
    owns = "Workload"
    watches = ("Task", "Node", "Workload")

    def all_keys(self, world: Writer) -> Iterable[Key]:
        return [*super().all_keys(world), QUEUE]

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        if change.kind in ("Node", "Workload"):
            return [QUEUE]
        return [*super().keys_for(change, world), QUEUE]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        if key == QUEUE:
            return self._admit(world)
        workload = world.read(key)
        if workload is None:
            return None
        tasks = world.scope.find_all("Task", owner=workload.uid)
        now = world.clock.now()
        decision = decide(workload, tasks, now)
        world.write(*_writes(workload, decision), *_forgotten(workload, tasks))
        return None

    def _admit(self, world: Writer) -> float | None:
        """Place what waits; returns the seconds until the next back-off is over."""
        now = world.clock.now()
        pending = [w for w in world.scope.find_all("Workload") if _is_pending(w)]
        delays_s = {w.uid: backoff_left_s(w, now) for w in pending}
        waiting = [w for w in pending if delays_s[w.uid] == 0.0]
        if waiting:
            decided = plan([_waiting(w) for w in waiting], _machines(world))
            world.write(*(op for w in waiting for op in _admission(w, decided)))
        return min((d for d in delays_s.values() if d > 0.0), default=None)


def _may_run_on(task: Resource) -> bool:
    """Whether `task`, which runs as far as anybody knows, may do so without contact, and twice if need be."""
    is_wanted = not task.spec["stop"] and not task.is_deleting
    return task.spec["on_partition"] == "continue" and is_wanted and task.phase != "pending"


def _is_marked(task: Resource) -> bool:
    return task.status.get("reason") == AWAY_REASON


def _lost(task: Resource) -> SetStatus:
    reason = f"node {task.spec['node']} was lost"
    return SetStatus(task, task.status | {"phase": "lost", "reason": reason}, "Lost", reason)


def _gangs_with_room(uids: Set[str], world: Writer) -> Set[str]:
    """Those of the workloads `uids` that could start now, whole, on the nodes there are."""
    workloads = [w for w in world.scope.find_all("Workload") if w.uid in uids or _is_pending(w)]
    placed = plan([_waiting(w) for w in workloads], _machines(world, without=uids)).placed
    return uids & placed.keys()


def _writes(workload: Resource, decision: Decision) -> list[Write]:
    status = decision.status | {"observed_generation": workload.generation}
    writes: list[Write] = [SetSpec(t, t.spec | {"stop": True}, reason="Stopping") for t in decision.stop]
    if status != workload.status:
        writes.append(SetStatus(workload, status, decision.reason, decision.message))
    return writes


def _forgotten(workload: Resource, tasks: list[Resource]) -> list[Write]:
    oldest_kept = workload.status.get("epoch", 0) - TASK_HISTORY_EPOCHS
    old = (t for t in tasks if t.spec["epoch"] <= oldest_kept and t.phase in TASK_ENDED and not t.is_deleting)
    return [MarkDeleting(t, reason="") for t in old]


def _tasks_on(node: str, world: Writer) -> list[Resource]:
    return [t for t in world.scope.find_all("Task") if t.spec["node"] == node]


def _is_pending(workload: Resource) -> bool:
    return not workload.is_deleting and not workload.spec["suspended"] and workload.phase == "pending"


def _waiting(workload: Resource) -> Waiting:
    needs = tuple(_need(role["resources"]) for role in workload.spec["roles"] for _ in range(role["count"]))
    return Waiting(workload.uid, workload.spec["priority"], workload.created_at, needs)


def _need(resources: dict[str, Any]) -> Need:
    return Need(resources["cpu"], resources["memory_bytes"], resources["accelerators"])


def _machines(world: Writer, without: Set[str] = frozenset()) -> list[Machine]:
    """What the schedulable nodes have and what is free there, the tasks of the workloads `without` not counted."""
    machines = {}
    for node in world.scope.find_all("Node"):
        if node.phase == "schedulable" and not node.is_deleting:
            has = node.spec["inventory"]
            whole = Need(has["cpu"], has["memory_bytes"], len(has["accelerators"]))
            machines[node.name] = Machine(node.name, whole.cpu, whole.memory_bytes, whole.accelerators, whole)
    for task in world.scope.find_all("Task"):
        if task.phase not in TASK_ENDED and task.spec["node"] in machines and task.owner not in without:
            machines[task.spec["node"]].take(_need(task.spec["resources"]))
    return list(machines.values())


def _admission(workload: Resource, decided: Plan) -> list[Write]:
    nodes = decided.placed.get(workload.uid)
    if nodes is None:
        reason = decided.reasons[workload.uid]
        if workload.status.get("reason") == reason:
            return []
        return [SetStatus(workload, workload.status | {"phase": "pending", "reason": reason}, "Waiting", reason)]
    epoch = workload.status.get("epoch", 0) + 1
    started = {"phase": "starting", "reason": "", "epoch": epoch, "nodes": list(nodes), "error": {}}
    where = ", ".join(sorted(set(nodes)))
    return [
        SetStatus(workload, workload.status | started, "Admitted", f"epoch {epoch} on {where}"),
        *_tasks(workload, epoch, nodes),
    ]


def _tasks(workload: Resource, epoch: int, nodes: tuple[str, ...]) -> list[Create]:
    members = [(role, index) for role in workload.spec["roles"] for index in range(role["count"])]
    return [
        Create(
            "Task",
            workload.project,
            f"{workload.name[:80]}-{workload.uid[:6]}-e{epoch}-r{rank}",
            _task_spec(workload, role, index, rank, epoch, nodes),
            {"phase": "pending", "reason": ""},
            owner=workload.uid,
            reason="",
        )
        for rank, (role, index) in enumerate(members)
    ]


def _task_spec(
    workload: Resource, role: dict[str, Any], index: int, rank: int, epoch: int, nodes: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "node": nodes[rank],
        "epoch": epoch,
        "workload": workload.name,
        "workload_uid": workload.uid,
        "role": role["name"],
        "index": index,
        "rank": rank,
        "world_size": len(nodes),
        "command": role["command"],
        "env": role["env"],
        "secrets": role.get("secrets", {}),
        "input": role["input"],
        "resources": role["resources"],
        "stop_grace_s": workload.spec["stop_grace_s"],
        "on_partition": workload.spec["on_partition"],
        "stop": False,
    }
