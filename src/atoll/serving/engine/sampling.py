"""How the next token is chosen from a model's logits, and what is told about the choice.

Order: bias and penalties (OpenAI's presence and frequency, over what was generated), the constraint's mask,
temperature, top-k, top-p, min-p, then a draw from the row's own generator. Probabilities told are the model's own,
before any of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

TEMPERATURE_MIN = 1e-4


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asks for; temperature 0 takes the likeliest token. `top_logprobs` None tells none."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    top_logprobs: int | None = None

    def for_answer(self, index: int) -> Sampling:
        """The same for another answer of the request: its chance differs, and is as repeatable."""
        return self if self.seed is None else replace(self, seed=self.seed + index)

    def generator(self) -> torch.Generator:
        """Where this request's chance comes from."""
        made = torch.Generator()
        if self.seed is None:
            made.seed()
        else:
            made.manual_seed(self.seed & ((1 << 63) - 1))
        return made


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-probability of a chosen token, and of the likeliest ones."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    seen: Counter[int],
    allowed: torch.Tensor | None = None,
) -> int:
    """The next token from `logits` (vocabulary,), float32; `allowed` is true where the constraint lets a token be."""
    logits = _adjusted(logits, sampling, seen)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if sampling.temperature < TEMPERATURE_MIN:
        return int(logits.argmax())
    probabilities = _narrowed(torch.softmax(logits / sampling.temperature, dim=-1), sampling)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def likelihood(logits: torch.Tensor, token: int, top: int) -> Likelihood:
    """How likely `token` was, and the `top` likeliest tokens."""
    logprobs = torch.log_softmax(logits, dim=-1)
    values, tokens = logprobs.topk(min(top, logprobs.shape[-1])) if top else (logprobs[:0], logprobs[:0])
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return Likelihood(float(logprobs[token]), tuple((int(token), value) for token, value in pairs))


def _adjusted(logits: torch.Tensor, sampling: Sampling, seen: Counter[int]) -> torch.Tensor:
    if not sampling.bias and not sampling.presence_penalty and not sampling.frequency_penalty:
        return logits
    logits = logits.clone()
    for token, bias in sampling.bias.items():
        if token < logits.shape[-1]:
            logits[token] += bias
    if sampling.presence_penalty or sampling.frequency_penalty:
        for token, count in seen.items():
            logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
    return logits


def _narrowed(probabilities: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`probabilities` with zeros where top-k, top-p or min-p leave a token out."""
    if 0 < sampling.top_k < probabilities.shape[-1]:
        least = probabilities.topk(sampling.top_k).values[-1]
        probabilities = probabilities.where(probabilities >= least, 0.0)
    if sampling.min_p > 0:
        probabilities = probabilities.where(probabilities >= sampling.min_p * probabilities.max(), 0.0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.where(before < sampling.top_p * ordered.sum(), 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return probabilities
