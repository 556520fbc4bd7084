"""Loss over a large vocabulary without ever holding the logits of a whole batch.

Logits are made for CHUNK_ROWS positions at a time in one reused buffer, and the gradient with respect to the hidden
states is formed right there, so memory is a constant of the vocabulary. The output matrix itself is not trained.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK_ROWS = 128


class AnswerHead:
    """The frozen output layer and the cross entropy of the tokens it predicts.

    weight: [vocabulary, hidden]. Losses are in nats.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        vocabulary = weight.shape[0]
        self._weight = weight.detach()
        self._logits = torch.empty(CHUNK_ROWS, vocabulary, dtype=weight.dtype)
        self._wide = torch.empty(CHUNK_ROWS, vocabulary, dtype=torch.float32)

    def loss_sum(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The summed loss of predicting targets [n] from hidden [n, width]; differentiable in `hidden`."""
        total: torch.Tensor = _LossSum.apply(hidden, targets, self)  # type: ignore[no-untyped-call]
        return total

    def losses(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each of n positions, float32 [n]; without gradient."""
        starts = range(0, len(targets), CHUNK_ROWS)
        rows = hidden.detach()
        return torch.cat([self._chunk_losses(rows[i : i + CHUNK_ROWS], targets[i : i + CHUNK_ROWS])[0] for i in starts])

    def losses_and_gradient(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses, and the gradient of their sum with respect to `hidden`, in its type."""
        gradient, losses = torch.empty_like(hidden), []
        for start in range(0, len(targets), CHUNK_ROWS):
            rows, wanted = hidden[start : start + CHUNK_ROWS], targets[start : start + CHUNK_ROWS]
            loss, odds, total = self._chunk_losses(rows, wanted)
            losses.append(loss)
            odds.div_(total).scatter_add_(1, wanted[:, None], -torch.ones_like(total))
            logits = self._logits[: len(rows)].copy_(odds)
            torch.mm(logits, self._weight, out=gradient[start : start + CHUNK_ROWS])
        return torch.cat(losses), gradient

    def _chunk_losses(
        self, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses [n], and exp(logit - max) [n, vocabulary] with its row sums [n, 1]; the second is the buffer."""
        logits, odds = self._logits[: len(hidden)], self._wide[: len(hidden)]
        torch.mm(hidden, self._weight.t(), out=logits)
        odds.copy_(logits)
        odds.sub_(odds.amax(1, keepdim=True))
        picked = odds.gather(1, targets[:, None])
        total = odds.exp_().sum(1, keepdim=True)
        return (total.log() - picked)[:, 0], odds, total


class _LossSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: AnswerHead) -> torch.Tensor:
        losses, gradient = head.losses_and_gradient(hidden.detach(), targets)
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None
