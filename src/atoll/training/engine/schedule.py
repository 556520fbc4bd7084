"""The learning rate of each step: a linear rise, then half a cosine. A pure function, so it is never a state."""

from __future__ import annotations

import math

from atoll.training.recipes import Recipe


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The rate of step `step` (from 0) of `steps`; it ends at `final_rate_share` of the peak.

    Cosine annealing as in Loshchilov and Hutter 2016, arXiv:1608.03983, without restarts.
    """
    warmup = math.ceil(recipe.warmup_share * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - 1 - warmup)
    lowest = recipe.learning_rate * recipe.final_rate_share
    return lowest + (recipe.learning_rate - lowest) * (1 + math.cos(math.pi * min(1.0, share))) / 2
