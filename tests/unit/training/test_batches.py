"""Packing changes where examples are computed, not what is computed."""

from typing import Any

import pytest
import torch

import tiny_training
from atoll.training.engine.batches import answer_tokens, layout_of, micro_batches
from atoll.training.engine.examples import Example, Examples, question_examples, text_examples
from atoll.training.engine.loss import AnswerHead
from atoll.training.engine.measure import hidden_states
from atoll.training.engine.model import Base
from atoll.training.engine.order import Packed


def _losses(base: Base, sequences: list[Packed], questions: Examples, texts: Examples | None = None) -> torch.Tensor:
    head = AnswerHead(base.causal.lm_head.weight)
    batches = micro_batches(sequences, questions, texts, layout_of(256, 512, base.dtype))
    with torch.no_grad():
        return torch.cat([head.losses(hidden_states(base, batch), batch.targets) for batch in batches])


def test_packed_examples_have_the_losses_they_have_alone(base: Base) -> None:
    questions = question_examples(tiny_training.question_rows(0, 5), base.tokenizer, 256)
    packed = _losses(base, [Packed((0, 1, 2)), Packed((3, 4))], questions)
    alone = torch.cat([_losses(base, [Packed((row,))], questions) for row in range(5)])
    assert torch.allclose(packed, alone, atol=1e-4)


def test_the_shared_prefix_changes_nothing(base: Base) -> None:
    questions = question_examples(tiny_training.question_rows(0, 3), base.tokenizer, 256)
    shared = len(questions.prefix)
    items = [Example(questions.prefix + item.tokens, shared + item.learned_from) for item in questions.items]
    whole = Examples((), tuple(items))
    assert torch.allclose(
        _losses(base, [Packed((0, 1, 2))], questions), _losses(base, [Packed((0, 1, 2))], whole), atol=1e-4
    )


def test_the_losses_are_those_of_the_model_itself(base: Base) -> None:
    questions = question_examples(tiny_training.question_rows(7, 1), base.tokenizer, 256)
    ids = torch.tensor([[*questions.prefix, *questions.items[0].tokens]])
    start = len(questions.prefix) + questions.items[0].learned_from
    mask = torch.full((ids.shape[1], ids.shape[1]), torch.finfo(torch.float32).min).triu(1)[None, None]
    with torch.no_grad():
        logits = base.causal(input_ids=ids, attention_mask=mask).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[0, start:], reduction="none")
    assert torch.allclose(_losses(base, [Packed((0,))], questions), expected, atol=1e-4)


def test_text_and_questions_share_a_batch(base: Base) -> None:
    questions = question_examples(tiny_training.question_rows(0, 2), base.tokenizer, 128)
    texts = text_examples(["the item in the box is blue and not red"], base.tokenizer, 128)
    mixed = [Packed((0, 1)), Packed((0,), is_text=True)]
    losses = _losses(base, mixed, questions, texts)
    assert len(losses) == answer_tokens(mixed, questions, texts)
    assert torch.allclose(
        losses[-len(texts.items[0].tokens) + 1 :], _losses(base, mixed[1:], questions, texts), atol=1e-4
    )


def test_batches_hold_as_many_sequences_as_their_tokens_allow_and_have_one_shape(tokenizer: Any) -> None:
    questions = question_examples(tiny_training.question_rows(0, 6), tokenizer, 256)
    sequences = [Packed((row,)) for row in range(6)]
    batches = list(micro_batches(sequences, questions, None, layout_of(128, 300, torch.float32)))
    assert [tuple(batch.ids.shape) for batch in batches] == [(2, 128)] * 3
    assert layout_of(128, 1, torch.float32).rows == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_counts_for_nothing(base: Base, dtype: torch.dtype) -> None:
    questions = question_examples(tiny_training.question_rows(0, 3), base.tokenizer, 256)
    (batch,) = micro_batches([Packed((0, 1)), Packed((2,))], questions, None, layout_of(256, 512, dtype))
    assert batch.mask.dtype == dtype
    assert batch.tokens == 2 * len(questions.prefix) + sum(questions.lengths)
    assert batch.tokens < batch.ids.numel()
    assert len(batch.predict) == answer_tokens([Packed((0, 1, 2))], questions, None)
