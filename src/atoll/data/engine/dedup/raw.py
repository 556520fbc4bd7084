"""Arrays in files: their bytes and nothing else, for files that one stage of a run writes and another reads.

What kind of numbers a file holds, and in which shape, is known to who reads it; a header would cost more than most of
these files. A full disk is an OSError with its number, which numpy's own writing loses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)


def write(path: Path, *arrays: NDArray[Any]) -> None:
    """Write the arrays one behind the other."""
    with path.open("wb") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def read(path: Path, kind: type[Kind], count: int = -1, begin_bytes: int = 0) -> NDArray[Kind]:
    """`count` numbers from a byte on; all that follow by default."""
    return np.fromfile(path, kind, count, offset=begin_bytes)


def mapped(path: Path, kind: type[Kind], *row: int) -> NDArray[Kind]:
    """All numbers of a file, mapped and read-only; in rows of so many, where that is said."""
    shape = (-1, *row) if row else (-1,)
    if not path.stat().st_size:
        return np.empty((0, *row), kind)
    found: NDArray[Kind] = np.asarray(np.memmap(path, kind, "r")).reshape(shape)
    return found
