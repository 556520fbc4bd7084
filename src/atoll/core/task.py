"""The engine's side of a task directory: read the input, report progress, leave a result.

An engine is a child process an agent started; these few files are all it shares with the platform.
It knows neither the store nor the server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import orjson

from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.core.files import write_json

PERMANENT_FAILURE = 3
"""Exit code that says: do not try again, the input itself is at fault."""

RESULT_BYTES_MAX = 1 << 20
PROGRESS_BYTES_MAX = 64 << 10


def task_dir() -> Path:
    """The directory of the running task (`ATOLL_TASK_DIR`, else the current directory)."""
    return Path(os.environ.get("ATOLL_TASK_DIR", "."))


def work_dir() -> Path:
    """A directory that survives restarts of this workload's tasks on this node."""
    return _made(Path(os.environ.get("ATOLL_WORK", task_dir() / "work")))


def cache_dir() -> Path:
    """A directory on this node shared by all tasks; anything in it may vanish and be rebuilt."""
    return _made(Path(os.environ.get("ATOLL_CACHE", task_dir() / "cache")))


def blobs_url() -> str:
    """Where the blob store is (`ATOLL_BLOBS`)."""
    url = os.environ.get("ATOLL_BLOBS")
    if not url:
        raise Invalid("ATOLL_BLOBS is not set", field="ATOLL_BLOBS", hint="the agent sets it; by hand, name a folder")
    return url


def read_input() -> dict[str, Any]:
    """The task's input object."""
    path = task_dir() / "input.json"
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise Invalid(f"cannot read task input {path}: {error}", field="input") from error
    if not isinstance(value, dict):
        raise Invalid(f"task input {path} is not a JSON object", field="input")
    return value


def report_progress(
    stage: str, done: float, total: float | None = None, unit: str = "", message: str = "", **figures: Any
) -> None:
    """Replace `progress.json`; cheap (no fsync), at most PROGRESS_BYTES_MAX bytes."""
    value = {"stage": stage, "done": done, "total": total, "unit": unit, "message": message, **figures}
    _write("progress.json", value, PROGRESS_BYTES_MAX, durable=False)


def write_result(value: dict[str, Any]) -> None:
    """Leave the task's result, durably; at most RESULT_BYTES_MAX bytes."""
    _write("result.json", value, RESULT_BYTES_MAX, durable=True)


def write_endpoint(url: str, api_key: str = "", capabilities: tuple[str, ...] = ()) -> None:
    """Say that this task now serves at `url`."""
    value = {"url": url, "api_key": api_key, "capabilities": list(capabilities)}
    write_json(task_dir() / "endpoint.json", value, mode=0o600)


def fail(error: AtollError) -> NoReturn:
    """Leave `error` as the result and exit as a permanent failure."""
    write_result({"error": error.to_dict()})
    sys.stderr.write(f"{error.code}: {error}\n")
    sys.exit(PERMANENT_FAILURE)


def run(engine: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Run `engine(input)`, write what it returns as the result, report an AtollError as permanent failure.

    `Unavailable` is the exception: the world may be better next time, so the task exits 1 and is retried.
    """
    try:
        result = engine(read_input())
    except Unavailable as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        sys.exit(1)
    except AtollError as error:
        fail(error)
    if result is not None:
        write_result(result)


def _write(name: str, value: dict[str, Any], bytes_max: int, *, durable: bool) -> None:
    size_bytes = len(orjson.dumps(value))
    if size_bytes > bytes_max:
        raise Invalid(f"{name} has {size_bytes} bytes, the limit is {bytes_max}", field=name, hint="put it in a blob")
    write_json(task_dir() / name, value, durable=durable)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
