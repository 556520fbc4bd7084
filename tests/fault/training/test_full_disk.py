"""A disk that fills up under a run: its checkpoints stay good, and it goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny_training
from atoll.core.errors import ResourceExhausted
from atoll.training.engine.checkpoint import Checkpoints, State
from task_folder import TaskFolder

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


DISK_FULL_AT_STEP_6 = """
import resource
from atoll.core import task
from atoll.training.engine.attempts import Diary
from atoll.training.engine.main import train

complete = Diary.complete

def complete_and_fill(diary, step, loss):
    complete(diary, step, loss)
    if step == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

Diary.complete = complete_and_fill
task.run(train)
"""


def test_a_run_on_a_full_disk_can_be_tried_again_and_ends_the_same(tmp_path: Path) -> None:
    """The trainer itself fills it: who watched from outside might come too late."""
    recipe = {"steps": 60, "checkpoint_every_steps": 5}
    folder, task_input = tiny_training.training(tmp_path / "full", **recipe)
    (tmp_path / "trainer_on_a_full_disk.py").write_text(DISK_FULL_AT_STEP_6)
    full = TaskFolder(folder.root, "trainer_on_a_full_disk")
    full.prepare(task_input)
    with full.start(PYTHONPATH=str(tmp_path)) as process:
        assert process.wait(WITHIN_S) == 1, folder.log
    assert "File too large" in folder.log
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    assert result["resumed_from_steps"][0] >= 0
    whole, whole_input = tiny_training.training(tmp_path / "whole", **recipe)
    assert result["adapter"] == whole.run(whole_input, WITHIN_S)[1]["adapter"]
