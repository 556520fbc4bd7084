"""What a class of yours must be to be served by engine `predictor`: load once, then predict.

    class Prices(Predictor):
        inputs = (Tensor("rooms", "FP32", (-1, 4)),)
        outputs = (Tensor("price", "FP32", (-1,)),)

        def load(self, folder):
            self.weights = numpy.loadtxt(folder / "weights.csv", delimiter=",", dtype="float32")

        def predict(self, inputs):
            return {"price": inputs["rooms"] @ self.weights}

Deploy it with `task: predict`, `predictor: "shop.prices:Prices"` and, where it needs packages of its own,
`environment: /opt/shop`. The module must be importable there; code that lies among the model's files runs only with
`engine_options: {model_code: true}`. It is asked by the Open Inference Protocol, POST /v2/models/NAME/infer.

A model version of format "predictor" is a folder with atoll-predictor.yaml, all of whose fields may be left out:
    predictor: shop.prices:Prices       # unless the deployment names one
    batch_size_max: 16
    inputs:  [{name: rooms, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: price, datatype: FP32, shape: [-1]}]

This module needs nothing but Python, so that your own tests can import it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "atoll-predictor.yaml"
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES"),
)
"""Types of tensors, as the Open Inference Protocol names them. BYTES are arrays of Python bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What an input or output is: -1 in `shape` is any size. ValueError for a type or shape there is not."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or self.datatype not in DATATYPES:
            raise ValueError(f"tensor {self.name!r} has datatype {self.datatype!r}, not one of {', '.join(DATATYPES)}")
        if not all(isinstance(size, int) and size >= -1 for size in self.shape):
            raise ValueError(f"tensor {self.name!r} has shape {self.shape!r}, not sizes or -1")


class Predictor(ABC):
    """Derive from it, or be like it.

    `inputs` and `outputs`, when given, are checked for you and told to clients. With `batch_size_max` above 1 the rows
    (first dimension) of requests that wait together are predicted together, so row i of the outputs must depend on
    row i of the inputs alone. Without `is_thread_safe` predict is never called twice at a time.
    """

    inputs: ClassVar[Sequence[Tensor]] = ()
    outputs: ClassVar[Sequence[Tensor]] = ()
    batch_size_max: ClassVar[int] = 1
    is_thread_safe: ClassVar[bool] = False

    def load(self, folder: Path) -> None:
        """Get ready; `folder` holds the model's files and must not be written to."""
        return None

    @abstractmethod
    def predict(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Mapping[str, np.ndarray[Any, Any]]:
        """Arrays by output name for arrays by input name. ValueError tells the client that the inputs are wrong."""
