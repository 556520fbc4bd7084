"""The training loop: read it from `Loop.run` down.

All that a step depends on is the state of the last checkpoint and the step's number: the examples, the learning rate
and every other choice are functions of the seed and the step. So a run that was killed goes on exactly as if it had
not been, on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch

from atoll.core.errors import Invalid
from atoll.training.engine.attempts import Diary
from atoll.training.engine.batches import answer_tokens, layout_of, micro_batches
from atoll.training.engine.checkpoint import Checkpoints, State
from atoll.training.engine.examples import Examples
from atoll.training.engine.lora import Adapter
from atoll.training.engine.loss import AnswerHead
from atoll.training.engine.measure import hidden_states
from atoll.training.engine.model import Base
from atoll.training.engine.optimiser import Optimiser
from atoll.training.engine.order import Order
from atoll.training.engine.process import Stop
from atoll.training.engine.report import LossRecord, Progress
from atoll.training.engine.schedule import learning_rate
from atoll.training.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """What is learned: `steps` steps over `order`, drawn from the examples. `identity` names all of it and the base."""

    recipe: Recipe
    steps: int
    order: Order
    questions: Examples
    texts: Examples | None
    identity: str

    @property
    def sequences_per_step(self) -> int:
        return self.recipe.batch_tokens // self.recipe.sequence_length


class Loop:
    """One attempt at a run: starts at step 0 or where `restore` puts it."""

    def __init__(
        self, plan: Plan, base: Base, adapter: Adapter, checkpoints: Checkpoints, diary: Diary, progress: Progress
    ) -> None:
        self.head = AnswerHead(base.causal.lm_head.weight)
        self.layout = layout_of(plan.recipe.sequence_length, plan.recipe.micro_batch_tokens, base.dtype)
        self.losses = LossRecord({})
        self.step = 0
        self.tokens = 0
        self._plan, self._base, self._adapter = plan, base, adapter
        self._optimiser = Optimiser(adapter.master, plan.recipe.weight_decay)
        self._checkpoints, self._diary, self._progress = checkpoints, diary, progress
        self._saved_at = time.monotonic()

    def restore(self, state: State) -> None:
        """Stand where the checkpoint was taken."""
        assert state.figures["identity"] == self._plan.identity, "a checkpoint of another run"
        with torch.no_grad():
            self._adapter.master.copy_(state.tensors["weights"])
        self._adapter.publish()
        self._optimiser.restore(state.step, state.tensors["mean"], state.tensors["square"])
        self.losses = LossRecord(state.figures)
        self.step, self.tokens = state.step, state.figures["tokens"]
        if state.figures["threads"] != torch.get_num_threads():
            before, now = state.figures["threads"], torch.get_num_threads()
            sys.stderr.write(f"computing with {now} threads instead of {before}: the last bits may differ\n")

    def run(self, stop: Stop) -> None:
        """Learn all remaining steps. `Stopped` leaves the last completed step as the state; Invalid: it diverged."""
        while self.step < self._plan.steps:
            loss = self._learn(stop)
            self.step += 1
            self.losses.add(loss)
            self._diary.complete(self.step, loss)
            self._save_if_due()
            self._tell(loss)
        self.save()

    def save(self) -> None:
        """Have the present state on disk when this returns."""
        if self._checkpoints.saved_step != self.step:
            self._checkpoints.save(self._state())
            self._checkpoints.wait()

    def _learn(self, stop: Stop) -> float:
        """One optimiser step; returns its mean loss per learned token."""
        plan, gradient = self._plan, self._adapter.master.grad
        assert gradient is not None
        sequences = plan.order.sequences(self.step * plan.sequences_per_step, plan.sequences_per_step)
        learned = answer_tokens(sequences, plan.questions, plan.texts)
        gradient.zero_()
        loss_sum, tokens = 0.0, 0
        for batch in micro_batches(sequences, plan.questions, plan.texts, self.layout):
            stop.check()
            loss = self.head.loss_sum(hidden_states(self._base, batch), batch.targets) / learned
            loss.backward()  # type: ignore[no-untyped-call]
            self._adapter.gather_gradient()
            loss_sum += loss.item()
            tokens += batch.tokens
        self._update(gradient, loss_sum)
        self.tokens += tokens
        self._progress.count_tokens(tokens)
        return loss_sum

    def _update(self, gradient: torch.Tensor, loss: float) -> None:
        recipe = self._plan.recipe
        norm = float(gradient.norm())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"training diverged at step {self.step + 1}: loss {loss}, gradient norm {norm}"
            hint = f"lower recipe.learning_rate, which is {recipe.learning_rate:g}"
            raise Invalid(what, field="recipe.learning_rate", hint=hint, step=self.step + 1)
        if norm > recipe.gradient_norm_max:
            gradient.mul_(recipe.gradient_norm_max / norm)
        self._optimiser.step(learning_rate(self.step, self._plan.steps, recipe))
        self._adapter.publish()

    def _save_if_due(self) -> None:
        recipe, age_s = self._plan.recipe, time.monotonic() - self._saved_at
        is_due = self.step % recipe.checkpoint_every_steps == 0 or age_s >= recipe.checkpoint_every_s
        if is_due and not self._checkpoints.is_writing:
            self._checkpoints.save(self._state())
            self._saved_at = time.monotonic()

    def _state(self) -> State:
        figures = {
            "identity": self._plan.identity,
            "precision": self._base.precision,
            "threads": torch.get_num_threads(),
            "tokens": self.tokens,
            **self.losses.figures(),
        }
        return State(self.step, {"weights": self._adapter.master, **self._optimiser.moments()}, figures)

    def _tell(self, loss: float) -> None:
        heldout = self.losses.heldout_before
        self._progress.figures |= {"loss": round(loss, 5), "checkpoint_step": self._checkpoints.saved_step or 0}
        self._progress.figures |= {"heldout_loss": heldout} if heldout is not None else {}
        self._progress.tell("train", self.step, self._plan.steps, "step")
