"""Replicas simulated second by second under recorded or generated requests, to judge an autoscaler by.

A replica takes a while to start and serves `slots` requests at a time; a gateway lets the others wait, and its load
reaches the autoscaler as it would through the table of load reports.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import tarfile
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from math import exp
from pathlib import Path

from atoll.serving.autoscale import Load, State, Targets, decide
from atoll.serving.demand import AVERAGE_S

ORIGINS = ("diurnal", "bursty", "alibaba")
LOOK_S = 1
SPEED_UP = 8
"""The recorded requests are few for one service: their days are played this much faster, each as long as it was."""


@dataclass(frozen=True)
class Trace:
    """Requests as (second they come, seconds they take), the most replicas sensible, and how long it lasts."""

    name: str
    requests: tuple[tuple[float, float], ...]
    most: int
    length_s: float


def generated(kind: str, seed: int = 7) -> Trace:
    """Six hours: waves of an hour and a half, or bursts out of nothing; Poisson arrivals, log-normal work."""
    rng = random.Random(seed)
    length_s, requests, at = 6 * 3600.0, [], 0.0
    bursts = [(rng.uniform(0, length_s), rng.uniform(60, 600), rng.uniform(0.3, 1.5)) for _ in range(12)]
    while at < length_s:
        if kind == "diurnal":
            rate = 1.2 * max(0.0, math.sin(math.pi * at / 5400.0)) ** 2 + 0.02
        else:
            rate = 0.004 + sum(height for begin, lasts, height in bursts if begin <= at < begin + lasts)
        at += rng.expovariate(2.0)
        if rng.random() < rate / 2.0:
            requests.append((at, min(120.0, rng.lognormvariate(1.8, 0.7))))
    return Trace(kind, tuple(requests), 8, length_s)


def alibaba() -> Trace | None:
    """Two busy days of the requests Alibaba recorded (cluster-trace-v2026-GenAI), or None where they are not."""
    folder = os.environ.get("ATOLL_TRACES", "")
    path = Path(folder or Path.home() / "traces") / "alibaba_genai_v2026" / "lora_request_trace.tar.gz"
    if not path.exists():
        return None
    with tarfile.open(path) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith(".csv"))
        file = archive.extractfile(member)
        assert file is not None
        rows = list(csv.DictReader(io.TextIOWrapper(file)))
    recorded = sorted(
        (datetime.fromisoformat(row["gmt_create"]).timestamp(), float(row["exec_time_seconds"] or 0)) for row in rows
    )
    times, window_s = [at for at, _ in recorded], 48 * 3600.0
    begin = max(times[::50], key=lambda at: bisect_left(times, at + window_s) - bisect_left(times, at))
    chosen = [((at - begin) / SPEED_UP, min(work, 300.0)) for at, work in recorded if begin <= at < begin + window_s]
    return Trace("alibaba", tuple((at, work) for at, work in chosen if work > 0), 64, window_s / SPEED_UP)


@dataclass
class Result:
    """What a replay came to. `oracle_s`: replica-seconds of somebody whose replicas start and stop in no time, as
    many as have work for their slots, and one for `idle_s` after the last request."""

    replica_s: float = 0.0
    oracle_s: float = 0.0
    always_max_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)
    length_s: float = 0.0

    @property
    def waited_p95_s(self) -> float:
        ordered = sorted(self.waits_s)
        return ordered[int(0.95 * (len(ordered) - 1))] if ordered else 0.0

    @property
    def waited_longest_s(self) -> float:
        return max(self.waits_s, default=0.0)

    def turns(self) -> Iterator[tuple[float, float]]:
        """Each change down that follows one up: when each was."""
        for (before, up), (at, down) in zip(self.changes, self.changes[1:], strict=False):
            if up > 0 > down:
                yield before, at

    @property
    def fewest_between_turns_s(self) -> float:
        return min((at - before for before, at in self.turns()), default=math.inf)

    @property
    def turns_per_hour(self) -> float:
        return sum(1 for _ in self.turns()) / (self.length_s / 3600.0)


class Replay:
    """One trace, one set of targets."""

    def __init__(self, trace: Trace, targets: Targets, slots: int, start_s: float) -> None:
        self.trace, self.targets, self.slots, self.start_s = trace, targets, slots, start_s

    def run(self) -> Result:
        """Play it, second by second."""
        result = Result(length_s=self.trace.length_s, always_max_s=self.targets.max * self.trace.length_s)
        state, epoch = State(max(self.targets.min, 1), 0.0), 0.0
        starting: list[float] = [self.start_s] * state.wanted
        coming, waiting, working = deque(self.trace.requests), deque[tuple[float, float]](), list[float]()
        ready, average, active_at = 0, 0.0, None
        for second in range(int(self.trace.length_s)):
            now = epoch + second
            ready += sum(1 for at in starting if at <= now)
            starting = [at for at in starting if at > now]
            working = [end for end in working if end > now]
            while coming and coming[0][0] <= now:
                waiting.append(coming.popleft())
            while waiting and len(working) < ready * self.slots:
                at, work = waiting.popleft()
                result.waits_s.append(max(0.0, now - at))
                working.append(now + work)
            busy = len(working) + len(waiting)
            average = busy + (average - busy) * exp(-1 / AVERAGE_S)
            active_at = now if busy else active_at
            result.replica_s += ready + len(starting)
            is_awake = active_at is not None and now - active_at <= self.targets.idle_s
            result.oracle_s += max(math.ceil(busy / self.slots), int(is_awake))
            if second % LOOK_S == 0:
                idle_s = None if active_at is None else now - active_at
                told = Load(len(working), len(waiting), average, None, idle_s, ready)
                decision = decide(self.targets, self.slots, told, now, state)
                change = decision.wanted - state.wanted
                if change:
                    result.changes.append((now, change))
                state = decision.state
                starting += [now + self.start_s] * max(0, decision.wanted - ready - len(starting))
                excess = max(0, ready + len(starting) - decision.wanted)
                starting = starting[: len(starting) - min(excess, len(starting))]
                ready = min(ready, decision.wanted)
        return result
