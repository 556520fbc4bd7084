"""A disk that fills up under a run: its checkpoints stay good, and it goes on once there is room."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny_training
from atoll.core.errors import ResourceExhausted
from atoll.training.engine.attempts import read_entries
from atoll.training.engine.checkpoint import Checkpoints, State

WITHIN_S = 120.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small filesystem cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_checkpoint_and_is_named(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "checkpoints")
    checkpoints.save(State(1, {"weights": torch.ones(100_000)}, {}))
    checkpoints.save(State(2, {"weights": torch.ones(200_000)}, {}))
    with pytest.raises(ResourceExhausted, match="No space left on device"):
        checkpoints.wait()
    newest = Checkpoints(small_disk / "checkpoints").newest()
    assert newest is not None
    assert newest.step == 1
    assert checkpoints.saved_step == 1
    checkpoints.save(State(3, {"weights": torch.ones(100_000)}, {}))
    checkpoints.wait()
    assert checkpoints.saved_step == 3


def test_a_run_on_a_full_disk_can_be_tried_again_and_ends_the_same(tmp_path: Path) -> None:
    recipe = {"steps": 60, "checkpoint_every_steps": 5}
    folder, task_input = tiny_training.training(tmp_path / "full", **recipe)
    folder.prepare(task_input)
    deadline = time.monotonic() + WITHIN_S
    with folder.start() as process:
        while not any(entry.step >= 6 for entry in read_entries(tmp_path / "full" / "work" / "attempts.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline, folder.log
            time.sleep(0.001)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        assert process.wait(WITHIN_S) == 1
    assert "File too large" in folder.log
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    assert result["resumed_from_steps"][0] >= 0
    whole, whole_input = tiny_training.training(tmp_path / "whole", **recipe)
    assert result["adapter"] == whole.run(whole_input, WITHIN_S)[1]["adapter"]
