"""Progress is told sparingly but never loses its ends; the losses of a result are means."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.training.engine.report import LOSSES_KEPT, LossRecord, Progress


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    yield tmp_path / "progress.json"


def test_progress_is_told_twice_a_second_at_most_but_its_ends_always(told: Path) -> None:
    now = [100.0]
    progress, seen = Progress(lambda: now[0]), []
    for step in range(1, 11):
        progress.figures["loss"] = step / 10
        progress.tell("train", step, 10, "step")
        seen.append(json.loads(told.read_bytes()))
        now[0] += 0.2
    assert [value["done"] for value in seen] == [1, 1, 1, 4, 4, 4, 7, 7, 7, 10]
    assert seen[-1] == {"stage": "train", "done": 10, "total": 10, "unit": "step", "message": "", "loss": 1.0}
    progress.tell("export", 0, None, "")
    assert json.loads(told.read_bytes())["stage"] == "export"


def test_speed_is_that_of_the_last_seconds() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    for tokens in [1000] * 30 + [100] * 30:
        progress.count_tokens(tokens)
        now[0] += 1.0
    assert progress.figures["tokens_per_s"] == pytest.approx(100.0)


def test_a_loss_record_goes_on_from_its_figures() -> None:
    losses = [float(n) for n in range(20)]
    whole, first = LossRecord({}), LossRecord({})
    for loss in losses:
        whole.add(loss)
    for loss in losses[:7]:
        first.add(loss)
    second = LossRecord(first.figures())
    for loss in losses[7:]:
        second.add(loss)
    assert second.result() == whole.result()
    assert whole.result()["train_first"] == sum(losses[:LOSSES_KEPT]) / LOSSES_KEPT
    assert whole.result()["train_last"] == sum(losses[-LOSSES_KEPT:]) / LOSSES_KEPT
