"""Checkpoints are whole or not there, small in number, and cost the loop one copy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atoll.core.errors import IntegrityError
from atoll.training.engine.checkpoint import (
    FIGURES,
    KEPT,
    MANIFEST,
    TENSORS,
    Checkpoints,
    State,
    read_checkpoint,
    write_checkpoint,
)


def _state(step: int, size: int = 1000) -> State:
    return State(
        step, {"weights": torch.full((size,), float(step)), "mean": torch.arange(size) / 7}, {"tokens": step * 5}
    )


def _saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(_state(step))
    checkpoints.wait()
    return checkpoints


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_restored(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path, 3)
    restored = Checkpoints(tmp_path).newest()
    assert restored is not None
    assert (restored.step, restored.figures) == (3, {"tokens": 15})
    assert all(torch.equal(restored.tensors[name], tensor) for name, tensor in _state(3).tensors.items())
    assert checkpoints.saved_step == 3
    assert checkpoints.costs.to_dict()["written"] == 1


def test_it_is_a_safetensors_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _state(1))
    assert load_file(tmp_path / "step-0000000001" / TENSORS).keys() == {"weights", "mean"}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    _saved(tmp_path, 1, 2, 3, 4)
    assert _names(tmp_path) == ["step-0000000003", "step-0000000004"]
    assert KEPT == 2


def test_the_state_is_copied_before_the_loop_goes_on(tmp_path: Path) -> None:
    checkpoints, state = Checkpoints(tmp_path), _state(1, size=1_000_000)
    checkpoints.save(state)
    state.tensors["weights"].zero_()
    checkpoints.wait()
    restored = checkpoints.newest()
    assert restored is not None
    assert restored.tensors["weights"].eq(1).all()


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest", "empty manifest", "no manifest"])
def test_a_damaged_newest_one_is_passed_over_and_named(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _saved(tmp_path, 1, 2)
    _damage(tmp_path / "step-0000000002", damage)
    restored = Checkpoints(tmp_path).newest()
    assert restored is not None
    assert restored.step == 1
    assert "step-0000000002 passed over" in capsys.readouterr().err
    assert _names(tmp_path) == ["step-0000000001"]


def test_nothing_is_restored_when_all_are_damaged(tmp_path: Path) -> None:
    _saved(tmp_path, 1, 2)
    for folder in list(tmp_path.iterdir()):
        _damage(folder, "flip")
    assert Checkpoints(tmp_path).newest() is None


def test_figures_are_checked_like_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, _state(1))
    folder = tmp_path / "step-0000000001"
    (folder / FIGURES).write_bytes((folder / FIGURES).read_bytes().replace(b"5", b"6"))
    with pytest.raises(IntegrityError, match="checksum"):
        read_checkpoint(folder)


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".making-step-0000000007").mkdir()
    (tmp_path / ".making-step-0000000007" / TENSORS).write_bytes(b"half")
    assert Checkpoints(tmp_path).newest() is None
    assert _names(tmp_path) == []


def test_a_step_reached_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    _saved(tmp_path, 1, 2)
    _saved(tmp_path, 2)
    assert _names(tmp_path) == ["step-0000000001", "step-0000000002"]


def test_a_state_that_json_cannot_hold_is_an_error_of_the_next_call(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path, 1)
    checkpoints.save(State(2, _state(2).tensors, {"loss": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        checkpoints.wait()
    checkpoints.wait()
    assert _names(tmp_path) == ["step-0000000001"]
    assert checkpoints.saved_step == 1


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path, 1, 2)
    checkpoints.forget()
    assert _names(tmp_path) == []
    assert checkpoints.saved_step is None


def _damage(folder: Path, damage: str) -> None:
    tensors, manifest = folder / TENSORS, folder / MANIFEST
    data = bytearray(tensors.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        tensors.write_bytes(data)
    elif damage == "cut":
        tensors.write_bytes(data[:-1])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "manifest":
        manifest.write_text(json.dumps({"format": "another"}))
    elif damage == "empty manifest":
        manifest.write_bytes(b"")
    else:
        manifest.unlink()
