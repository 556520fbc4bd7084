"""Ray: items worked off by Ray Data on a cluster, or on a local one started for the run.

The state of a run is a folder, so it must be one that every worker sees (a shared file system); a probe makes sure
before anything is done. `RAY_ADDRESS` names the cluster; without it one of `workers` processors starts here and ends
with the run.
"""

from __future__ import annotations

import logging
import os
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from atoll.core.errors import AtollError, Invalid
from atoll.data.engine.runtimes.processes import environment
from atoll.data.engine.runtimes.stages import ATTEMPTS, Call, killed_twice, perform

OBJECT_STORE_BYTES = 128 << 20


class Ray:
    """Ray Data with up to `workers` items at a time, one processor each."""

    is_local = False

    def __init__(self, workers: int) -> None:
        self.cpu_s = 0.0
        self._workers = workers
        self._is_ready = False
        self._is_ours = False

    def run(self, calls: Sequence[Call]) -> Iterator[Path]:
        if not calls:
            return
        self._start(calls[0][2].parent)
        for row in _rows(calls, self._workers):
            if row["error"]:
                raise _loaded(row["error"])
            self.cpu_s += row["cpu_s"]
            yield Path(row["place"])

    def prepare(self, ready: Callable[[Any], None], value: Any, meanwhile: Callable[[], None]) -> None:
        """The workers of a cluster come and go; each keeps its machine code in its own cache."""

    def close(self) -> None:
        if self._is_ours:
            import ray

            ray.shutdown()
        self._is_ready = self._is_ours = False

    def _start(self, folder: Path) -> None:
        """Connect once, and probe that the workers see the folder."""
        if self._is_ready:
            return
        import ray

        if not ray.is_initialized():
            _initialise(self._workers)
            self._is_ours = True
        _quieten()
        _probe(folder)
        self._is_ready = True


def _initialise(workers: int) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"address": "local"}
    own = environment()
    wanted = {name: own[name] for name in own if name not in os.environ or name.startswith(("ATOLL_", "NUMBA_"))}
    ray.init(runtime_env={"env_vars": wanted}, **options)


def _quieten() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _rows(calls: Sequence[Call], workers: int) -> Iterator[dict[str, Any]]:
    import ray.data

    items = [{"call": pickle.dumps(call)} for call in calls]
    found = ray.data.from_items(items, override_num_blocks=len(items))
    done = found.map(_performed, concurrency=min(workers, len(items)))
    return iter(done.iter_rows())


def _performed(row: dict[str, Any]) -> dict[str, Any]:
    """One call, on a worker; errors of ours travel as data, for Ray would wrap them."""
    work, item, place, is_durable = pickle.loads(row["call"])  # noqa: S301 - written by `_rows`, in the same run
    tries = place.with_name(f".tries-{place.name}")
    try:
        if _counted(tries) > ATTEMPTS:  # Ray itself would try for ever
            raise killed_twice(place, item)
        cpu_s = perform(work, item, place, is_durable)
    except AtollError as error:
        return {"place": str(place), "cpu_s": 0.0, "error": pickle.dumps(error)}
    tries.unlink(missing_ok=True)
    return {"place": str(place), "cpu_s": cpu_s, "error": b""}


def _counted(tries: Path) -> int:
    """The number of this attempt, kept on disk, for the worker may not live to tell."""
    with tries.open("ab") as file:
        file.write(b".")
        return file.tell()


def _loaded(error: bytes) -> AtollError:
    found = pickle.loads(error)  # noqa: S301 - written by `_performed`, in the same run
    assert isinstance(found, AtollError)
    return found


def _probe(folder: Path) -> None:
    """Invalid unless a task on every node of the cluster reads what is written here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nonce = uuid.uuid4().hex
    path = folder / f".probe-{nonce}"
    path.write_text(nonce)
    reader = ray.remote(num_cpus=0)(_read)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        seen = ray.get([reader.options(scheduling_strategy=strategy).remote(str(path)) for strategy in strategies])
    finally:
        path.unlink()
    for node, text in zip(nodes, seen, strict=True):
        if text != nonce:
            name = node["NodeManagerHostname"]
            hint = "put the work folder on a file system every node of the cluster mounts at the same path"
            raise Invalid(f"the Ray node {name} does not see {folder}", field="runtime", hint=hint)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
