"""The Open Inference Protocol, version 2: tensors in, tensors out, passed between a client and a predictor as they are.

Only the outer form is checked; what a model takes is in its metadata, and the predictor checks it. Binary tensors
(the protocol's extension) are not understood.
Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.dialects.expect import (
    LIST,
    OBJECT,
    TEXT,
    Expectation,
    check_model,
    check_parameters,
    is_integer,
    read_object,
    require,
    wrong,
)
from atoll.serving.gateway.dialects.order import Endpoint, Headers, Order, Target
from atoll.serving.gateway.dialects.refusal import header_lines, message_of

INFER: Mapping[str, Expectation] = {"id": TEXT, "inputs": LIST, "outputs": LIST, "parameters": OBJECT}
KINDS = frozenset({"predict"})
ROOT = b"/v2/models/"


def server_metadata(version: str) -> dict[str, Any]:
    """The answer to GET /v2."""
    return {"name": "atoll", "version": version, "extensions": []}


def render_error(error: AtollError) -> tuple[int, bytes, bytes]:
    """Status, body and extra header lines of an answer that tells `error` in the protocol's form."""
    return error.http_status, orjson.dumps({"error": message_of(error)}), header_lines(error)


def break_off(error: AtollError) -> bytes:
    return orjson.dumps({"error": message_of(error)})


class Infer(Order):
    """A request to /v2/models/{name}/infer."""

    __slots__ = ()

    def path(self, target: Target) -> str:
        return f"/v2/models/{quote(target.model or self.model, safe='')}/infer"

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        return self.data


class Lookup(Order):
    """A request for a model's metadata or readiness."""

    __slots__ = ("_suffix",)

    method = b"GET"
    _suffix: str

    def path(self, target: Target) -> str:
        return f"/v2/models/{quote(target.model or self.model, safe='')}{self._suffix}"

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        return b""


def endpoint_of(path: bytes) -> Endpoint | None:
    """The endpoint of a path below /v2/models; None for one the protocol does not have."""
    name, _, rest = path.removeprefix(ROOT).partition(b"/")
    if rest.startswith(b"versions/"):
        rest = rest.removeprefix(b"versions/").partition(b"/")[2]
    model = unquote(name.decode(errors="replace"))
    if not path.startswith(ROOT) or not model:
        return None
    where = path.decode(errors="replace")
    if rest == b"infer":
        return Endpoint("infer", where, INFER, "inputs", KINDS, _Infers(model), "POST", render_error, break_off)
    if rest in (b"", b"ready"):
        suffix = f"/{rest.decode()}" if rest else ""
        reader = _Looks(model, suffix)
        return Endpoint("model_metadata", where, {}, "name", KINDS, reader, "GET", render_error, break_off)
    return None


class _Infers:
    """Reader of inferences by one model, which the path names."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __call__(self, endpoint: Endpoint, data: bytes, headers: Headers) -> Infer:
        if b"inference-header-content-length" in headers:
            raise Invalid("Binary tensors are not understood; send them as JSON.", field="inputs")
        fields = read_object(data)
        require(fields, "inputs")
        check_parameters(endpoint.parameters, fields)
        check_model(self._model)
        if not fields["inputs"]:
            raise Invalid("'inputs' must have at least one tensor.", field="inputs")
        for index, tensor in enumerate(fields["inputs"]):
            _check_tensor(f"inputs[{index}]", tensor)
        return Infer(endpoint, data, fields | {"model": self._model}, headers, prompt_bound=0)


class _Looks:
    """Reader of requests about one model, which the path names."""

    def __init__(self, model: str, suffix: str) -> None:
        self._model = model
        self._suffix = suffix

    def __call__(self, endpoint: Endpoint, data: bytes, headers: Headers) -> Lookup:
        check_model(self._model)
        order = Lookup(endpoint, b"", {"model": self._model}, headers, prompt_bound=0)
        order._suffix = self._suffix
        return order


def _check_tensor(where: str, tensor: Any) -> None:
    if not isinstance(tensor, dict):
        raise wrong(where, "a tensor: an object with name, shape, datatype and data", tensor)
    for name in ("name", "datatype"):
        if not isinstance(tensor.get(name), str):
            raise wrong(f"{where}.{name}", "a string", tensor.get(name))
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(is_integer(size) and size >= 0 for size in shape):
        raise wrong(f"{where}.shape", "a list of sizes", shape)
    if not isinstance(tensor.get("data"), list):
        raise wrong(f"{where}.data", "a list", tensor.get("data"))
