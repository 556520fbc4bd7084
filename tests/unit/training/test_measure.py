"""The measured loss is the mean over answer tokens, whatever the batches."""

import math

import pytest
import torch

import tiny_training
from atoll.training.engine.batches import layout_of
from atoll.training.engine.examples import question_examples
from atoll.training.engine.loss import AnswerHead
from atoll.training.engine.measure import measure
from atoll.training.engine.model import Base


def test_the_size_of_batches_does_not_change_the_loss(base: Base) -> None:
    examples = question_examples(tiny_training.question_rows(0, 9), base.tokenizer, 128)
    head = AnswerHead(base.causal.lm_head.weight)
    one, many = (measure(base, head, examples, layout_of(128, tokens, base.dtype)) for tokens in (1, 4096))
    assert one.loss == pytest.approx(many.loss, abs=1e-4)
    assert one.tokens == many.tokens == sum(len(e.tokens) - e.learned_from for e in examples.items)
    assert one.perplexity == pytest.approx(math.exp(one.loss))


def test_measuring_twice_gives_the_same_bits_and_tells_how_far_it_is(base: Base) -> None:
    examples = question_examples(tiny_training.question_rows(0, 4), base.tokenizer, 128)
    head = AnswerHead(base.causal.lm_head.weight)
    layout = layout_of(128, 128, base.dtype)
    told: list[tuple[int, int]] = []
    first = measure(base, head, examples, layout, lambda done, total: told.append((done, total)))
    assert first == measure(base, head, examples, layout)
    assert told[-1][0] == told[-1][1] > 0


def test_a_model_that_knows_nothing_has_the_loss_of_guessing(base: Base) -> None:
    with torch.no_grad():
        base.causal.lm_head.weight.zero_()
    examples = question_examples(tiny_training.question_rows(0, 2), base.tokenizer, 128)
    measured = measure(base, AnswerHead(base.causal.lm_head.weight), examples, layout_of(128, 512, base.dtype))
    assert measured.loss == pytest.approx(math.log(len(base.tokenizer)), rel=1e-5)
