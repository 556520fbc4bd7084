"""Measuring base and tuned model on the same held-out rows, in one process. Importing this loads torch."""

from __future__ import annotations

from typing import Any

import torch

from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.task import blobs_url, cache_dir
from atoll.data.manifest import read_split
from atoll.models.engine.local import verified_file
from atoll.training.engine.batches import layout_of
from atoll.training.engine.convert import converted
from atoll.training.engine.examples import Examples, chosen_rows, question_examples, text_examples
from atoll.training.engine.export import heads_of, read_gguf
from atoll.training.engine.inputs import EvaluateInput
from atoll.training.engine.lora import Adapter
from atoll.training.engine.loss import AnswerHead
from atoll.training.engine.measure import measure
from atoll.training.engine.model import Base, fast_precision, load_base
from atoll.training.engine.process import thread_count
from atoll.training.engine.report import Progress

SEQUENCE_LENGTH = 256
TOKENS_MAX = 1024
TEXT_TOKENS_MAX = 1024
"""Of each plain text only so many tokens are measured."""


def measured(wanted: EvaluateInput) -> dict[str, Any]:
    """Loss, perplexity and token count of `base` and `tuned`; without an adapter both are the base's."""
    torch.set_num_threads(thread_count(None))
    store, cache, progress = BlobStore(blobs_url()), cache_dir(), Progress()
    progress.tell("prepare", 0, None, "", "preparing the base model and the data")
    rows = chosen(store, wanted)
    source = verified_file(store, wanted.base.digest, cache, lambda done, total: None)
    base = load_base(converted(source, wanted.base.name, wanted.base.digest, cache), fast_precision())
    examples = _examples(rows, base, wanted.split)
    head = AnswerHead(base.causal.lm_head.weight)
    layout = layout_of(SEQUENCE_LENGTH, TOKENS_MAX, base.dtype)

    def loss_of(stage: str) -> dict[str, Any]:
        def report(done: int, total: int) -> None:
            progress.tell(stage, done, total, "sequence")

        return measure(base, head, examples, layout, report).to_dict()

    adapter = _adapter(store, base, wanted)
    if adapter is None:
        metrics = loss_of("base")
        return {"base": metrics, "tuned": metrics}
    with adapter.disabled():
        of_base = loss_of("base")
    return {"base": of_base, "tuned": loss_of("tuned")}


def chosen(store: BlobStore, wanted: EvaluateInput) -> list[dict[str, Any]]:
    """The rows that are measured, always the same for the same input; Invalid when the split is empty."""
    rows = read_split(store, wanted.dataset, wanted.split).to_pylist()
    if not rows:
        raise Invalid(f"the dataset has no rows in {wanted.split}", field="dataset", hint="hold out more documents")
    return [rows[i] for i in chosen_rows(len(rows), wanted.max_rows, wanted.seed)]


def _examples(rows: list[dict[str, Any]], base: Base, split: str) -> Examples:
    if split == "qa_heldout":
        return question_examples(rows, base.tokenizer, SEQUENCE_LENGTH)
    return text_examples([row["text"] for row in rows], base.tokenizer, SEQUENCE_LENGTH, TEXT_TOKENS_MAX)


def _adapter(store: BlobStore, base: Base, wanted: EvaluateInput) -> Adapter | None:
    if wanted.adapter is None:
        return None
    path = verified_file(store, wanted.adapter.digest, cache_dir(), lambda done, total: None)
    shape, matrices = read_gguf(path, heads_of(base.causal.config))
    adapter = Adapter(base, shape, wanted.seed)
    adapter.load(matrices)
    return adapter
