"""Which waiting workloads start now, and where: a pure function of what is.

First come, first served within a priority; a gang is placed whole or not at all; later ones may pass one that
does not fit (it says why, with numbers). It knows no queues, quotas, reservations or topology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Need:
    """What one task needs."""

    cpu: float
    memory_bytes: int
    accelerators: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A workload to be placed; `needs` by rank."""

    uid: str
    priority: int
    created_at: float
    needs: tuple[Need, ...]


@dataclass(slots=True)
class Machine:
    """A schedulable node and what is free on it."""

    name: str
    cpu: float
    memory_bytes: int
    accelerators: int
    free: Need

    def fits(self, need: Need) -> bool:
        free = self.free
        return (
            need.cpu <= free.cpu + 1e-9
            and need.memory_bytes <= free.memory_bytes
            and need.accelerators <= free.accelerators
        )

    def take(self, need: Need) -> None:
        free = self.free
        self.free = Need(
            free.cpu - need.cpu, free.memory_bytes - need.memory_bytes, free.accelerators - need.accelerators
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """`placed`: node names by rank, by workload uid. `reasons`: why the others wait."""

    placed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def plan(waiting: Sequence[Waiting], machines: Sequence[Machine]) -> Plan:
    """Place what fits; never more than a machine has, never part of a gang."""
    machines = [replace(machine) for machine in machines]
    result = Plan()
    for workload in sorted(waiting, key=lambda w: (-w.priority, w.created_at, w.uid)):
        nodes = _place(workload, machines)
        if nodes is None:
            result.reasons[workload.uid] = _why(workload, machines)
        else:
            result.placed[workload.uid] = nodes
    return result


def _place(workload: Waiting, machines: Sequence[Machine]) -> tuple[str, ...] | None:
    before = [m.free for m in machines]
    names: list[str] = []
    for need in workload.needs:
        fitting = [m for m in machines if m.fits(need)]
        if not fitting:
            for machine, free in zip(machines, before, strict=True):
                machine.free = free
            return None
        best = min(fitting, key=lambda m: (m.free.accelerators - need.accelerators, m.free.cpu - need.cpu, m.name))
        names.append(best.name)
        best.take(need)
    return tuple(names)


def _why(workload: Waiting, machines: Sequence[Machine]) -> str:
    if not machines:
        return "no schedulable node"
    need = max(workload.needs, key=lambda n: (n.accelerators, n.memory_bytes, n.cpu))
    wants = f"{len(workload.needs)} x " if len(workload.needs) > 1 else ""
    wants += _say(need)
    if not any(_could(m, need) for m in machines):
        largest = max(machines, key=lambda m: (m.accelerators, m.memory_bytes, m.cpu))
        has = _say(Need(largest.cpu, largest.memory_bytes, largest.accelerators))
        return f"needs {wants}; no node is that large, the largest ({largest.name}) has {has}"
    freest = max(machines, key=lambda m: (m.free.accelerators, m.free.cpu, m.free.memory_bytes))
    return f"needs {wants}; the freest node ({freest.name}) has {_say(freest.free)} free"


def _could(machine: Machine, need: Need) -> bool:
    return (
        machine.cpu >= need.cpu
        and machine.memory_bytes >= need.memory_bytes
        and machine.accelerators >= need.accelerators
    )


def _say(need: Need) -> str:
    words = [f"{need.cpu:g} cpu", f"{need.memory_bytes / 2**30:.2f} GiB"]
    if need.accelerators:
        words.append(f"{need.accelerators} accelerators")
    return ", ".join(words)
