"""How many replicas a deployment shall have: a pure function of its targets, the load, the time and what it remembers.

Up at once, down slowly. Sources: Knative's pod autoscaler (KPA) for the target on concurrency, the average over a
stable window beside what is waiting right now, and scale to and from zero; Kubernetes' horizontal autoscaler (HPA) for
the ratio on a latency target, its tolerance of a tenth, and scale-down stabilisation: the number never falls below the
largest wish of the last `scale_down_s`, so that it cannot flap faster than that.
It does not predict, and it does not know how long a replica takes to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

SLOTS_USED = 0.8
"""Part of a replica's slots aimed at unless a concurrency is given."""

TOLERANCE = 0.1
TTFT_STEP_MAX = 2.0
"""A missed time to first token never more than doubles the replicas at once."""

REMEMBERED_PARTS = 10
"""Wishes are remembered to a tenth of scale_down_s, so that a steady load leaves the memory as it is."""


@dataclass(frozen=True, slots=True)
class Targets:
    """A deployment's Autoscale."""

    min: int = 0
    max: int = 1
    concurrency: float | None = None
    queue: float | None = 1.0
    ttft_s: float | None = None
    idle_s: float = 300.0
    scale_down_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What gateways report, summed: requests at replicas and waiting now, the recent average of both together, the
    worst gateway's 95th percentile of the time to first token, seconds since the last sign of a request (None: there
    was none), and how many replicas are ready."""

    outstanding: int = 0
    queued: int = 0
    average: float = 0.0
    ttft_p95_s: float | None = None
    idle_s: float | None = None
    ready: int = 0

    @property
    def busy(self) -> int:
        return self.outstanding + self.queued


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered between decisions. `awake_at`: Unix time of the last start from nothing. `wishes`: (Unix
    time until which it was wished, replicas) with falling numbers, while less than `wanted` is wished."""

    wanted: int
    awake_at: float
    wishes: tuple[tuple[float, int], ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], first: int, now: float) -> State:
        """As kept in a status; at the beginning `first` replicas, awake since now."""
        if "wanted" not in data:
            return cls(first, now)
        wishes = tuple((float(at), int(count)) for at, count in data.get("wishes", ()))
        return cls(int(data["wanted"]), min(float(data["awake_at"]), now), wishes)

    def to_dict(self) -> dict[str, Any]:
        return {"wanted": self.wanted, "awake_at": self.awake_at, "wishes": [list(wish) for wish in self.wishes]}


@dataclass(frozen=True, slots=True)
class Decision:
    """Replicas wanted now, why, and what to remember."""

    wanted: int
    reason: str
    state: State


def decide(spec: Targets, slots: int, load: Load, now: float, state: State) -> Decision:
    """The number of replicas for `load`; `slots` of each, `now` in Unix time."""
    present = min(max(state.wanted, spec.min), spec.max)
    if present == 0 and not load.busy:
        return Decision(0, "asleep until a request comes", State(0, state.awake_at))
    if present == 0:
        count, _ = _wish(spec, slots, load, 0)
        return Decision(count, f"{_requests(load.busy)} came while it was asleep", State(count, now))
    if spec.min == 0 and _slept_s(load, now, state) >= spec.idle_s:
        return Decision(0, f"no request for {spec.idle_s:g} s", State(0, state.awake_at))
    wish, why = _wish(spec, slots, load, present)
    if wish >= present:
        return Decision(wish, why if wish > present else "", replace(state, wanted=wish, wishes=()))
    return _lower(spec, present, wish, now, state)


def _wish(spec: Targets, slots: int, load: Load, present: int) -> tuple[int, str]:
    """Replicas the load asks for at this moment, and in whose name."""
    aim = spec.concurrency or SLOTS_USED * slots
    wishes = [(max(spec.min, 1), f"at least {max(spec.min, 1)}")]
    average = _tolerant(load.average / aim, present)
    wishes.append((average, f"{load.average:.1f} requests at a time, {aim:g} aimed at for each replica"))
    if not load.ready or (spec.queue is not None and load.queued > spec.queue * load.ready):
        wishes.append((ceil(load.busy / aim), f"{_requests(load.queued)} waiting, {load.outstanding} in work"))
    if spec.ttft_s is not None and load.ttft_p95_s is not None and load.busy and load.ready >= present:
        ratio = min(load.ttft_p95_s / spec.ttft_s, TTFT_STEP_MAX)
        why = f"first token after {load.ttft_p95_s:.1f} s, {spec.ttft_s:g} s aimed at"
        wishes.append((_tolerant(load.ready * ratio, present), why))
    count, why = max(wishes, key=lambda wish: wish[0])
    return min(count, spec.max), why


def _tolerant(amount: float, present: int) -> int:
    """The whole number of replicas for `amount`; the present one when it is within the tolerance of it."""
    return present if abs(amount - present) <= TOLERANCE * present else ceil(amount)


def _slept_s(load: Load, now: float, state: State) -> float:
    """Seconds without a request, at most since it was woken."""
    if load.busy:
        return 0.0
    awake_s = now - state.awake_at
    return awake_s if load.idle_s is None else min(load.idle_s, awake_s)


def _lower(spec: Targets, present: int, wish: int, now: float, state: State) -> Decision:
    """Remember the wish for less; fall to the largest one of the last scale_down_s."""
    part_s = spec.scale_down_s / REMEMBERED_PARTS
    until = ceil(now / part_s) * part_s
    wishes = [w for w in state.wishes or ((now, present),) if w[0] > now - spec.scale_down_s and w[1] > wish]
    wishes.append((until, wish))
    wanted = min(present, wishes[0][1])
    remembered = State(wanted, state.awake_at, tuple(wishes) if len(wishes) > 1 else ())
    why = f"for {spec.scale_down_s:g} s {wanted} would have done" if wanted < present else ""
    return Decision(wanted, why, remembered)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"
