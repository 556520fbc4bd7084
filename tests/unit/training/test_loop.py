"""The loop itself: exact repetition, checkpoints when they are due, and a clear end when numbers are no numbers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_training
from atoll.core.errors import Invalid
from atoll.training.engine.attempts import Diary
from atoll.training.engine.checkpoint import Checkpoints, read_checkpoint
from atoll.training.engine.examples import question_examples
from atoll.training.engine.loop import Loop, Plan
from atoll.training.engine.lora import Adapter, AdapterShape
from atoll.training.engine.model import load_base
from atoll.training.engine.order import Order
from atoll.training.engine.process import Stop
from atoll.training.engine.report import Progress
from atoll.training.recipes import Recipe


class Bench:
    """A loop over the tiny model and dataset, with its parts at hand."""

    def __init__(self, model: Path, root: Path, **recipe: Any) -> None:
        root.mkdir(exist_ok=True)
        self.recipe = Recipe.model_validate(tiny_training.RECIPE | recipe)
        base = load_base(model, "float32")
        questions = question_examples(tiny_training.question_rows(0, 20), base.tokenizer, 128)
        order = Order(questions.lengths, 128 - len(questions.prefix), [], 128, 0.0, 1)
        plan = Plan(self.recipe, self.recipe.steps or 1, order, questions, None, "one")
        self.adapter = Adapter(base, AdapterShape(4, 8.0, tuple(self.recipe.targets)), seed=1)
        self.checkpoints = Checkpoints(root / "checkpoints")
        self.diary = Diary(root / "attempts.jsonl")
        self.loop = Loop(plan, base, self.adapter, self.checkpoints, self.diary, Progress())

    def losses(self) -> list[float | None]:
        return [entry.loss for entry in self.diary.entries() if entry.loss is not None]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bench(tiny_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches, each in a folder of its own."""
    made: list[Bench] = []

    def make(**recipe: Any) -> Bench:
        made.append(Bench(tiny_folder, tmp_path / f"bench-{len(made)}", **recipe))
        return made[-1]

    yield make
    for one in made:
        one.diary.close()


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGTERM)
    yield Stop()
    signal.signal(signal.SIGTERM, before)


def test_two_runs_are_equal_to_the_bit(bench: Callable[..., Bench], stop: Stop) -> None:
    first, second = bench(), bench()
    first.loop.run(stop)
    second.loop.run(stop)
    assert first.losses() == second.losses()
    assert torch.equal(first.adapter.master, second.adapter.master)


def test_a_restored_loop_goes_on_with_the_same_bits(bench: Callable[..., Bench], stop: Stop) -> None:
    whole = bench(checkpoint_every_steps=7)
    whole.loop.run(stop)
    again = bench()
    again.loop.restore(read_checkpoint(whole.checkpoints.folder / "step-0000000007"))
    again.loop.run(stop)
    assert again.losses() == whole.losses()[7:]
    assert torch.equal(again.adapter.master, whole.adapter.master)
    assert again.loop.tokens == whole.loop.tokens
    assert again.loop.losses.result() == whole.loop.losses.result()


def test_the_end_is_always_kept(bench: Callable[..., Bench], stop: Stop) -> None:
    one = bench(steps=4, checkpoint_every_steps=100)
    one.loop.run(stop)
    assert one.checkpoints.saved_step == 4
    newest = one.checkpoints.newest()
    assert newest is not None
    assert torch.equal(newest.tensors["weights"], one.adapter.master)


def test_time_alone_makes_a_checkpoint_due(bench: Callable[..., Bench], stop: Stop) -> None:
    one = bench(checkpoint_every_steps=1000, checkpoint_every_s=1e-9)
    one.loop.run(stop)
    assert one.checkpoints.costs.to_dict()["written"] > 1


def test_numbers_that_are_none_end_the_run_and_keep_the_last_good_state(
    bench: Callable[..., Bench], stop: Stop
) -> None:
    one = bench(checkpoint_every_steps=2)
    one.loop.run(stop)
    with torch.no_grad():
        one.adapter.master.fill_(1e30)
    one.adapter.publish()
    one.loop.step = 10
    with pytest.raises(Invalid, match="diverged at step 11: loss nan") as end:
        one.loop.run(stop)
    assert end.value.field == "recipe.learning_rate"
    assert "which is 0.02" in end.value.hint
    assert max(e.step for e in one.diary.entries()) == 12
    assert one.checkpoints.saved_step == 12


def test_another_number_of_threads_is_mentioned(
    bench: Callable[..., Bench], stop: Stop, capsys: pytest.CaptureFixture[str]
) -> None:
    one = bench(steps=1)
    one.loop.run(stop)
    state = one.checkpoints.newest()
    assert state is not None
    torch.set_num_threads(2)
    one.loop.restore(state)
    assert "2 threads instead of 1" in capsys.readouterr().err
