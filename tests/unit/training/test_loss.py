"""The chunked loss equals the plain one, forward and backward."""

import pytest
import torch

from atoll.training.engine.loss import CHUNK_ROWS, AnswerHead


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS, 2 * CHUNK_ROWS + 3])
def test_loss_and_gradient_equal_those_of_plain_cross_entropy(rows: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(500, 16)
    hidden = torch.randn(rows, 16, requires_grad=True)
    targets = torch.randint(500, (rows,))
    plain = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    (expected,) = torch.autograd.grad(plain, hidden)
    head = AnswerHead(weight)
    total = head.loss_sum(hidden, targets)
    (gradient,) = torch.autograd.grad(total / 2, hidden)
    assert torch.allclose(total, plain, rtol=1e-5)
    assert torch.allclose(2 * gradient, expected, atol=1e-5)
    assert torch.allclose(head.losses(hidden, targets).sum(), plain, rtol=1e-5)


def test_enormous_logits_do_not_overflow() -> None:
    head = AnswerHead(torch.eye(4) * 1000)
    losses = head.losses(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    assert losses.tolist() == [0.0, 0.0, 0.0, 1000.0]


def test_bfloat16_stays_near_float32() -> None:
    torch.manual_seed(0)
    weight, hidden, targets = torch.randn(300, 32) / 4, torch.randn(40, 32), torch.randint(300, (40,))
    wide = AnswerHead(weight).losses(hidden, targets)
    narrow = AnswerHead(weight.bfloat16()).losses(hidden.bfloat16(), targets)
    assert torch.allclose(wide, narrow, atol=0.1)
