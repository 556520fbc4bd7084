"""A fine-tuning run from its input to its result: prepare, restore, learn, measure, export.

Importing this loads torch, so `process.settle` must have run.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.files import write_json
from atoll.core.task import blobs_url, cache_dir, task_dir, work_dir
from atoll.data.manifest import read_split
from atoll.models.engine.local import verified_file
from atoll.training.engine.attempts import Diary, lost_s, resumed_steps
from atoll.training.engine.checkpoint import Checkpoints, State
from atoll.training.engine.convert import check_base, converted
from atoll.training.engine.examples import Examples, chosen_rows, question_examples, text_examples
from atoll.training.engine.export import heads_of, write_gguf, write_peft
from atoll.training.engine.inputs import TrainInput
from atoll.training.engine.loop import Loop, Plan
from atoll.training.engine.lora import Adapter, AdapterShape, peft_config
from atoll.training.engine.measure import measure
from atoll.training.engine.model import Base, fast_precision, load_base, load_tokenizer
from atoll.training.engine.order import Order
from atoll.training.engine.process import Stop, Stopped, thread_count
from atoll.training.engine.report import Progress
from atoll.training.recipes import STEPS_DEFAULT, Recipe

NOT_LEARNING = {"threads", "checkpoint_every_steps", "checkpoint_every_s", "precision", "heldout_rows"}
"""Recipe fields that do not change what is learned, so a checkpoint stays good when they change."""


class Run:
    """One attempt at a fine-tuning run."""

    def __init__(self, wanted: TrainInput, diary: Diary, stop: Stop) -> None:
        self._wanted, self._diary, self._stop = wanted, diary, stop
        self._store = BlobStore(blobs_url())
        self._progress = Progress()
        torch.set_num_threads(thread_count(wanted.recipe.threads))

    def train(self) -> dict[str, Any]:
        """Do what is still to be done and return the result; Invalid for a base, data or recipe that is wrong."""
        self._progress.tell("prepare", 0, None, "", "preparing the base model and the data")
        folder, plan, heldout = self._prepared()
        checkpoints = Checkpoints(work_dir() / "checkpoints")
        state = _usable(checkpoints, plan.identity)
        base = load_base(folder, _precision(self._wanted.recipe, state))
        recipe = self._wanted.recipe
        adapter = Adapter(base, AdapterShape(recipe.rank, recipe.alpha, tuple(recipe.targets)), self._wanted.seed)
        loop = Loop(plan, base, adapter, checkpoints, self._diary, self._progress)
        try:
            self._learn(loop, state, base, heldout)
        except Stopped:
            if loop.step:
                loop.save()
            raise
        return self._result(loop, base, adapter, checkpoints)

    def _learn(self, loop: Loop, state: State | None, base: Base, heldout: Examples | None) -> None:
        self._stop.watch()
        if state is not None:
            loop.restore(state)
        else:
            loop.losses.heldout_before = self._checked(self._measured("measure before", loop, base, heldout))
            loop.save()
        self._diary.resume(loop.step)
        loop.run(self._stop)
        loop.losses.heldout_after = self._measured("measure after", loop, base, heldout)

    def _checked(self, loss: float | None) -> float | None:
        if loss is not None and not math.isfinite(loss):
            what = f"the base model {self._wanted.base.name} has a held-out loss of {loss}"
            raise Invalid(what, field="base", hint="its weights are damaged; import it again")
        return loss

    def _prepared(self) -> tuple[Path, Plan, Examples | None]:
        """The converted base, what is learned and what is measured; what is wrong is found before the long work."""
        base, cache = self._wanted.base, cache_dir()
        path = verified_file(self._store, base.digest, cache, self._verifying)
        check_base(path, base.name)
        rows = self._rows("qa_train")
        if not rows:
            raise Invalid("the dataset has no question to learn from", field="dataset", hint="curate other documents")
        folder = converted(path, base.name, base.digest, cache)
        tokenizer = load_tokenizer(folder)
        return folder, self._plan(tokenizer, rows), self._heldout(tokenizer)

    def _rows(self, split: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_split(self._store, self._wanted.dataset, split).to_pylist()
        return rows

    def _verifying(self, done: int, total: int) -> None:
        self._progress.tell("verify", done, total, "byte")

    def _plan(self, tokenizer: Any, rows: list[dict[str, Any]]) -> Plan:
        recipe, length = self._wanted.recipe, self._wanted.recipe.sequence_length
        questions = question_examples(rows, tokenizer, length)
        texts = None
        if recipe.text_share:
            texts = text_examples([row["text"] for row in self._rows("train")], tokenizer, length)
        order = Order(
            questions.lengths,
            length - len(questions.prefix),
            texts.lengths if texts else [],
            length,
            recipe.text_share,
            self._wanted.seed,
        )
        return Plan(recipe, _steps(recipe, order), order, questions, texts, _identity(self._wanted))

    def _heldout(self, tokenizer: Any) -> Examples | None:
        recipe = self._wanted.recipe
        rows = self._rows("qa_heldout") if recipe.heldout_rows else []
        chosen = [rows[i] for i in chosen_rows(len(rows), recipe.heldout_rows, self._wanted.seed)]
        return question_examples(chosen, tokenizer, recipe.sequence_length) if chosen else None

    def _measured(self, stage: str, loop: Loop, base: Base, heldout: Examples | None) -> float | None:
        if heldout is None:
            return None

        def report(done: int, total: int) -> None:
            self._stop.check()
            self._progress.tell(stage, done, total, "sequence")

        return measure(base, loop.head, heldout, loop.layout, report).loss

    def _result(self, loop: Loop, base: Base, adapter: Adapter, checkpoints: Checkpoints) -> dict[str, Any]:
        entries = self._diary.entries()
        return {
            **self._exported(base, adapter),
            "steps": loop.step,
            "restarts": self._diary.restarts,
            "lost_s": round(lost_s(entries), 3),
            "resumed_from_steps": resumed_steps(entries),
            "loss": loop.losses.result(),
            "tokens": loop.tokens,
            "tokens_per_s": self._progress.figures.get("tokens_per_s"),
            "seconds": round(self._diary.elapsed_s(), 3),
            "precision": base.precision,
            "threads": torch.get_num_threads(),
            "memory_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "checkpoints": checkpoints.costs.to_dict(),
        }

    def _exported(self, base: Base, adapter: Adapter) -> dict[str, Any]:
        """Write the adapter in both forms and store them."""
        folder, matrices, config = task_dir(), adapter.matrices(), peft_config(adapter)
        write_gguf(folder / "adapter.gguf", matrices, adapter.shape, heads_of(base.causal.config))
        write_peft(folder / "adapter_model.safetensors", matrices)
        write_json(folder / "adapter_config.json", config)
        return {
            "adapter": self._stored(folder / "adapter.gguf"),
            "peft": self._stored(folder / "adapter_model.safetensors"),
            "peft_config": self._stored(folder / "adapter_config.json"),
        }

    def _stored(self, path: Path) -> dict[str, Any]:
        blob = self._store.put_file(path)
        return {"name": path.name, "digest": blob.digest, "size_bytes": blob.size_bytes}


def _steps(recipe: Recipe, order: Order) -> int:
    if recipe.epochs is None:
        return recipe.steps or STEPS_DEFAULT
    return max(1, math.ceil(recipe.epochs * order.epoch_length() / (recipe.batch_tokens // recipe.sequence_length)))


def _identity(wanted: TrainInput) -> str:
    """A name for all that decides what is learned."""
    recipe = wanted.recipe.model_dump(mode="json", exclude=NOT_LEARNING)
    parts = [wanted.base.digest, wanted.dataset, recipe, wanted.seed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _usable(checkpoints: Checkpoints, identity: str) -> State | None:
    """The newest whole checkpoint of this very run."""
    state = checkpoints.newest()
    if state is not None and state.figures.get("identity") != identity:
        sys.stderr.write("the checkpoints found are of another base, dataset, recipe or seed; starting over\n")
        checkpoints.forget()
        return None
    return state


def _precision(recipe: Recipe, state: State | None) -> str:
    """A restored run keeps the precision it began with, whatever this processor is good at."""
    if state is not None:
        return str(state.figures["precision"])
    return fast_precision() if recipe.precision == "auto" else recipe.precision
