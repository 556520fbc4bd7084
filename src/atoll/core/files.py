"""Durable writes to local files: all or nothing, and on disk when the call returns.

A full disk leaves the old file as it was and raises ResourceExhausted. Knows nothing of what is written.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import orjson

from atoll.core.errors import ResourceExhausted

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turn ENOSPC, EDQUOT and EFBIG inside the block into ResourceExhausted naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourceExhausted(
            f"cannot write {path}: {os.strerror(error.errno)}",
            hint="free space there or move the folder; what was there before is unchanged",
            path=str(path),
        ) from error


def sync(path: Path) -> None:
    """Make what is in a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_file(path: Path, *, durable: bool = True, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A binary file to write; it takes `path`'s place when the block ends well, else nothing changes."""
    with disk_full_named(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)


def write_bytes(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o644) -> None:
    """Replace `path` with `data`, all or nothing."""
    with replace_file(path, durable=durable, mode=mode) as file:
        file.write(data)


def write_json(path: Path, value: object, *, durable: bool = True, mode: int = 0o644) -> None:
    """Replace `path` with `value` as JSON, all or nothing."""
    write_bytes(path, orjson.dumps(value), durable=durable, mode=mode)


def read_json(path: Path) -> dict[str, object] | None:
    """The JSON object in `path`, or None when there is no such file or it is not whole yet."""
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None
