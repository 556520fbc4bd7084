"""AdamW on one flat tensor, with its moments at hand for checkpoints. The learning rate comes with every step."""

from __future__ import annotations

import torch

BETAS = (0.9, 0.99)


class Optimiser:
    """Decoupled weight decay regularisation (Loshchilov and Hutter 2017, arXiv:1711.05101) on `weights` in place."""

    def __init__(self, weights: torch.Tensor, weight_decay: float) -> None:
        self._weights = weights
        self._adam = torch.optim.AdamW([weights], betas=BETAS, weight_decay=weight_decay, foreach=False)
        self.restore(0, torch.zeros_like(weights), torch.zeros_like(weights))

    def restore(self, steps: int, mean: torch.Tensor, square: torch.Tensor) -> None:
        """Stand where an optimiser stood after `steps` steps."""
        self._adam.state[self._weights] = {
            "step": torch.tensor(float(steps)),
            "exp_avg": mean.detach().clone(),
            "exp_avg_sq": square.detach().clone(),
        }

    def step(self, rate: float) -> None:
        """One update along `weights.grad`."""
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()

    def moments(self) -> dict[str, torch.Tensor]:
        """The running mean and mean square of the gradients: `mean` and `square`."""
        state = self._adam.state[self._weights]
        return {"mean": state["exp_avg"], "square": state["exp_avg_sq"]}
