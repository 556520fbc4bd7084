"""Where a deployment's replicas would fit, what they need, why not, and what would make them fit: pure arithmetic.

Two questions are kept apart: would it fit on the node if nothing else ran there (else it is refused), and does it fit
now (else it waits). It knows what tasks were promised, not what they really use, and takes a node's accelerators for
equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.compute.resources import TASK_ENDED
from atoll.core.resources import Resource
from atoll.serving.fit import FitEstimate, explain, readable
from atoll.serving.replicas import host_bytes

DEVICE_USED = 0.9
"""Part of an accelerator's memory engines use for the model (vllm's gpu_memory_utilization)."""

DEVICE_BYTES = 1 << 30
"""What an engine needs on each accelerator beside the model."""

CONTEXT_STEP = 256
CONTEXT_LEAST = 256

MemoryOf = Callable[[int, int], FitEstimate]
"""Memory of a replica by context of a slot and number of slots."""


@dataclass(frozen=True, slots=True)
class Room:
    """A schedulable node: all it has, and what is free of it. `device_bytes` is the memory of each accelerator."""

    node: str
    cpu: float
    memory_bytes: int
    accelerators: int
    device_bytes: int
    free_cpu: float
    free_memory_bytes: int
    free_accelerators: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes of a node; `device_bytes` of each accelerator."""

    cpu: float
    memory_bytes: int
    accelerators: int
    device_bytes: int


@dataclass(frozen=True, slots=True)
class NodeFit:
    """One node's answer: `fits` with nothing else on it, `count_now` replicas beside what is there; `reason` why none
    now or never."""

    room: Room
    fits: bool
    count_now: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        room = self.room
        return {
            "node": room.node,
            "fits": self.fits,
            "fits_now": self.count_now > 0,
            "replicas_now": self.count_now,
            "reason": self.reason,
            "free": _amounts(room.free_cpu, room.free_memory_bytes, room.free_accelerators),
            "has": _amounts(room.cpu, room.memory_bytes, room.accelerators),
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """All nodes' answers, the best first. `where` names the nodes it fits on, `why_not` and `hint` speak when none."""

    need: Need
    nodes: tuple[NodeFit, ...]
    where: str
    why_not: str
    hint: str

    @property
    def fits(self) -> bool:
        return any(node.fits for node in self.nodes)

    @property
    def best(self) -> NodeFit | None:
        return next((node for node in self.nodes if node.fits), None)

    @property
    def count_now(self) -> int:
        return sum(node.count_now for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A field and the largest value with which a replica would fit on the best node."""

    field: str
    value: int
    reason: str


def node_rooms(nodes: Iterable[Resource], tasks: Iterable[Resource]) -> list[Room]:
    """The schedulable nodes, less what `tasks` that have not ended were promised."""
    used: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        if task.phase not in TASK_ENDED:
            used.setdefault(task.spec["node"], []).append(task.spec["resources"])
    living = (n for n in nodes if n.phase == "schedulable" and not n.is_deleting)
    return [_room(node, used.get(node.name, [])) for node in living]


def need_of(estimate: FitEstimate, spec: Mapping[str, Any]) -> Need:
    """What one replica takes; with accelerators the model is spread over them evenly."""
    count = spec["accelerators"]
    on_device = estimate.weights_bytes + estimate.kv_bytes + estimate.compute_bytes
    device_bytes = -(-on_device // count) + DEVICE_BYTES if count else 0
    return Need(spec["cpu"], host_bytes(estimate, count), count, device_bytes)


def place(estimate: FitEstimate, spec: Mapping[str, Any], rooms: Sequence[Room]) -> Placement:
    """Which nodes can hold a replica of a deployment with this spec."""
    need = need_of(estimate, spec)
    fits = [_judge(estimate, need, room) for room in rooms]
    fits.sort(key=lambda f: (not f.fits, not f.count_now, f.room.free_memory_bytes, f.room.node))
    names = [fit.room.node for fit in fits if fit.fits]
    takes = readable(estimate.total_bytes)
    where = f"needs {takes}; fits on {_listed(names)}" if names else ""
    largest = max(fits, key=lambda f: (f.room.accelerators, f.room.memory_bytes), default=None)
    why_not = "no node is schedulable" if largest is None else f"the largest is {largest.room.node!r}: {largest.reason}"
    hint = "lower spec.context or spec.slots, choose a smaller model, or join a larger node"
    return Placement(need, tuple(fits), where, why_not, hint)


def suggest(memory_of: MemoryOf, spec: Mapping[str, Any], rooms: Sequence[Room]) -> list[Suggestion]:
    """What to lower so that a replica fits on some node; empty when nothing helps, or nothing is needed."""
    context, slots = spec["context"], spec["slots"]
    if not rooms or place(memory_of(context, slots), spec, rooms).fits:
        return []

    def fits(some_context: int, some_slots: int) -> bool:
        return place(memory_of(some_context, some_slots), spec, rooms).fits

    found = []
    steps = _most(lambda n: fits(n * CONTEXT_STEP, slots), context // CONTEXT_STEP)
    if steps * CONTEXT_STEP >= CONTEXT_LEAST:
        found.append(Suggestion("context", steps * CONTEXT_STEP, f"with {slots} slots"))
    fewer = _most(lambda n: fits(context, n), slots)
    if fewer:
        found.append(Suggestion("slots", fewer, f"with a context of {context} tokens"))
    if not found and fits(CONTEXT_LEAST, 1):
        steps = _most(lambda n: fits(n * CONTEXT_STEP, 1), context // CONTEXT_STEP)
        found = [Suggestion("slots", 1, "together with"), Suggestion("context", steps * CONTEXT_STEP, "one slot")]
    return found


def summarise(placement: Placement, replicas: int, suggestions: Sequence[Suggestion]) -> str:
    """The plan in one line."""
    if not placement.fits:
        tips = " or ".join(f"{s.field} {s.value} ({s.reason})" for s in suggestions)
        return f"does not fit: {placement.why_not}" + (f"; would fit: {tips}" if tips else "")
    count, best = placement.count_now, placement.best
    assert best is not None
    if count >= replicas:
        return f"{placement.where}; there is room for {count} now, best {best.room.node}"
    reason = next((n.reason for n in placement.nodes if n.fits and n.reason), "")
    waits = f"now for {count} of {replicas}" if count else "but not now"
    return f"{placement.where}, {waits}: {reason}"


def _room(node: Resource, used: Sequence[Mapping[str, Any]]) -> Room:
    has = node.spec["inventory"]
    devices = has["accelerators"]
    return Room(
        node=node.name,
        cpu=has["cpu"],
        memory_bytes=int(has["memory_bytes"]),
        accelerators=len(devices),
        device_bytes=min((int(device["memory_bytes"]) for device in devices), default=0),
        free_cpu=has["cpu"] - sum(r["cpu"] for r in used),
        free_memory_bytes=int(has["memory_bytes"]) - sum(r["memory_bytes"] for r in used),
        free_accelerators=len(devices) - sum(r["accelerators"] for r in used),
    )


def _judge(estimate: FitEstimate, need: Need, room: Room) -> NodeFit:
    never = _lacks(estimate, need, room, room.cpu, room.memory_bytes, room.accelerators, "has")
    if never:
        return NodeFit(room, False, 0, never)
    count = _count(need, room)
    if count:
        return NodeFit(room, True, count, "")
    now = _lacks(estimate, need, room, room.free_cpu, room.free_memory_bytes, room.free_accelerators, "has free")
    return NodeFit(room, True, 0, now)


def _lacks(
    estimate: FitEstimate, need: Need, room: Room, cpu: float, memory_bytes: int, accelerators: int, verb: str
) -> str:
    """What the node is short of; "" when of nothing."""
    usable_bytes = int(room.device_bytes * DEVICE_USED)
    if need.accelerators > accelerators:
        return f"needs {need.accelerators} accelerators, {room.node} {verb} {max(0, accelerators)}"
    if need.accelerators and need.device_bytes > usable_bytes:
        each = f"on each of {need.accelerators} accelerators"
        return f"needs {readable(need.device_bytes)} {each}, those of {room.node} have {readable(usable_bytes)}"
    if need.memory_bytes > memory_bytes:
        if need.accelerators:
            return f"needs {readable(need.memory_bytes)} of memory, {room.node} {verb} {readable(max(0, memory_bytes))}"
        return explain(estimate, max(0, memory_bytes))
    if need.cpu > cpu + 1e-9:
        return f"needs {need.cpu:g} cpu, {room.node} {verb} {max(0.0, cpu):g}"
    return ""


def _count(need: Need, room: Room) -> int:
    """How many replicas fit beside what is there."""
    counts = [int((room.free_cpu + 1e-9) // need.cpu)]
    if need.memory_bytes:
        counts.append(room.free_memory_bytes // need.memory_bytes)
    if need.accelerators:
        counts.append(room.free_accelerators // need.accelerators)
    return max(0, min(counts))


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to `most` that fits, 0 when none; what fits, fits smaller too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _listed(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _amounts(cpu: float, memory_bytes: int, accelerators: int) -> dict[str, Any]:
    return {"cpu": round(cpu, 3), "memory_bytes": memory_bytes, "accelerators": accelerators}
