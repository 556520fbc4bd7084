"""How good scores are, and what probability a score stands for. Pure numpy over a handful of held-out texts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 10
NEWTON_STEPS = 100

Numbers = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Calibration:
    """probability = 1 / (1 + exp(-(slope * score + offset)))."""

    slope: float = 1.0
    offset: float = 0.0

    def probabilities(self, scores: Numbers) -> Numbers:
        """float64 in 0 … 1 for each score."""
        return sigmoid(self.slope * scores + self.offset)


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures on `tested` texts: area under the ROC curve; share told right at .5; mean squared error of the
    probabilities (Brier); expected calibration error, the mean distance of said and true shares over ten equal bins,
    which `reliability` lists as {"said", "true", "texts"}.
    """

    tested: int
    auc: float
    accuracy: float
    brier: float
    calibration_error: float
    reliability: list[dict[str, float]] = field(default_factory=list)


def sigmoid(values: Numbers) -> Numbers:
    """1 / (1 + exp(-x)), without overflow."""
    folded = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, folded) / (1.0 + folded)


def auc(scores: Numbers, truth: Truth) -> float:
    """The chance that a good text scores above another one, ties half: the Mann-Whitney U over both counts."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    good = int(truth.sum())
    u = ranks[truth].sum() - good * (good + 1) / 2
    return float(u / (good * (len(truth) - good)))


def calibrate(scores: Numbers, truth: Truth) -> Calibration:
    """Platt's scaling by Newton's method with targets drawn in from 0 and 1.

    J. Platt (1999); H.-T. Lin, C.-J. Lin, R. Weng, "A note on Platt's probabilistic outputs", Machine Learning 68
    (2007). The slope is never negative: calibration may not turn the order around.
    """
    good, other = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (good + 1) / (good + 2), 1 / (other + 2))
    slope, offset = 0.0, float(np.log((good + 1) / (other + 1)))
    for _ in range(NEWTON_STEPS):
        said = sigmoid(slope * scores + offset)
        error, weight = said - target, said * (1 - said)
        gradient = np.array([(error * scores).sum(), error.sum()])
        mixed = (weight * scores).sum()
        curve = np.array([[(weight * scores**2).sum() + 1e-6, mixed], [mixed, weight.sum() + 1e-12]])
        step = np.linalg.solve(curve, gradient)
        size = min(1.0, 10.0 / max(1e-12, float(np.abs(step).max())))
        slope, offset = slope - size * float(step[0]), offset - size * float(step[1])
        if float(np.abs(step).max()) < 1e-9:
            break
    return Calibration(slope, offset) if slope > 0 else Calibration(0.0, offset)


def measure(probabilities: Numbers, truth: Truth) -> Quality:
    """The figures of probabilities that were said of texts whose truth is known; both kinds must be among them."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    reliability, error = [], 0.0
    for number in range(BINS):
        chosen = bins == number
        count = int(chosen.sum())
        if count:
            said, true = float(probabilities[chosen].mean()), float(truth[chosen].mean())
            reliability.append({"said": round(said, 4), "true": round(true, 4), "texts": count})
            error += abs(said - true) * count / len(truth)
    figures = {
        "auc": auc(probabilities, truth),
        "accuracy": float(((probabilities >= 0.5) == truth).mean()),
        "brier": float(((probabilities - truth) ** 2).mean()),
        "calibration_error": error,
    }
    return Quality(len(truth), **{name: round(value, 6) for name, value in figures.items()}, reliability=reliability)
