"""The engine as an agent starts it: a child process in a task directory."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from atoll.core.blobs import BlobStore
from atoll.data.manifest import read_manifest

WAIT_S = 120
STAGES = ["read", "annotate", "deduplicate", "write"]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(3000):
        words = " ".join(f"word{number * 31 + place}" for place in range(60))
        (folder / f"{number:04d}.txt").write_text(f"Document {number} says. {words}. {words[:200]}.")
    return folder


def _task(folder: Path, task_input: dict[str, Any]) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps(task_input))
    own = {"ATOLL_TASK_DIR": folder, "ATOLL_BLOBS": folder / "blobs", "ATOLL_WORK": folder / "work"}
    return {**os.environ, **{name: str(path) for name, path in own.items()}}


def _start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-m", "atoll.data.engine.run"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)


def _finish(folder: Path, environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    child = _start(folder, environment)
    child.communicate(timeout=WAIT_S)
    return child.returncode, json.loads((folder / "result.json").read_text())


def _stage(progress: Path) -> int:
    return STAGES.index(json.loads(progress.read_text())["stage"])


def _kill_in_stage(stage: str, folder: Path, environment: dict[str, str]) -> bool:
    """Kill the engine as soon as it reports `stage` or a later one; False if it was quicker."""
    progress = folder / "progress.json"
    progress.unlink(missing_ok=True)
    child = _start(folder, environment)
    until = time.monotonic() + WAIT_S
    while child.poll() is None and time.monotonic() < until:
        if progress.exists() and _stage(progress) >= STAGES.index(stage):
            child.send_signal(signal.SIGKILL)
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.002)
    child.communicate(timeout=WAIT_S)
    return child.returncode == -signal.SIGKILL


def test_a_run_killed_in_any_stage_ends_with_the_same_dataset_when_started_again(docs: Path, tmp_path: Path) -> None:
    task_input = {"sources": [{"kind": "folder", "path": str(docs)}], "recipe": {}, "seed": 3}
    whole = tmp_path / "whole"
    code, expected = _finish(whole, _task(whole, task_input))
    assert code == 0
    folder = tmp_path / "killed"
    environment = _task(folder, task_input)
    killed = [_kill_in_stage(stage, folder, environment) for stage in STAGES[:3]]
    assert any(killed)
    (folder / "result.json").unlink(missing_ok=True)
    code, result = _finish(folder, environment)
    assert code == 0
    assert {**result, "seconds": 0} == {**expected, "seconds": 0}
    assert read_manifest(BlobStore(str(folder / "blobs")), result["manifest"]).counts == expected["counts"]
    assert list((folder / "work").iterdir()) == []


def test_a_wrong_input_is_a_permanent_failure_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    code, result = _finish(folder, _task(folder, {"sources": [{"kind": "folder", "path": str(tmp_path / "no")}]}))
    assert code == 3
    assert result["error"]["code"] == "invalid"
    assert result["error"]["details"]["field"] == "sources[0].path"
    assert list(BlobStore(str(folder / "blobs")).digests()) == []
