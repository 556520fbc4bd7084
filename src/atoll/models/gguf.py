"""Read the header of a GGUF file: strict, bounded, without touching a tensor.

Every length is checked against the file's size and a fixed limit before it is used, so a hostile header costs at most
HEADER_BYTES_MAX of reading and never an allocation of its choosing. A header that ends too early is an IntegrityError,
a header that says something impossible is Invalid; both name the field and the offset.
Follows the GGUF specification (ggml/docs/gguf.md, versions 2 and 3) and the stricter checks of llama.cpp's loader.
It does not know whether the tensors' numbers are good, nor whether an engine supports the architecture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TypeGuard

from atoll.core.errors import IntegrityError, Invalid

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_BYTES_MAX = 128 << 20
KEYS_MAX = 4096
TENSORS_MAX = 1 << 16
KEY_BYTES_MAX = 256
NAME_BYTES_MAX = 63
STRING_BYTES_MAX = 1 << 20
ARRAY_LENGTH_MAX = 1 << 24
ARRAY_KEPT_MAX = 1024
DIMENSIONS_MAX = 4
ELEMENTS_MAX = 1 << 62
ALIGNMENT_DEFAULT = 32
ALIGNMENT_MAX = 1 << 16

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_BOOL = 7

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""ggml type number -> (name, numbers in a block, bytes of a block)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header tells it: `offset` is from the start of the file, in bytes."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the header: how long it is; `items` only for short arrays of numbers."""

    length: int
    items: tuple[int | float | bool, ...] | None


Value = int | float | bool | str | ArrayValue


@dataclass(frozen=True, slots=True)
class Header:
    """All a GGUF header says. `values` keeps scalars, strings and the lengths of arrays."""

    version: int
    values: dict[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    file_bytes: int


def is_gguf(path: Path) -> bool:
    """Whether the file starts as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path, name: str = "") -> Header:
    """The checked header of the GGUF file at `path`, called `name` in errors.

    Raises IntegrityError when the file is shorter than its header says, Invalid when the header is not a valid one.
    """
    with path.open("rb", buffering=1 << 18) as file:
        return _Reader(name or path.name, file, path.stat().st_size).header()


class _Reader:
    """A cursor over one header; it alone knows where in the file we are."""

    def __init__(self, name: str, file: IO[bytes], size_bytes: int) -> None:
        self._name = name
        self._file = file
        self._size_bytes = size_bytes
        self._limit = min(size_bytes, HEADER_BYTES_MAX)
        self._offset = 0

    def header(self) -> Header:
        version = self._version()
        tensor_count = self._count("tensor_count", TENSORS_MAX)
        key_count = self._count("metadata_kv_count", KEYS_MAX)
        values = self._values(key_count)
        alignment = self._alignment(values)
        infos = [self._tensor_info(index) for index in range(tensor_count)]
        data_offset = _padded(self._offset, alignment)
        tensors = self._placed(infos, data_offset, alignment)
        return Header(version, values, tensors, alignment, data_offset, self._size_bytes)

    def _version(self) -> int:
        magic = self._take(len(MAGIC), "magic")
        if magic != MAGIC:
            self._refuse("magic", f"starts with {magic!r}, not {MAGIC!r}", hint="this is not a GGUF file")
        version: int = self._number("<I", "version")
        if version not in VERSIONS:
            self._refuse("version", f"has version {version}, only {VERSIONS} are read", hint="convert it again")
        return version

    def _values(self, count: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for index in range(count):
            key = self._text(f"metadata key {index}", KEY_BYTES_MAX)
            if key in values:
                self._refuse(key, "appears twice in the metadata")
            values[key] = self._value(key)
        return values

    def _value(self, key: str) -> Value:
        kind = self._number("<I", key)
        if kind == _ARRAY:
            return self._array(key)
        return self._text(key, STRING_BYTES_MAX) if kind == _STRING else self._scalar(key, kind)

    def _scalar(self, key: str, kind: int) -> int | float | bool:
        if kind not in _SCALARS:
            self._refuse(key, f"has the unknown value type {kind}")
        number: int | float = self._number(_SCALARS[kind], key)
        if kind != _BOOL:
            return number
        if number not in (0, 1):
            self._refuse(key, f"is a boolean of value {number}")
        return bool(number)

    def _array(self, key: str) -> ArrayValue:
        kind = self._number("<I", key)
        length = self._count(key, ARRAY_LENGTH_MAX)
        if kind == _STRING:
            return self._skipped_strings(key, length)
        if kind not in _SCALARS:
            self._refuse(key, f"is an array of the unknown type {kind}")
        if length <= ARRAY_KEPT_MAX:
            return ArrayValue(length, tuple(self._scalar(key, kind) for _ in range(length)))
        self._skip(length * struct.calcsize(_SCALARS[kind]), key)
        return ArrayValue(length, None)

    def _skipped_strings(self, key: str, length: int) -> ArrayValue:
        for _ in range(length):
            self._take(self._count(key, STRING_BYTES_MAX), key)
        return ArrayValue(length, None)

    def _alignment(self, values: dict[str, Value]) -> int:
        alignment = values.get("general.alignment", ALIGNMENT_DEFAULT)
        if not _is_integer(alignment) or not 8 <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
            self._refuse("general.alignment", f"is {alignment!r}, not a power of two from 8 to {ALIGNMENT_MAX}")
        return alignment

    def _tensor_info(self, index: int) -> tuple[Tensor, int]:
        """The tensor (offset relative to the data) and where its header entry was."""
        start = self._offset
        name = self._text(f"name of tensor {index}", NAME_BYTES_MAX)
        dimensions = self._number("<I", f"{name}.n_dimensions")
        if not 1 <= dimensions <= DIMENSIONS_MAX:
            self._refuse(f"{name}.n_dimensions", f"is {dimensions}, not 1 to {DIMENSIONS_MAX}")
        shape = tuple(self._number("<Q", f"{name}.dimensions") for _ in range(dimensions))
        type_name, size_bytes = self._tensor_size(name, shape, self._number("<I", f"{name}.type"))
        offset = self._number("<Q", f"{name}.offset")
        return Tensor(name, type_name, shape, offset, size_bytes), start

    def _tensor_size(self, name: str, shape: tuple[int, ...], type_number: int) -> tuple[str, int]:
        if type_number not in TENSOR_TYPES:
            self._refuse(f"{name}.type", f"is the unknown tensor type {type_number}")
        type_name, block, block_bytes = TENSOR_TYPES[type_number]
        elements = 1
        for dimension in shape:
            elements *= dimension
        if not 0 < elements <= ELEMENTS_MAX or shape[0] % block:
            self._refuse(f"{name}.dimensions", f"{shape} cannot be the shape of a {type_name} tensor")
        return type_name, elements // block * block_bytes

    def _placed(self, infos: list[tuple[Tensor, int]], data_offset: int, alignment: int) -> tuple[Tensor, ...]:
        """The tensors with offsets in the file; they must lie one after another, without gap or overlap."""
        expected, names, placed = 0, set(), []
        for tensor, entry in infos:
            self._offset = entry
            if tensor.name in names:
                self._refuse(tensor.name, "appears twice among the tensors")
            if tensor.offset != expected:
                self._refuse(f"{tensor.name}.offset", f"is {tensor.offset}, expected {expected}")
            begin = data_offset + tensor.offset
            if begin + tensor.size_bytes > self._size_bytes:
                self._truncated(f"{tensor.name}.data", begin, tensor.size_bytes)
            names.add(tensor.name)
            placed.append(Tensor(tensor.name, tensor.type_name, tensor.shape, begin, tensor.size_bytes))
            expected = _padded(expected + tensor.size_bytes, alignment)
        return tuple(placed)

    def _count(self, field: str, count_max: int) -> int:
        count: int = self._number("<Q", field)
        if count > count_max:
            self._refuse(field, f"is {count} long, the limit is {count_max}")
        return count

    def _text(self, field: str, bytes_max: int) -> str:
        data = self._take(self._count(field, bytes_max), field)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._refuse(field, "is not UTF-8")

    def _number(self, layout: str, field: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout), field))[0]

    def _skip(self, size_bytes: int, field: str) -> None:
        self._check_room(size_bytes, field)
        self._file.seek(size_bytes, 1)
        self._offset += size_bytes

    def _take(self, size_bytes: int, field: str) -> bytes:
        self._check_room(size_bytes, field)
        data = self._file.read(size_bytes)
        if len(data) != size_bytes:
            self._truncated(field, self._offset, size_bytes)
        self._offset += size_bytes
        return data

    def _check_room(self, size_bytes: int, field: str) -> None:
        if self._offset + size_bytes <= self._limit:
            return
        if self._limit < self._size_bytes:
            self._refuse(field, f"lies beyond the first {HEADER_BYTES_MAX} bytes, where a header must end")
        self._truncated(field, self._offset, size_bytes)

    def _truncated(self, field: str, offset: int, size_bytes: int) -> NoReturn:
        raise IntegrityError(
            f"{self._name} is truncated: {field} needs {size_bytes} bytes at offset {offset}, "
            f"the file has {self._size_bytes}",
            hint="fetch it again",
            field=field,
            offset=offset,
        )

    def _refuse(self, field: str, what: str, *, hint: str = "the file is corrupt or not what it claims") -> NoReturn:
        message = f"{self._name}: {field} at offset {self._offset} {what}"
        raise Invalid(message, field=field, hint=hint, offset=self._offset)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _padded(size_bytes: int, alignment: int) -> int:
    return (size_bytes + alignment - 1) // alignment * alignment
