"""Packed sequences as tensors: tokens, positions, who may attend to whom, and which tokens are to be predicted.

Several examples share one sequence and one copy of their common prefix. Each attends to the prefix and to itself and
counts its positions from the prefix on, so it computes exactly what it would alone, without padding and without
the prefix again for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from atoll.training.engine.examples import Example, Examples
from atoll.training.engine.order import Packed

PREFIX_SEGMENT = 0
PADDING_SEGMENT = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """ids, positions: [sequences, length]; mask: [sequences, 1, length, length], added to attention scores.

    `predict` [n] are the places, counted through all sequences, whose next token is learned; `targets` [n] are those
    tokens. `tokens` counts what is not padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    predict: torch.Tensor
    targets: torch.Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class _Laid:
    """One sequence laid out, without padding; `predict` are places within it."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    predict: list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """How batches are shaped: `rows` sequences padded to `length` tokens, masks in `dtype`.

    All batches but the last have one shape: memory freed by one then fits the next, and does not scatter.
    """

    rows: int
    length: int
    dtype: torch.dtype


def layout_of(sequence_length: int, tokens_max: int, dtype: torch.dtype) -> Layout:
    """As many whole sequences at once as `tokens_max` tokens hold, at least one."""
    return Layout(max(1, tokens_max // sequence_length), sequence_length, dtype)


def micro_batches(
    sequences: Sequence[Packed], questions: Examples, texts: Examples | None, layout: Layout
) -> Iterator[Batch]:
    """The sequences as batches, in order."""
    for start in range(0, len(sequences), layout.rows):
        group = sequences[start : start + layout.rows]
        yield _stacked([_lay(packed, _source(packed, questions, texts)) for packed in group], layout)


def answer_tokens(sequences: Sequence[Packed], questions: Examples, texts: Examples | None) -> int:
    """How many tokens the sequences teach."""
    return sum(_taught(_source(packed, questions, texts).items[row]) for packed in sequences for row in packed.rows)


def _source(packed: Packed, questions: Examples, texts: Examples | None) -> Examples:
    if not packed.is_text:
        return questions
    assert texts is not None, "text in the order, but no texts"
    return texts


def _taught(example: Example) -> int:
    return len(example.tokens) - example.learned_from


def _lay(packed: Packed, examples: Examples) -> _Laid:
    shared = len(examples.prefix)
    laid = _Laid(list(examples.prefix), list(range(shared)), [PREFIX_SEGMENT] * shared, [])
    for segment, row in enumerate(packed.rows, start=PREFIX_SEGMENT + 1):
        example, start = examples.items[row], len(laid.ids)
        laid.ids.extend(example.tokens)
        laid.positions.extend(range(shared, shared + len(example.tokens)))
        laid.segments.extend([segment] * len(example.tokens))
        laid.predict.extend(range(start + example.learned_from - 1, start + len(example.tokens) - 1))
    return laid


def _stacked(group: Sequence[_Laid], layout: Layout) -> Batch:
    length = layout.length
    ids = torch.zeros(len(group), length, dtype=torch.long)
    positions = torch.zeros(len(group), length, dtype=torch.long)
    segments = torch.full((len(group), length), PADDING_SEGMENT, dtype=torch.long)
    for i, laid in enumerate(group):
        end = len(laid.ids)
        ids[i, :end] = torch.tensor(laid.ids)
        positions[i, :end] = torch.tensor(laid.positions)
        segments[i, :end] = torch.tensor(laid.segments)
    predict = torch.tensor([i * length + place for i, laid in enumerate(group) for place in laid.predict])
    tokens = sum(len(laid.ids) for laid in group)
    return Batch(ids, positions, _mask(segments, layout.dtype), predict, ids.flatten()[predict + 1], tokens)


def _mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where a place attends (its own segment or the prefix, nothing later), the least number elsewhere."""
    length = segments.shape[1]
    own, other = segments[:, :, None], segments[:, None, :]
    is_seen = ((own == other) | (other == PREFIX_SEGMENT)) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.full(is_seen.shape, torch.finfo(dtype).min, dtype=dtype)
    return mask.masked_fill_(is_seen, 0)[:, None]
