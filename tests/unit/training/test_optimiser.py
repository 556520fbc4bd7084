"""The optimiser goes on exactly from where its moments say it stood."""

import torch

from atoll.training.engine.optimiser import Optimiser


def _stepped(weights: torch.Tensor, optimiser: Optimiser, first: int, last: int) -> None:
    for step in range(first, last):
        weights.grad = torch.sin(weights.detach() * (step + 1))
        optimiser.step(0.01)


def test_a_restored_optimiser_takes_the_very_same_steps() -> None:
    start = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    whole = start.clone().requires_grad_()
    _stepped(whole, Optimiser(whole, 0.01), 0, 10)
    broken = start.clone().requires_grad_()
    before = Optimiser(broken, 0.01)
    _stepped(broken, before, 0, 6)
    again = broken.detach().clone().requires_grad_()
    after = Optimiser(again, 0.01)
    after.restore(6, **before.moments())
    _stepped(again, after, 6, 10)
    assert torch.equal(again, whole)


def test_moments_begin_at_zero() -> None:
    moments = Optimiser(torch.ones(3, requires_grad=True), 0.0).moments()
    assert {name: tensor.tolist() for name, tensor in moments.items()} == {"mean": [0.0] * 3, "square": [0.0] * 3}
