"""Tensors of the Open Inference Protocol, version 2, to arrays and back, with every claim checked.

Source: "Open Inference Protocol (V2) REST API" (kserve/open-inference-protocol) and its binary tensor data extension
(triton-inference-server, protocol/extension_binary_data.md): JSON first, `inference-header-content-length` says how
long it is, then the tensors' bytes in order, little-endian; BYTES elements have their length before them. Data in JSON
may be flat or nested. A BYTES input with the parameter {"content_type": "base64"} is decoded. In JSON answers numbers
that are not finite are null.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from atoll.core.errors import Invalid
from atoll.serving.predictor import Tensor

Array = np.ndarray[Any, Any]

TENSORS_MAX = 256
RANK_MAX = 16
ELEMENTS_MAX = 1 << 26
_TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}").type for bits in (16, 32, 64)},
    "BYTES": np.object_,
}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}
_LENGTH = struct.Struct("<I")


def split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """The JSON part of a request, and the binary part behind it. Invalid."""
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise Invalid(f"inference-header-content-length is {header_length!r} of {len(body)} bytes")
        length = int(header_length)
    try:
        value = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid(f"the body is a JSON {type(value).__name__}, not an object")
    return value, body[length:]


def read_inputs(request: Mapping[str, Any], binary: bytes, declared: Sequence[Tensor]) -> dict[str, Array]:
    """The arrays of a request by name, as declared where anything is. Invalid names the tensor at fault."""
    items = request.get("inputs")
    if not isinstance(items, list) or not 0 < len(items) <= TENSORS_MAX:
        raise Invalid(f"inputs is not a list of 1 to {TENSORS_MAX} tensors", field="inputs")
    arrays: dict[str, Array] = {}
    for place, item in enumerate(items):
        name, array, binary = _read(item, f"inputs.{place}", binary)
        if name in arrays:
            raise Invalid(f"input {name!r} comes twice", field=f"inputs.{place}.name")
        arrays[name] = array
    if binary:
        raise Invalid(f"{len(binary)} bytes follow the last tensor", field="inputs")
    _check_declared(arrays, declared, "input")
    return arrays


def check_outputs(arrays: object, declared: Sequence[Tensor]) -> dict[str, Array]:
    """What a predictor returned, as arrays as declared. ValueError names the output at fault."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise ValueError(f"it returned {type(arrays).__name__}, not arrays by name")
    kinds = {tensor.name: _TYPES[tensor.datatype] for tensor in declared}
    made: dict[str, Array] = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind in "US":
            array = array.astype(np.object_)
        wanted = kinds.get(name)
        if wanted is not None and array.dtype != wanted and np.can_cast(array.dtype, wanted, "same_kind"):
            array = array.astype(wanted)
        if array.dtype not in _NAMES:
            raise ValueError(f"output {name!r} is an array of {array.dtype}")
        made[str(name)] = array
    try:
        _check_declared(made, declared, "output")
    except Invalid as error:
        raise ValueError(error.message) from error
    return made


def write_outputs(
    head: Mapping[str, Any], arrays: Mapping[str, Array], asked: Sequence[Mapping[str, Any]], *, is_binary: bool
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part when binary tensors follow. Invalid for an unknown name."""
    wanted = {str(item.get("name")): item for item in asked} or {name: {} for name in arrays}
    tensors: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, item in wanted.items():
        if name not in arrays:
            raise Invalid(f"there is no output {name!r}", field="outputs", hint="there are " + ", ".join(arrays))
        array = np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape)
        tensor: dict[str, Any] = {"name": name, "datatype": _NAMES[array.dtype], "shape": list(array.shape)}
        if _parameters(item, "outputs").get("binary_data", is_binary):
            parts.append(_packed(array))
            tensors.append(tensor | {"parameters": {"binary_data_size": len(parts[-1])}})
        else:
            tensors.append(tensor | {"data": _listed(array)})
    text = orjson.dumps({**head, "outputs": tensors})
    return (text + b"".join(parts), len(text)) if parts else (text, None)


def asked_outputs(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The outputs a request names. Invalid."""
    items = request.get("outputs") or []
    if not isinstance(items, list) or len(items) > TENSORS_MAX or not all(isinstance(item, Mapping) for item in items):
        raise Invalid(f"outputs is not a list of at most {TENSORS_MAX} objects", field="outputs")
    return items


def _read(item: object, field: str, binary: bytes) -> tuple[str, Array, bytes]:
    """Name and array of a tensor, and the binary part that is left."""
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str) or not item["name"]:
        raise Invalid(f"{field} has no name", field=f"{field}.name")
    name, datatype = str(item["name"]), item.get("datatype")
    if not isinstance(datatype, str) or datatype not in _TYPES:
        hint = "one of " + ", ".join(_TYPES)
        raise Invalid(f"input {name!r} has datatype {datatype!r}", field=f"{field}.datatype", hint=hint)
    shape = _shape(item.get("shape"), name, field)
    parameters = _parameters(item, field)
    size = parameters.get("binary_data_size")
    if size is not None:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary):
            raise Invalid(f"input {name!r}: binary_data_size is {size!r}, {len(binary)} bytes are left", field=field)
        return name, _unpacked(binary[:size], datatype, shape, name, field), binary[size:]
    flat = _flat(item.get("data"), shape, name, field)
    if datatype == "BYTES" and parameters.get("content_type") == "base64":
        flat = [_decoded(value, name, field) for value in flat]
    return name, _array(flat, datatype, name, field).reshape(shape), binary


def _shape(value: object, name: str, field: str) -> tuple[int, ...]:
    items = value if isinstance(value, list) and len(value) <= RANK_MAX else [None]
    sizes = [size for size in items if isinstance(size, int) and not isinstance(size, bool)]
    if len(sizes) != len(items) or min(sizes, default=0) < 0 or math.prod(sizes) > ELEMENTS_MAX:
        hint = f"at most {RANK_MAX} sizes, {ELEMENTS_MAX} elements"
        raise Invalid(f"input {name!r} has shape {str(value)[:100]}", field=f"{field}.shape", hint=hint)
    return tuple(sizes)


def _flat(data: object, shape: tuple[int, ...], name: str, field: str) -> list[Any]:
    """The elements in row-major order; nested lists must have the shape's form."""
    if not isinstance(data, list):
        raise Invalid(f"input {name!r} has no data", field=f"{field}.data")
    elements, depth = data, 0
    while elements and isinstance(elements[0], list) and depth < RANK_MAX:
        wanted = shape[depth + 1] if depth + 1 < len(shape) else None
        if any(not isinstance(part, list) or len(part) != wanted for part in elements):
            raise Invalid(f"input {name!r}: nested data does not have shape {list(shape)}", field=f"{field}.data")
        elements, depth = [element for part in elements for element in part], depth + 1
    if len(elements) != math.prod(shape):
        raise Invalid(
            f"input {name!r} has {len(elements)} elements, shape {list(shape)} takes {math.prod(shape)}",
            field=f"{field}.data",
        )
    return elements


def _array(flat: list[Any], datatype: str, name: str, field: str) -> Array:
    """The elements as an array of their type, none of them bent to fit."""
    kinds: dict[str, tuple[type, ...]] = {"BOOL": (bool,), "BYTES": (str, bytes)}
    allowed = kinds.get(datatype) or ((int, float) if datatype.startswith("FP") else (int,))
    for value in flat:
        if type(value) not in allowed:
            raise Invalid(f"input {name!r} is {datatype}, it holds {str(value)[:50]!r}", field=f"{field}.data")
    if datatype == "BYTES":
        array = np.empty(len(flat), np.object_)
        array[:] = [value.encode() if isinstance(value, str) else value for value in flat]
        return array
    if "INT" in datatype and flat:
        limits = np.iinfo(_TYPES[datatype])
        for value in (min(flat), max(flat)):
            if not limits.min <= value <= limits.max:
                raise Invalid(f"input {name!r}: {value} does not fit into {datatype}", field=f"{field}.data")
    with np.errstate(over="ignore"):
        return np.array(flat, _TYPES[datatype])


def _decoded(value: object, name: str, field: str) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error as error:
        raise Invalid(f"input {name!r} is not base64: {error}", field=f"{field}.data") from error


def _unpacked(data: bytes, datatype: str, shape: tuple[int, ...], name: str, field: str) -> Array:
    count = math.prod(shape)
    if datatype == "BYTES":
        items = list(_items(data))
        if len(items) != count or sum(len(item) + _LENGTH.size for item in items) != len(data):
            raise Invalid(f"input {name!r}: its bytes are not {count} elements", field=field)
        array = np.empty(count, np.object_)
        array[:] = items
        return array.reshape(shape)
    kind = np.dtype(_TYPES[datatype]).newbyteorder("<")
    if len(data) != count * kind.itemsize:
        needed = count * kind.itemsize
        raise Invalid(f"input {name!r} has {len(data)} bytes, shape {list(shape)} takes {needed}", field=field)
    return np.frombuffer(data, kind).astype(_TYPES[datatype]).reshape(shape)


def _items(data: bytes) -> Iterable[bytes]:
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            return
        yield data[at : at + length]
        at += length


def _packed(array: Array) -> bytes:
    if array.dtype == np.object_:
        items = [_as_bytes(item) for item in array.ravel()]
        return b"".join(_LENGTH.pack(len(item)) + item for item in items)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _listed(array: Array) -> list[Any]:
    """The elements, flat; bytes that are no UTF-8 keep what can be read of them."""
    if array.dtype == np.object_:
        return [_as_bytes(item).decode(errors="replace") for item in array.ravel()]
    return list(array.ravel().tolist())


def _as_bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def _parameters(item: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise Invalid(f"{field}.parameters is not an object", field=f"{field}.parameters")
    return parameters


def _check_declared(arrays: Mapping[str, Array], declared: Sequence[Tensor], what: str) -> None:
    """Names, types and shapes must be the declared ones, where any are declared."""
    if not declared:
        return
    known = {tensor.name: tensor for tensor in declared}
    hint = f"{what}s are " + ", ".join(known)
    for name in arrays.keys() ^ known.keys():
        verb = "is missing" if name in known else "is not known"
        raise Invalid(f"{what} {name!r} {verb}", field=f"{what}s", hint=hint)
    for name, array in arrays.items():
        tensor, datatype = known[name], _NAMES[array.dtype]
        if datatype != tensor.datatype:
            raise Invalid(f"{what} {name!r} is {datatype}, not {tensor.datatype}", field=f"{what}s")
        sizes = zip(array.shape, tensor.shape, strict=False)
        if len(array.shape) != len(tensor.shape) or any(own != size for own, size in sizes if size != -1):
            shape, wanted = list(array.shape), list(tensor.shape)
            raise Invalid(f"{what} {name!r} has shape {shape}, not {wanted}", field=f"{what}s", hint="-1 is any size")
