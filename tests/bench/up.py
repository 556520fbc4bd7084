"""What the platform costs at rest and how soon it acts: start, memory, idle processor, apply to running."""

from __future__ import annotations

import json
import os
import platform as machine
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from running import ROLES, Platform, counted_workload, platform, until

ROUNDS = 5
IDLE_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start_s(root: Path) -> float:
    """Seconds from the command to the first good answer of /healthz, on an empty home."""
    up = Platform(root / "home")
    try:
        began = time.monotonic()
        up.launch()
        until(up.is_healthy, "/healthz")
        return time.monotonic() - began
    finally:
        up.close()


def apply_to_running_s(up: Platform, root: Path, number: int) -> float:
    with up.client() as client:
        seen = client.find_all("Workload").head
        began = time.monotonic()
        client.put("Workload", f"w{number}", counted_workload(root / f"starts{number}"))
        for event in client.watch("Workload", seen=seen):
            found = event.resource
            if found is not None and found.name == f"w{number}" and found.phase == "running":
                break
        took_s = time.monotonic() - began
        client.delete("Workload", f"w{number}")
    return took_s


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        starts_s = [start_s(root / str(n)) for n in range(ROUNDS)]
        with platform(root / "up" / "home") as up:
            pids = [up.pid(role) for role in ROLES]
            latencies_s = [apply_to_running_s(up, root, n) for n in range(ROUNDS)]
            before = sum(map(cpu_s, pids)), time.monotonic()
            time.sleep(IDLE_S)
            idle = (sum(map(cpu_s, pids)) - before[0]) / (time.monotonic() - before[1])
            memory = {role: rss_mb(pid) for role, pid in zip(ROLES, pids, strict=True)}
            memory["supervisor"] = rss_mb(up.pid("up"))
    figures = {
        "healthz_s": statistics.median(starts_s),
        "apply_to_running_s": statistics.median(latencies_s),
        "idle_core_share": idle,
        "idle_memory_mb": sum(memory.values()),
        **{f"idle_memory_{role}_mb": value for role, value in memory.items()},
    }
    about = {"cores": os.cpu_count(), "arch": machine.machine(), "python": machine.python_version()}
    for figure, value in figures.items():
        print(f"{figure:28} {value:.4g}")
    print(
        json.dumps({"bench": "up", "machine": about, "figures": figures, "rivals": {}, "command": "make bench NAME=up"})
    )


if __name__ == "__main__":
    main()
