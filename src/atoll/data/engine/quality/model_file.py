"""The file of a quality model: a header in JSON and arrays of plain numbers, checked by their hash. Never a pickle.

    "atoll-quality/1\\n", length of the header (8 bytes, little-endian), header, arrays one after the other

The header names the kind, the arrays with type and shape, and the SHA-256 of their bytes. Equal models are equal files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.core.files import replace_file

MAGIC = b"atoll-quality/1\n"
HEADER_BYTES_MAX = 1 << 20
FILE_BYTES_MAX = 1 << 30
TYPES = ("<f4", "<u4", "<u2", "<f8")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What is in such a file; `digest` is the blob digest of its bytes, "" before it was one."""

    kind: str
    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    digest: str = ""

    def encode(self) -> bytes:
        """The bytes of the file."""
        parts = [array.astype(array.dtype.newbyteorder("<")).tobytes() for array in self.arrays.values()]
        body = b"".join(parts)
        named = [[name, array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in self.arrays.items()]
        about = {"kind": self.kind, "arrays": named, "sha256": hashlib.sha256(body).hexdigest(), "model": self.header}
        header = orjson.dumps(about, option=orjson.OPT_SORT_KEYS)
        return MAGIC + len(header).to_bytes(8, "little") + header + body

    def save(self, path: Path) -> bytes:
        """Write the file, whole or not at all; its bytes."""
        data = self.encode()
        with replace_file(path) as file:
            file.write(data)
        return data


def decode(data: bytes, name: str) -> ModelFile:
    """The model file in `data`; Invalid says what is wrong with the file called `name`."""
    if not data.startswith(MAGIC):
        hint = "make one: atoll data train-quality GOOD... --negative OTHER... --out FILE"
        raise Invalid(f"{name} is not a quality model", field="model", hint=hint)
    begin = len(MAGIC) + 8
    length = int.from_bytes(data[len(MAGIC) : begin], "little")
    try:
        if length > HEADER_BYTES_MAX:
            raise ValueError(f"a header of {length} bytes")
        header = orjson.loads(data[begin : begin + length])
        arrays = _arrays(header, memoryview(data)[begin + length :])
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        return ModelFile(str(header["kind"]), dict(header["model"]), arrays, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(
            f"quality model {name} is damaged: {error!r:.200}", field="model", hint="train it again"
        ) from error


def read(path: Path) -> ModelFile:
    """The model file at `path`; Invalid when it is absent or no such file."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Invalid(f"{path} is too large for a quality model", field="model", hint=f"{FILE_BYTES_MAX} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise Invalid(f"quality model {path} cannot be read: {error.strerror}", field="model") from error
    return decode(data, str(path))


def _arrays(header: dict[str, Any], body: memoryview) -> dict[str, NDArray[Any]]:
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise ValueError("its bytes are not what its checksum says")
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for name, kind, shape in header["arrays"]:
        if kind not in TYPES:
            raise ValueError(f"numbers of type {kind!r}")
        count = int(np.prod([int(side) for side in shape]))
        found[str(name)] = (
            np.frombuffer(body, np.dtype(kind), count, at).reshape(shape).copy()
        )  # kernels take no read-only arrays
        at += found[str(name)].nbytes
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes too many")
    return found
