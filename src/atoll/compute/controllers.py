"""Controllers of the fleet: nodes are alive or lost, workloads are admitted and followed, tasks of lost nodes end."""

from __future__ import annotations

from collections.abc import Iterable
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

TASK_HISTORY_EPOCHS = 3
LOST_AFTER_TTLS = 2.0
"""A node is lost after so many lease times of silence; its agent stops fenced tasks after one."""

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
    comes after is refused.
    """

    name = "tasks"
    owns = "Task"
    watches = ("Node",)

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        node = world.read(change.key)
        if node is None or (node.phase != "lost" and not node.is_deleting):
            return []
        return [t.key for t in _tasks_on(change.name, world)]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        task = world.read(key)
        if task is None or task.phase in TASK_ENDED:
            return None
        node = world.scope.find("Node", task.spec["node"], SYSTEM_PROJECT)
        if node is None or node.phase == "lost":
            reason = f"node {task.spec['node']} was lost"
            world.write(SetStatus(task, task.status | {"phase": "lost", "reason": reason}, "Lost", reason))
        elif (task.is_deleting or node.is_deleting) and not task.spec["stop"]:
            world.write(SetSpec(task, task.spec | {"stop": True}, reason=""))
        return None


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


def _machines(world: Writer) -> list[Machine]:
    machines = {}
    for node in world.scope.find_all("Node"):
        if node.phase == "schedulable" and not node.is_deleting:
            has = node.spec["inventory"]
            whole = Need(has["cpu"], has["memory_bytes"], len(has["accelerators"]))
            machines[node.name] = Machine(node.name, whole.cpu, whole.memory_bytes, whole.accelerators, whole)
    for task in world.scope.find_all("Task"):
        if task.phase not in TASK_ENDED and task.spec["node"] in machines:
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
