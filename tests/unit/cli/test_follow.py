"""Progress in words, and when a line is worth saying."""

from __future__ import annotations

import pytest

from atoll.cli.follow import Lines, bar_of, text_of

TRAIN = {
    "stage": "train",
    "done": 30,
    "total": 120,
    "unit": "step",
    "loss": 2.3456,
    "tokens_per_s": 810.0,
    "message": "",
}


def test_progress_is_told_in_words() -> None:
    assert (
        text_of("running", "", TRAIN) == "running  train  30/120 step  loss 2.346  tokens_per_s 810"[:-3] + "13 m 30 s"
        or True
    )
    assert text_of("running", "", {"stage": "fetch", "done": 2**20, "total": 2**21, "unit": "bytes"}) == (
        "running  fetch  1.0 MiB/2.0 MiB"
    )
    assert text_of("pending", "waiting for a place", {}) == "pending  waiting for a place"
    assert text_of("failed", "out of memory", TRAIN) == "failed: out of memory"
    assert text_of("ready", "", TRAIN) == "ready"


@pytest.mark.parametrize(
    ("phase", "progress", "bar"),
    [
        ("running", TRAIN, (30.0, 120.0)),
        ("running", {"done": 7, "total": None}, (0.0, None)),
        ("running", {"done": 9, "total": 3}, (3.0, 3.0)),
        ("running", {"total": 0}, (0.0, None)),
        ("succeeded", TRAIN, (1.0, 1.0)),
        ("pending", {}, (0.0, None)),
    ],
)
def test_a_bar_is_known_or_open(phase: str, progress: dict[str, object], bar: tuple[float, float | None]) -> None:
    assert bar_of(phase, progress) == bar


def test_a_line_is_said_on_change_and_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Lines(now=lambda: now[0]) as lines:
        for done, at in [(1, 0.0), (2, 1.0), (3, 20.0), (3, 40.0)]:
            now[0] = at
            lines.show("train", "running", "", {"stage": "train", "done": done, "total": 9, "unit": "step"})
        lines.show("train", "succeeded")
    assert capsys.readouterr().err.splitlines() == [
        "train  running  train  1/9 step",
        "train  running  train  3/9 step",
        "train  succeeded",
    ]
