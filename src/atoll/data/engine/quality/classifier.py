"""A quality model: how likely a text is of the good kind, by a linear model over hashed features.

Logistic regression on the mean of the features' weights, trained by AdaGrad one text at a time, as fastText's
classifier with one dimension (A. Joulin et al., "Bag of Tricks for Efficient Text Classification", EACL 2017). Scores
are calibrated on texts that were not trained on. Equal texts, labels and seed give equal bytes.
It sees words, never meaning, and knows nothing of where a text comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.hashing import hash_text
from atoll.data.engine.kernel import kernel
from atoll.data.engine.quality import model_file, perplexity
from atoll.data.engine.quality.features import RUN_MAX, Weights, flat, tables, visit
from atoll.data.engine.quality.measures import Calibration, Quality, calibrate, measure
from atoll.data.engine.quality.model_file import ModelFile
from atoll.data.engine.quality.perplexity import Perplexity

KIND = "classifier"
EACH_MIN = 8
"""So many texts of each kind are needed at least."""

HELDOUT_TENTHS = 2
TRAINING_BYTES_MAX = 64 << 10
"""A longer text is learnt from by its beginning; it is scored whole."""

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a classifier is trained. `bits`: its table has 2**bits weights; `rate`: step of AdaGrad, falling to 0."""

    epochs: int = 5
    rate: float = 2.0
    bits: int = 18
    shortest: int = 3
    longest: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, float, float], ...] = (("epochs", 1, 100), ("rate", 1e-6, 100), ("bits", 10, 24))
        for name, low, high in (*limits, ("shortest", 1, RUN_MAX), ("longest", self.shortest, RUN_MAX)):
            if not low <= getattr(self, name) <= high:
                raise Invalid(f"{name} is {getattr(self, name)!r}", field=name, hint=f"from {low} to {high}")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model; `score` may be called from many threads."""

    settings: Settings
    weights: Weights
    bias: float
    calibration: Calibration
    report: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    kind = KIND

    def score(self, texts: pa.StringArray) -> Scores:
        """float32 (n,): for each text the probability, from 0 to 1, of being of the good kind; nulls count as ""."""
        return self.calibration.probabilities(self.raw(texts)).astype(np.float32)

    def raw(self, texts: pa.StringArray) -> NDArray[np.float64]:
        """float64 (n,): the scores before calibration, as log odds."""
        return _raw(texts, self.settings, self.weights, self.bias)

    def file(self) -> ModelFile:
        """The model as a file."""
        header = {
            "settings": asdict(self.settings),
            "bias": self.bias,
            "calibration": asdict(self.calibration),
            "report": self.report,
        }
        return ModelFile(KIND, header, {"weights": self.weights})


def from_file(file: ModelFile) -> Classifier:
    """The model in a file; KeyError or TypeError when it is not one."""
    if file.kind != KIND:
        raise TypeError(f"a model of kind {file.kind!r}")
    header, settings = file.header, Settings(**file.header["settings"])
    weights = file.arrays["weights"]
    if weights.shape != (1 << settings.bits,) or weights.dtype != np.float32:
        raise TypeError(f"weights of shape {weights.shape}")
    calibration = Calibration(**header["calibration"])
    return Classifier(settings, weights, float(header["bias"]), calibration, header["report"], file.digest)


def load(path: Path | str) -> Classifier | Perplexity:
    """The quality model in the file at `path`, of whichever kind; read once while the file stays as it is.

    Invalid names the file when it is absent, damaged or something else.
    """
    try:
        about = Path(path).stat()
    except OSError as error:
        raise Invalid(f"quality model {path} cannot be read: {error.strerror}", field="model") from error
    return _loaded(Path(path), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=16)
def _loaded(path: Path, _: int, __: int) -> Classifier | Perplexity:
    file = model_file.read(path)
    try:
        return perplexity.from_file(file) if file.kind == perplexity.KIND else from_file(file)
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{path} is no quality model we know: {error}", field="model", hint="train it again") from error


def train(texts: pa.StringArray, labels: Sequence[bool] | NDArray[np.bool_], settings: Settings) -> Classifier:
    """A classifier that tells texts with label true from the others; its `report` holds figures on held-out texts.

    A fifth of the texts, chosen by their hashes (so that equal texts stay together), is held out: half of it
    calibrates the scores, the other half measures them. Invalid when there are too few texts of a kind anywhere.
    """
    good = np.asarray(labels, np.bool_)
    assert len(good) == len(texts), "one label a text"
    tenths = np.array([hash_text(text.as_py() or "", settings.seed) % (5 * HELDOUT_TENTHS) for text in texts])
    learnt, tuned, tested = tenths >= HELDOUT_TENTHS, tenths == 0, tenths == 1
    for where, chosen, least in (("learn from", learnt, EACH_MIN), ("calibrate by", tuned, 1), ("test by", tested, 1)):
        _check_enough(good[chosen], where, least)
    weights, bias = _fitted(texts.filter(pa.array(learnt)), good[learnt], settings)
    raw = _raw(texts.filter(pa.array(~learnt)), settings, weights, bias)
    heldout, is_tuned = good[~learnt], tuned[~learnt]
    calibration = calibrate(raw[is_tuned], heldout[is_tuned])
    quality = measure(calibration.probabilities(raw[~is_tuned]), heldout[~is_tuned])
    return Classifier(settings, weights, bias, calibration, _report(good, learnt, quality))


def _report(good: NDArray[np.bool_], learnt: NDArray[np.bool_], quality: Quality) -> dict[str, Any]:
    counts = {"texts": len(good), "good": int(good.sum()), "trained_on": int(learnt.sum())}
    return counts | asdict(quality)


def _check_enough(good: NDArray[np.bool_], where: str, least: int) -> None:
    counts = {"good": int(good.sum()), "other": int((~good).sum())}
    for name, count in counts.items():
        if count < least:
            words = f"{count} {name} texts to {where}, at least {least} are needed"
            hint = "give more examples: some fifty of each kind make a beginning"
            raise Invalid(words, field="texts", hint=hint)


def _fitted(texts: pa.StringArray, good: NDArray[np.bool_], settings: Settings) -> tuple[Weights, float]:
    data, starts = flat(texts)
    ends = np.minimum(starts[1:], starts[:-1] + TRAINING_BYTES_MAX)
    weights, squares = np.zeros((2, 1 << settings.bits), np.float32)
    share = good.mean()
    state = np.array([np.log(share / (1 - share)), 0.0])
    order = np.random.default_rng(settings.seed)
    for epoch in range(settings.epochs):
        steps = order.permutation(len(texts))
        _learn(
            *(data, starts[:-1], _cut(data, ends), *tables(), steps, good, np.uint64(64 - settings.bits)),
            *(settings.shortest, settings.longest, weights, squares, state),
            *(settings.rate * (1 - epoch / settings.epochs), settings.rate / settings.epochs),
        )
    return weights, float(state[0])


def _cut(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """`ends` moved back to where a character begins."""
    moved = ends.copy()
    for _ in range(3):
        inside = moved < len(data)
        inside[inside] = (data[moved[inside]] & 0xC0) == 0x80
        moved -= inside
    return moved


def _raw(texts: pa.StringArray, settings: Settings, weights: Weights, bias: float) -> NDArray[np.float64]:
    data, starts = flat(texts)
    found = np.empty(len(texts))
    _score(
        *(data, starts, *tables(), np.uint64(64 - settings.bits), settings.shortest, settings.longest),
        *(weights, bias, found),
    )
    return found


@kernel
def _score(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    shift: np.uint64,
    shortest: int,
    longest: int,
    weights: Weights,
    bias: float,
    found: NDArray[np.float64],
) -> None:
    for text in range(len(starts) - 1):
        here = data[starts[text] : starts[text + 1]]
        total, count = visit(here, kinds, lower, shift, shortest, longest, weights, weights, 0.0, 0.0)
        found[text] = bias + total / max(1, count)


@kernel
def _learn(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    steps: NDArray[np.int64],
    good: NDArray[np.bool_],
    shift: np.uint64,
    shortest: int,
    longest: int,
    weights: Weights,
    squares: Weights,
    state: NDArray[np.float64],
    rate: float,
    fall: float,
) -> None:
    """One epoch; `state` holds the bias and its sum of squares."""
    for step in range(len(steps)):
        text = steps[step]
        here = data[starts[text] : ends[text]]
        pace = rate - fall * step / len(steps)
        total, count = visit(here, kinds, lower, shift, shortest, longest, weights, squares, 0.0, 0.0)
        raw = state[0] + total / max(1, count)
        slope = 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, raw)))) - (1.0 if good[text] else 0.0)
        state[1] += slope * slope
        if count > 0 and slope != 0.0:
            state[0] -= 0.1 * pace * slope / np.sqrt(state[1])
            visit(here, kinds, lower, shift, shortest, longest, weights, squares, slope / count, pace)
