"""Predictors as users write them: a table, pictures, a series, and some that misbehave."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atoll.serving.predictor import Predictor, Tensor

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Prices(Predictor):
    """A line through a table; rows are predicted together."""

    inputs = (Tensor("rooms", "FP32", (-1, 3)),)
    outputs = (Tensor("price", "FP32", (-1,)), Tensor("together", "INT64", (-1,)))
    batch_size_max = 8

    def load(self, folder: Path) -> None:
        self.weights = np.loadtxt(folder / "weights.csv", delimiter=",", dtype=np.float32)

    def predict(self, inputs: Arrays) -> Arrays:
        rooms = inputs["rooms"]
        if (rooms < 0).any():
            raise ValueError("a size is negative")
        return {"price": rooms @ self.weights, "together": np.full(len(rooms), len(rooms))}


class Pictures:
    """The mean brightness of PGM pictures; not derived from anything."""

    def predict(self, inputs: Arrays) -> dict[str, object]:
        values = []
        for picture in inputs["picture"]:
            kind, width, height, depth, pixels = picture.split(maxsplit=4)
            assert kind == b"P5" and len(pixels) == int(width) * int(height)
            values.append(np.frombuffer(pixels, np.uint8).mean() / int(depth))
        labels = ["bright" if value > 0.5 else "dark" for value in values]
        return {"brightness": np.array(values), "label": labels}


class Series(Predictor):
    """Repeats the last season."""

    inputs = (Tensor("history", "FP64", (-1,)), Tensor("steps", "INT32", (1,)))
    outputs = (Tensor("forecast", "FP64", (-1,)),)

    def predict(self, inputs: Arrays) -> Arrays:
        season = inputs["history"][-4:]
        return {"forecast": np.resize(season, int(inputs["steps"][0]))}


class Troubled(Predictor):
    """Does what it is told to, good or bad."""

    is_thread_safe = True

    def predict(self, inputs: Arrays) -> Any:
        what = inputs["what"][0].decode()
        if what == "raise":
            raise KeyError("no such column")
        if what == "exit":
            sys.exit(4)
        if what == "hang":
            time.sleep(3600)
        return {"fine": np.array([True])} if what == "fine" else "nonsense"


class Unloadable(Predictor):
    def load(self, folder: Path) -> None:
        raise RuntimeError("the weights are for another version")

    def predict(self, inputs: Arrays) -> Arrays:
        return inputs


class Elsewhere(Predictor):
    """Tells which Python it runs in."""

    def predict(self, inputs: Arrays) -> Any:
        import only_here  # type: ignore[import-not-found]

        return {"prefix": [sys.prefix], "word": [only_here.WORD], "pid": np.array([os.getpid()])}
