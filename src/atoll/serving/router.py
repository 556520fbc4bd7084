"""Which replica takes the next request: a pure choice.

Knows nothing of sockets or clocks; callers pass what they see.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

CIRCUIT_FIRST_S = 0.25
CIRCUIT_LONGEST_S = 2.0


class Candidate(Protocol):
    """What the choice looks at."""

    weight: float
    outstanding: int
    broken_until: float


C = TypeVar("C", bound=Candidate)


def choose(replicas: Sequence[C], now: float, turn: int, tried: Collection[C] = ()) -> C | None:
    """The untried, unbroken replica with the least outstanding requests per weight; ties go round with `turn`.

    None when every replica was tried or is inside its circuit break.
    """
    least = float("inf")
    best: list[C] = []
    for replica in replicas:
        if replica.broken_until > now or replica in tried:
            continue
        load = replica.outstanding / replica.weight
        if load < least:
            least, best = load, [replica]
        elif load == least:
            best.append(replica)
    return best[turn % len(best)] if best else None


def circuit_break_s(failures: int) -> float:
    """How long a replica is left alone after its `failures`-th connect failure in a row (from 1)."""
    assert failures >= 1
    return min(CIRCUIT_FIRST_S * 2.0 ** min(failures - 1, 10), CIRCUIT_LONGEST_S)


def reopens_in_s(replicas: Sequence[C], now: float) -> float:
    """Seconds until the first broken replica may be tried again; 0 when one may be tried now or there is none."""
    return max(0.0, min((r.broken_until for r in replicas), default=now) - now)
