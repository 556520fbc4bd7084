"""Which examples are learned at which step: a pure function of the seed, so that a restored run repeats exactly.

Every epoch is a permutation drawn from a counter-based generator (Philox, Salmon et al. 2011) with the epoch as the
counter, packed into sequences of a fixed length. A position in this order is one number; there is no state to save.
It knows the lengths of examples only, not what they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPEN_BINS = 32
_SHARE_UNIT = 10_000


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence: the rows it holds, in order; `is_text` tells plain text from questions."""

    rows: tuple[int, ...]
    is_text: bool = False


class Order:
    """The endless stream of sequences over questions, mixed with plain text at a stated share.

    questions: tokens of each question beyond the shared prefix, all at most `room`; texts: tokens of each text.
    """

    def __init__(
        self, questions: Sequence[int], room: int, texts: Sequence[int], text_room: int, text_share: float, seed: int
    ) -> None:
        self._questions = _Stream(questions, room, seed, stream=0)
        self._texts = _Stream(texts, text_room, seed, stream=1)
        self._share = round(text_share * _SHARE_UNIT) if len(texts) else 0

    def sequences(self, start: int, count: int) -> list[Packed]:
        """Sequences `start` to `start + count` of the stream."""
        return [self._at(index) for index in range(start, start + count)]

    def epoch_length(self) -> int:
        """Sequences after which the first pass over all questions is complete."""
        return math.ceil(len(self._questions.epoch(0)) * _SHARE_UNIT / (_SHARE_UNIT - self._share))

    def _at(self, index: int) -> Packed:
        texts_before, texts_after = index * self._share // _SHARE_UNIT, (index + 1) * self._share // _SHARE_UNIT
        if texts_after > texts_before:
            return Packed(self._texts.at(texts_before), is_text=True)
        return Packed(self._questions.at(index - texts_before))


class _Stream:
    """The endless packed permutations of one kind of example."""

    def __init__(self, lengths: Sequence[int], room: int, seed: int, stream: int) -> None:
        self._lengths, self._room, self._seed, self._stream = lengths, room, seed, stream
        self._epoch, self._start = 0, 0
        self._packed: list[tuple[int, ...]] = []

    def at(self, index: int) -> tuple[int, ...]:
        """The rows of the sequence at `index`; going forward is cheap, going back begins again."""
        if index < self._start or not self._packed:
            self._epoch, self._start, self._packed = 0, 0, self.epoch(0)
        while index >= self._start + len(self._packed):
            self._start += len(self._packed)
            self._epoch += 1
            self._packed = self.epoch(self._epoch)
        return self._packed[index - self._start]

    def epoch(self, number: int) -> list[tuple[int, ...]]:
        """All rows once, permuted and packed."""
        return pack(permutation(len(self._lengths), self._seed, number, self._stream), self._lengths, self._room)


def permutation(count: int, seed: int, epoch: int, stream: int = 0) -> list[int]:
    """The numbers below `count` in an order that depends on the arguments alone."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, stream, epoch]))
    return [int(i) for i in generator.permutation(count)]


def pack(rows: Sequence[int], lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    """Put rows into sequences of at most `room` tokens, each into the fullest open one that holds it.

    OPEN_BINS are open at a time, so the order stays roughly that of `rows`. lengths: tokens of every row.
    """
    done: list[tuple[int, ...]] = []
    bins: list[tuple[int, list[int]]] = []  # free tokens, rows
    for row in rows:
        length = lengths[row]
        assert 0 < length <= room, f"row {row} has {length} tokens, a sequence has room for {room}"
        fitting = [i for i, (free, _) in enumerate(bins) if free >= length]
        if fitting:
            best = min(fitting, key=lambda i: bins[i][0])
            bins[best] = (bins[best][0] - length, [*bins[best][1], row])
        else:
            if len(bins) == OPEN_BINS:
                fullest = min(range(OPEN_BINS), key=lambda i: bins[i][0])
                done.append(tuple(bins.pop(fullest)[1]))
            bins.append((room - length, [row]))
    return done + [tuple(held) for _, held in bins]
