"""`kill -9` of a whole run at random moments: started again, it ends with the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from curating import RECIPE, WAIT_S, finish, shards_of, start, task_in, write_documents

SEED = 20_260
KILLS = 6
KILLS_SOAK = 50


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_a_run_ends_with_the_same_dataset(tmp_path: Path, workers: int) -> None:
    _kill_and_compare(tmp_path, workers, KILLS // 2)


@pytest.mark.soak
def test_killed_at_fifty_random_moments_a_run_ends_with_the_same_dataset(tmp_path: Path) -> None:
    _kill_and_compare(tmp_path, 2, KILLS_SOAK)


def test_asked_to_stop_a_run_stops_and_goes_on_later(tmp_path: Path) -> None:
    _kill_and_compare(tmp_path, 2, 2, signal.SIGTERM)


def _kill_and_compare(tmp_path: Path, workers: int, kills: int, number: signal.Signals = signal.SIGKILL) -> None:
    docs = write_documents(tmp_path / "docs")
    task_input = {"sources": [{"kind": "folder", "path": str(docs)}], "recipe": RECIPE, "seed": 3, "workers": workers}
    whole = tmp_path / "whole"
    code, expected = finish(whole, task_in(whole, task_input))
    assert code == 0, expected
    chance = random.Random(SEED + workers)
    moments = [chance.random() for _ in range(kills)]
    print(f"seed {SEED + workers}: killed at {[round(moment, 3) for moment in moments]} of {expected['seconds']} s")
    folder = tmp_path / "killed"
    environment = task_in(folder, task_input)
    killed = [_kill_after(0.3 + moment * expected["seconds"], folder, environment, number) for moment in moments]
    assert any(killed) or _kill_at_work(folder, environment, number)
    (folder / "result.json").unlink(missing_ok=True)
    code, result = finish(folder, environment)
    assert code == 0, result
    assert result["manifest"] == expected["manifest"]
    assert shards_of(folder, result["manifest"]) == shards_of(whole, expected["manifest"])
    assert list((folder / "work").iterdir()) == []


def _kill_at_work(folder: Path, environment: dict[str, str], number: signal.Signals) -> bool:
    """Kill a run as soon as it has begun: all were over before their moments, for the first had to compile as well."""
    child = start(folder, environment)
    while child.poll() is None and not any((folder / "work").iterdir()):
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    child.communicate(timeout=WAIT_S)
    return child.returncode == -number


def _kill_after(seconds: float, folder: Path, environment: dict[str, str], number: signal.Signals) -> bool:
    """Kill the run's whole process group after so long; False if it was quicker."""
    child = start(folder, environment)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    child.communicate(timeout=WAIT_S)
    return child.returncode == -number
