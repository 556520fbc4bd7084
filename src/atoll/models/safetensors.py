"""Read the header of safetensors files: strict, bounded, without touching a tensor.

The format is an 8-byte little-endian length, that many bytes of JSON, then the tensors without gap or overlap
(https://huggingface.co/docs/safetensors, "Format"). It does not know what the tensors mean.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from atoll.core.errors import IntegrityError, Invalid

HEADER_BYTES_MAX = 32 << 20
TENSORS_MAX = 1 << 17
DIMENSIONS_MAX = 16
_LENGTH_BYTES = 8

TYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """What the files hold together: `type_name` is the type most bytes are in."""

    tensors: int
    elements: int
    size_bytes: int
    type_name: str


def read_file_header(path: Path) -> dict[str, tuple[str, int, int]]:
    """Tensor name -> (type, elements, bytes).

    Raises IntegrityError when the file is shorter than its header says, Invalid when the header is wrong.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            _truncated(path, "header length", _LENGTH_BYTES, size_bytes)
        (length,) = struct.unpack("<Q", prefix)
        if length > HEADER_BYTES_MAX:
            _refuse(path, "header length", f"is {length}, the limit is {HEADER_BYTES_MAX}")
        if _LENGTH_BYTES + length > size_bytes:
            _truncated(path, "header", _LENGTH_BYTES + length, size_bytes)
        data = file.read(length)
    header = _parsed(path, data)
    header.pop("__metadata__", None)
    return _checked(path, header, size_bytes - _LENGTH_BYTES - length)


def read_folder_header(folder: Path) -> Weights:
    """All *.safetensors files of `folder` together; Invalid when there are none or a tensor is in two of them."""
    paths = sorted(folder.glob("*.safetensors"))
    tensors: dict[str, tuple[str, int, int]] = {}
    for path in paths:
        header = read_file_header(path)
        if twice := tensors.keys() & header.keys():
            _refuse(path, min(twice), "is in another file of the folder too")
        tensors |= header
    if not tensors:
        raise Invalid(f"{folder.name} holds no tensors in *.safetensors files", field="files")
    shares: dict[str, int] = {}
    for type_name, _, size_bytes in tensors.values():
        shares[type_name] = shares.get(type_name, 0) + size_bytes
    elements = sum(count for _, count, _ in tensors.values())
    return Weights(len(tensors), elements, sum(shares.values()), max(shares, key=lambda name: shares[name]))


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"{path.name}: the header is not JSON: {error}", hint="fetch it again") from error
    if not isinstance(header, dict) or len(header) > TENSORS_MAX:
        _refuse(path, "header", f"is not an object of at most {TENSORS_MAX} tensors")
    return header


def _checked(path: Path, header: dict[str, Any], data_bytes: int) -> dict[str, tuple[str, int, int]]:
    spans, tensors = [], {}
    for name, entry in header.items():
        type_name, elements = _described(path, name, entry)
        begin, end = _span(path, name, entry)
        if (end - begin) * 8 != elements * TYPE_BITS[type_name]:
            _refuse(path, f"{name}.data_offsets", f"span {end - begin} bytes, not what {elements} x {type_name} take")
        spans.append((begin, end, name))
        tensors[name] = (type_name, elements, end - begin)
    _check_cover(path, sorted(spans), data_bytes)
    return tensors


def _described(path: Path, name: str, entry: Any) -> tuple[str, int]:
    type_name = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(type_name, str) or type_name not in TYPE_BITS:
        _refuse(path, f"{name}.dtype", "is not a known type")
    shape = entry.get("shape")
    if not isinstance(shape, list) or len(shape) > DIMENSIONS_MAX or not all(_is_size(size) for size in shape):
        _refuse(path, f"{name}.shape", "is not a list of sizes")
    elements = 1
    for size in shape:
        elements *= size
    return type_name, elements


def _span(path: Path, name: str, entry: dict[str, Any]) -> tuple[int, int]:
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        _refuse(path, f"{name}.data_offsets", "are not two offsets")
    return offsets[0], offsets[1]


def _check_cover(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """The spans must cover the data exactly, in order."""
    expected = 0
    for begin, end, name in spans:
        if begin != expected:
            _refuse(path, f"{name}.data_offsets", f"begin at {begin}, expected {expected}")
        expected = end
    if expected > data_bytes:
        _truncated(path, "data", expected, data_bytes)
    if expected < data_bytes:
        _refuse(path, "data", f"has {data_bytes - expected} bytes no tensor covers")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _truncated(path: Path, field: str, needed: int, present: int) -> NoReturn:
    message = f"{path.name} is truncated: {field} needs {needed} bytes, there are {present}"
    raise IntegrityError(message, hint="fetch it again", field=field)


def _refuse(path: Path, field: str, what: str) -> NoReturn:
    hint = "the file is corrupt or not what it claims"
    raise Invalid(f"{path.name}: {field} {what}", field=field, hint=hint)
