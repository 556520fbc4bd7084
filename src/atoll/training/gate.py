"""The gate: whether a tuned model is good enough to go on, from its measured losses. A pure decision.

It trusts the numbers it is given; how they were measured is the evaluation's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Invalid

METRICS = ("heldout_loss",)


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict, with a reason that holds the numbers it rests on."""

    passed: bool
    reason: str


def loss_drop(metrics: Mapping[str, Any]) -> float:
    """The fraction of the base's loss that is gone in the tuned model; negative when the loss rose, nan when unknown.

    metrics: {"base": {"loss": nats a token}, "tuned": {"loss": …}}.
    """
    base, tuned = float(metrics["base"]["loss"]), float(metrics["tuned"]["loss"])
    return (base - tuned) / base if base > 0 else math.nan


def decide(metrics: Mapping[str, Any], gate: Mapping[str, Any]) -> GateDecision:
    """Whether the held-out loss fell by at least `gate["min_drop"]` of the base's loss.

    A loss that is not a finite number never passes. Raises Invalid for a gate that asks for something else.
    """
    metric, min_drop = gate.get("metric", "heldout_loss"), gate.get("min_drop")
    if metric not in METRICS:
        raise Invalid(f"gate.metric cannot be {metric!r}", field="gate.metric", hint=f"one of: {', '.join(METRICS)}")
    if not isinstance(min_drop, int | float) or isinstance(min_drop, bool) or not math.isfinite(min_drop):
        raise Invalid(f"gate.min_drop cannot be {min_drop!r}", field="gate.min_drop", hint="a fraction such as 0.05")
    base, tuned, drop = metrics["base"]["loss"], metrics["tuned"]["loss"], loss_drop(metrics)
    if not math.isfinite(drop):
        return GateDecision(False, f"held-out loss of base {base} and tuned {tuned} cannot be compared")
    moved = "fell" if drop >= 0 else "rose"
    figures = f"held-out loss {moved} from {base:.4f} to {tuned:.4f}, by {abs(drop):.2%}"
    if drop >= min_drop:
        return GateDecision(True, f"{figures}; a fall of {min_drop:.2%} was wanted")
    return GateDecision(False, f"{figures}; it must fall by at least {min_drop:.2%}")
