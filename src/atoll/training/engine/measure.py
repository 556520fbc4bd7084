"""The loss of a model on fixed examples: the number evaluations and reports stand on.

It is the mean over answer tokens, not over rows, in nats; perplexity is its exponential. Equal inputs on one machine
with one number of threads give equal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from atoll.training.engine.batches import Batch, Layout, micro_batches
from atoll.training.engine.examples import Examples
from atoll.training.engine.loss import AnswerHead
from atoll.training.engine.model import Base
from atoll.training.engine.order import Packed, pack

Report = Callable[[int, int], None]
"""Called with sequences done and their total."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean loss per answer token in nats, its exponential, and how many tokens that is a mean of."""

    loss: float
    perplexity: float
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def hidden_states(base: Base, batch: Batch) -> torch.Tensor:
    """The last hidden states [n, width] at the places of `batch.predict`."""
    output = base.causal.model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    )
    states: torch.Tensor = output.last_hidden_state.flatten(0, 1)[batch.predict]
    return states


def packed_rows(examples: Examples, sequence_length: int) -> list[Packed]:
    """All examples in order, packed as training packs them."""
    room = sequence_length - len(examples.prefix)
    return [Packed(rows) for rows in pack(range(len(examples.items)), examples.lengths, room)]


def measure(
    base: Base,
    head: AnswerHead,
    examples: Examples,
    layout: Layout,
    report: Report = lambda done, total: None,
) -> Measured:
    """The loss of the model as it now computes (with its adapter unless that is disabled) on `examples`.

    `report` may raise to stop.
    """
    sequences = packed_rows(examples, layout.length)
    total, count, done = 0.0, 0, 0
    with torch.no_grad():
        for batch in micro_batches(sequences, examples, None, layout):
            losses = head.losses(hidden_states(base, batch), batch.targets)
            total += losses.double().sum().item()
            count += len(losses)
            done += len(batch.ids)
            report(done, len(sequences))
    loss = total / count
    return Measured(loss, math.exp(loss) if loss < 700 else math.inf, count)
