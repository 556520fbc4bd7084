"""What the kernel does a second: guarded writes, idle polls, listing, and what an empty `atoll up` costs.

Rates of the store are per second of this process' CPU time, so that a busy machine does not show in them;
the wall time is printed beside.
"""

from __future__ import annotations

import json
import os
import platform as machine
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from up import rss_mb, start_s

from atoll.core.database import Database
from atoll.core.feed import Feed
from atoll.core.resources import Resource
from atoll.core.store import Create, Scope, SetStatus, Store
from running import ROLES, platform

RESOURCES = 10_000
BATCH = 100
WRITE_ROUNDS = 40
POLLS = 50_000
LISTS = 5
STARTS = 3
STATUS = {"phase": "running", "reason": "", "observed_generation": 1, "progress": {"stage": "train", "done": 3}}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of `work`."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def fill(scope: Scope) -> None:
    spec = {"model": "m", "replicas": 1, "text": "x" * 200}
    names = [f"thing-{n:05d}" for n in range(RESOURCES)]
    for at in range(0, RESOURCES, 500):
        scope.write([Create("Thing", "default", name, spec, STATUS) for name in names[at : at + 500]])


def write_rounds(scope: Scope, found: list[Resource]) -> None:
    """Nothing is read in between: a batch's answer tells the versions it gave."""
    for number in range(WRITE_ROUNDS):
        status = {**STATUS, "round": number}
        for at in range(0, len(found), BATCH):
            batch = found[at : at + BATCH]
            first = scope.write([SetStatus(r, status) for r in batch]) - len(batch) + 1
            found[at : at + BATCH] = [replace(r, version=first + n) for n, r in enumerate(batch)]


def measure_store(root: Path) -> dict[str, float]:
    database = Database(f"sqlite:///{root / 'atoll.db'}")
    database.migrate()
    store = Store(database)
    scope = store.everything("bench")
    fill(scope)
    listing = [timed(lambda: scope.find_all("Thing")) for _ in range(LISTS)]
    some = scope.find_all("Thing")[: BATCH * 10]
    writing = timed(lambda: write_rounds(scope, some))
    writes = WRITE_ROUNDS * len(some)
    feed = Feed(store)
    feed.poll()
    polling = timed(lambda: [feed.poll() for _ in range(POLLS)])
    feed.stop()
    database.close()
    print(f"{writes} guarded writes in batches of {BATCH}: {writing[0]:.2f} s CPU, {writing[1]:.2f} s wall")
    print(f"{POLLS} idle polls: {polling[0]:.2f} s CPU, {polling[1]:.2f} s wall")
    print(f"listing {RESOURCES}: {', '.join(f'{cpu:.3f}' for cpu, _ in listing)} s CPU")
    return {
        "guarded_writes_per_s": writes / writing[0],
        "idle_polls_per_s": POLLS / polling[0],
        "list_10k_cpu_s": statistics.median(cpu for cpu, _ in listing),
    }


def measure_platform(root: Path) -> dict[str, float]:
    starts_s = [start_s(root / str(n)) for n in range(STARTS)]
    with platform(root / "up" / "home") as up:
        memory = {role: rss_mb(up.pid(role)) for role in ROLES}
    print(f"`atoll up` on an empty home answers after {', '.join(f'{s:.2f}' for s in starts_s)} s (wall)")
    print(f"idle memory: {', '.join(f'{role} {mb:.0f} MB' for role, mb in memory.items())}")
    return {"startup_s": min(starts_s), "idle_memory_mb": sum(memory.values())}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        figures = measure_store(Path(name)) | measure_platform(Path(name))
    about = {"cores": os.cpu_count(), "arch": machine.machine(), "python": machine.python_version()}
    command = "python tests/bench/store.py"
    print(json.dumps({"bench": "store", "machine": about, "figures": figures, "rivals": {}, "command": command}))


if __name__ == "__main__":
    main()
