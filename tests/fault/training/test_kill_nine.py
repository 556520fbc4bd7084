"""kill -9 of the trainer at any moment: the restarted run ends with the very same adapter."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_training
from atoll.training.engine.attempts import STARTED, Entry, read_entries
from atoll.training.engine.checkpoint import TENSORS, Checkpoints, State
from task_folder import TaskFolder

WITHIN_S = 120.0
STEPS = 80
RECIPE = {"steps": STEPS, "checkpoint_every_steps": 7}


def _entries(folder: TaskFolder) -> list[Entry]:
    return read_entries(folder.root / "work" / "attempts.jsonl")


def _losses(folder: TaskFolder) -> list[tuple[int, float]]:
    return [(entry.step, entry.loss) for entry in _entries(folder) if entry.loss is not None]


def _kill_when(folder: TaskFolder, claim: Callable[[list[Entry]], bool]) -> int:
    """Start the trainer and kill it once its diary says so; the steps it had completed, perhaps more by then."""
    deadline = time.monotonic() + WITHIN_S
    with folder.start() as process:
        while True:
            has_ended = process.poll() is not None
            if claim(_entries(folder)):
                break
            assert not has_ended, f"ended with {process.returncode} too early: {folder.log}"
            assert time.monotonic() < deadline, "the moment to kill it did not come"
            time.sleep(0.001)
        process.kill()
    return max(entry.step for entry in _entries(folder))


def _reached(step: int, attempt: int = 1) -> Callable[[list[Entry]], bool]:
    return lambda entries: any(entry.attempt == attempt and entry.step >= step for entry in entries)


def _begun(attempt: int) -> Callable[[list[Entry]], bool]:
    return lambda entries: any(entry.attempt == attempt and entry.step == STARTED for entry in entries)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, float], dict[str, Any]]:
    """The loss of each step, and the result, of a run that nobody disturbed."""
    folder, task_input = tiny_training.training(tmp_path_factory.mktemp("unbroken"), **RECIPE)
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    return dict(_losses(folder)), result


def _assert_same_end(
    folder: TaskFolder, result: dict[str, Any], unbroken: tuple[dict[int, float], dict[str, Any]]
) -> None:
    """Every step of every attempt had the undisturbed run's loss, to the bit, and so has the end."""
    losses, expected = unbroken
    assert {step: loss for step, loss in _losses(folder) if loss != losses[step]} == {}
    assert {step for step, _ in _losses(folder)} == set(range(1, STEPS + 1))
    for name in ("adapter", "peft", "loss", "tokens", "steps"):
        assert result[name] == expected[name], name


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, unbroken: tuple[dict[int, float], dict[str, Any]]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    moments = sorted(random.Random(seed).sample(range(1, STEPS), 3))
    print(f"seed {seed}: killed at {moments}")
    folder, task_input = tiny_training.training(tmp_path, **RECIPE)
    folder.prepare(task_input)
    completed = [_kill_when(folder, _reached(step, attempt)) for attempt, step in enumerate(moments, 1)]
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    _assert_same_end(folder, result, unbroken)
    assert result["restarts"] == 3
    assert len(result["resumed_from_steps"]) == 3
    assert all(resumed <= step for resumed, step in zip(result["resumed_from_steps"], completed, strict=True))
    assert 0 < result["lost_s"] < result["seconds"]


def test_a_run_killed_while_it_starts_and_while_it_ends_loses_nothing(
    tmp_path: Path, unbroken: tuple[dict[int, float], dict[str, Any]]
) -> None:
    folder, task_input = tiny_training.training(tmp_path, **RECIPE)
    folder.prepare(task_input)
    _kill_when(folder, _begun(1))
    _kill_when(folder, _reached(STEPS, attempt=2))
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    _assert_same_end(folder, result, unbroken)


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(
    tmp_path: Path, unbroken: tuple[dict[int, float], dict[str, Any]]
) -> None:
    folder, task_input = tiny_training.training(tmp_path, **RECIPE)
    folder.prepare(task_input)
    checkpoints, is_there = tmp_path / "work" / "checkpoints", _reached(30)
    _kill_when(folder, lambda entries: is_there(entries) and len(list(checkpoints.glob("step-*"))) > 1)
    newest = max(path for path in checkpoints.glob("step-*"))
    data = bytearray((newest / TENSORS).read_bytes())
    data[-1] ^= 0x80
    (newest / TENSORS).write_bytes(data)
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    assert f"checkpoint {newest.name} passed over" in folder.log
    assert result["resumed_from_steps"][0] < int(newest.name.removeprefix("step-"))
    _assert_same_end(folder, result, unbroken)


def test_a_checkpoint_in_another_folder_of_work_is_not_mistaken_for_ones_own(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path, steps=3)
    assert folder.run(task_input, WITHIN_S)[0] == 0, folder.log
    code, result = folder.run(task_input | {"seed": 2}, WITHIN_S)
    assert code == 0, folder.log
    assert "starting over" in folder.log
    assert result["resumed_from_steps"] == [0]


WRITER = """
import sys, torch
from pathlib import Path
from atoll.training.engine.checkpoint import Checkpoints, State
checkpoints = Checkpoints(Path(sys.argv[1]))
newest = checkpoints.newest()
step = newest.step if newest else 0
print("ready", flush=True)
while True:
    step += 1
    checkpoints.save(State(step, {"weights": torch.full((200_000,), float(step))}, {"step": step}))
"""


def test_a_writer_killed_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    delays_s = [random.Random(seed + i).uniform(0.02, 0.3) for i in range(5)]
    print(f"seed {seed}: killed after {delays_s}")
    last = 0
    for killed, delay_s in enumerate(delays_s, 1):
        command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(delay_s)
            while killed == len(delays_s) and not list(tmp_path.glob("step-*")):
                assert process.poll() is None  # on a slow disk the delays are too short for the first one
            process.kill()
        assert len(list(tmp_path.glob("step-*"))) <= 2 + killed, "each kill may come before the oldest is removed"
        newest = Checkpoints(tmp_path).newest()
        if newest is not None:
            assert newest.step >= last
            assert newest.figures == {"step": newest.step}
            assert newest.tensors["weights"].eq(float(newest.step)).all()
            last = newest.step
    assert last > 0
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(State(last + 1, {"weights": torch.ones(1)}, {}))
    checkpoints.wait()
    assert len(list(tmp_path.glob("step-*"))) == 2
