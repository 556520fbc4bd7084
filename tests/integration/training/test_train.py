"""The training engine as an agent runs it: a child in a task directory, from its input to its result."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import tiny_gguf
import tiny_training
from atoll.core.blobs import BlobStore
from atoll.training.engine.attempts import Entry, read_entries
from atoll.training.engine.process import STOPPED
from task_folder import TaskFolder

WITHIN_S = 120.0


def _entries(folder: TaskFolder) -> list[Entry]:
    return read_entries(folder.root / "work" / "attempts.jsonl")


def _wait_until(claim: Callable[[], object], process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not claim():
        assert process.poll() is None, f"ended with {process.returncode} before {what}"
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {what}"
        time.sleep(0.005)


def _error(folder: TaskFolder, task_input: dict[str, Any]) -> dict[str, Any]:
    """The permanent error the task ends with."""
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 3, folder.log
    return dict(result["error"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFolder, dict[str, Any], dict[str, Any]]:
    """A finished run: its folder, its input and its result."""
    folder, task_input = tiny_training.training(tmp_path_factory.mktemp("trained"), steps=30)
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    return folder, task_input, result


def test_a_run_leaves_an_adapter_and_its_figures(trained: tuple[TaskFolder, dict[str, Any], dict[str, Any]]) -> None:
    folder, _, result = trained
    for name in ("adapter", "peft", "peft_config"):
        assert folder.store.size_bytes(result[name]["digest"]) == result[name]["size_bytes"]
    assert result["adapter"]["name"] == "adapter.gguf"
    assert (result["steps"], result["restarts"], result["lost_s"], result["resumed_from_steps"]) == (30, 0, 0.0, [])
    loss = result["loss"]
    assert loss["train_last"] < loss["train_first"]
    assert loss["heldout_after"] < loss["heldout_before"]
    assert result["tokens"] > 30 * 128
    assert result["checkpoints"]["stall_ms_max"] >= result["checkpoints"]["stall_ms_mean"] > 0
    assert result["seconds"] > 0


def test_a_run_tells_how_far_it_is(trained: tuple[TaskFolder, dict[str, Any], dict[str, Any]]) -> None:
    progress = trained[0].read("progress.json")
    assert progress is not None
    assert progress["stage"] == "measure after"
    assert progress["done"] == progress["total"]
    assert progress["loss"] < progress["heldout_loss"]
    assert progress["checkpoint_step"] > 0
    assert progress["tokens_per_s"] > 0


def test_every_step_is_in_the_diary(trained: tuple[TaskFolder, dict[str, Any], dict[str, Any]]) -> None:
    steps = [entry.step for entry in _entries(trained[0]) if entry.loss is not None]
    assert steps == list(range(1, 31))


@pytest.mark.parametrize(("min_drop", "passed"), [(0.05, True), (0.99, False)])
def test_the_gate_judges_the_file_that_is_served(
    trained: tuple[TaskFolder, dict[str, Any], dict[str, Any]], min_drop: float, passed: bool
) -> None:
    folder, task_input, result = trained
    judge = TaskFolder(folder.root, tiny_training.EVALUATE)
    gate = {"metric": "heldout_loss", "min_drop": min_drop}
    wanted = {"base": task_input["base"], "adapter": result["adapter"], "dataset": task_input["dataset"]}
    code, verdict = judge.run(wanted | {"split": "qa_heldout", "gate": gate, "max_rows": 8, "seed": 1}, WITHIN_S)
    assert code == 0, judge.log
    assert verdict["gate"]["passed"] is passed
    assert verdict["metrics"]["base"]["tokens"] == verdict["metrics"]["tuned"]["tokens"] > 0
    measured = result["loss"]["heldout_before"], result["loss"]["heldout_after"]
    judged = verdict["metrics"]["base"]["loss"], verdict["metrics"]["tuned"]["loss"]
    assert judged == pytest.approx(measured, rel=0.02)
    assert verdict["drop"] == pytest.approx(1 - judged[1] / judged[0])


def test_plain_text_can_be_measured_and_learned_too(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path, steps=4, text_share=0.5, heldout_rows=0)
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    assert result["loss"]["heldout_before"] is None
    judge = TaskFolder(tmp_path, tiny_training.EVALUATE)
    wanted = {"base": task_input["base"], "adapter": None, "dataset": task_input["dataset"], "split": "heldout"}
    code, verdict = judge.run(wanted, WITHIN_S)
    assert code == 0, judge.log
    assert verdict["drop"] == 0.0
    assert "gate" not in verdict


def test_told_to_stop_it_keeps_its_state_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    recipe = {"steps": 60, "precision": "bfloat16", "checkpoint_every_steps": 1000, "checkpoint_every_s": 1000.0}
    folder, task_input = tiny_training.training(tmp_path / "stopped", **recipe)
    folder.prepare(task_input)
    with folder.start() as process:
        _wait_until(lambda: any(e.step >= 5 for e in _entries(folder)), process, "step 5")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == STOPPED, folder.log
    stopped_at = _entries(folder)[-1].step
    assert stopped_at < 60
    code, result = folder.run(task_input, WITHIN_S)
    assert code == 0, folder.log
    assert result["resumed_from_steps"] == [stopped_at]
    assert result["restarts"] == 1
    whole, whole_input = tiny_training.training(tmp_path / "whole", **recipe)
    code, unbroken = whole.run(whole_input, WITHIN_S)
    assert code == 0, whole.log
    assert result["adapter"] == unbroken["adapter"]
    assert result["loss"] == unbroken["loss"]
    assert result["tokens"] == unbroken["tokens"]


def test_a_base_with_damaged_weights_is_not_trained(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path)
    path = tiny_gguf.write_model(tmp_path / "nan.gguf")
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        tensor.data[...] = np.nan
    broken = {"name": path.name, "digest": folder.store.put_file(path).digest}
    error = _error(folder, task_input | {"base": {"files": [broken], "format": "gguf"}})
    assert error["details"]["field"] == "base"
    assert "nan.gguf has a held-out loss of nan" in error["message"]


def test_a_dataset_without_questions_is_refused(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path)
    empty = tiny_training.write_dataset(folder.store, questions=0)
    error = _error(folder, task_input | {"dataset": empty})
    assert (error["code"], error["details"]["field"]) == ("invalid", "dataset")


def test_a_base_of_another_vocabulary_is_refused_before_it_is_converted(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path)
    data = tiny_gguf.write_model(tmp_path / "other.gguf").read_bytes().replace(b"gpt2", b"bert", 1)
    other = {"name": "other.gguf", "digest": BlobStore(folder.store.url).put_bytes(data).digest}
    error = _error(folder, task_input | {"base": {"files": [other], "format": "gguf"}})
    assert "other.gguf: tokenizer.ggml.model is 'bert'" in error["message"]
    assert not (tmp_path / "cache" / "bases").exists()


def test_an_impossible_recipe_is_refused_by_field(tmp_path: Path) -> None:
    folder, task_input = tiny_training.training(tmp_path, rank=0)
    assert _error(folder, task_input)["details"]["field"] == "recipe.rank"
