"""Anchors: places of a text that any two equal stretches of at least L bytes have in common.

Of every window of L bytes the place of the least hashed gram is an anchor, the rightmost of equal ones (winnowing:
Schleimer, Wilkerson, Aiken 2003). What is chosen depends on the window's bytes alone, so equal windows have their
anchor at the same distance from their start. About every (L / 3)-th byte is an anchor.

A window that equals the one a few bytes before it (runs of a character, rules of dashes) has no anchor: it is a repeat
by itself, and what it could prove about others the window before it proves too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.dedup.cuts import Bytes, Spans
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel

GRAM_BYTES_MIN = 16
PERIODS = 4

U32 = NDArray[np.uint32]

_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Hash of the gram, row of the batch and place in the text (bytes) of each anchor, in the order of the texts;
    `runs`: the spans of windows that repeat the one up to PERIODS bytes before."""

    hashes: U64
    rows: U32
    places: U32
    runs: Spans


def gram_bytes(length: int) -> int:
    """The bytes of a gram for repeats of at least `length` bytes."""
    return max(GRAM_BYTES_MIN, length // 3)


def anchors_of(data: Bytes, begins: Indices, taken: Mask, length: int) -> Anchors:
    """The anchors of the texts that are `taken` for repeats of at least `length` bytes."""
    gram = gram_bytes(length)
    runs = np.empty((len(data) // length + 1, 3), np.int64)
    for capacity in (4 * len(data) // (length - gram + 1) + 64, len(data)):  # the second only for very regular texts
        hashes, rows, places = np.empty(capacity, np.uint64), *np.empty((2, capacity), np.uint32)
        count, n_runs = _anchors(data, begins, taken, length, gram, hashes, rows, places, runs)
        if count <= capacity:
            break
    found = runs[:n_runs]
    spans = Spans(found[:, 0].astype(np.int32), found[:, 1].copy(), found[:, 2].copy())
    return Anchors(hashes[:count], rows[:count], places[:count], spans)


@kernel
def _anchors(
    data: Bytes,
    begins: Indices,
    taken: Mask,
    length: int,
    gram: int,
    hashes: U64,
    rows: U32,
    places: U32,
    runs: Indices,
) -> tuple[int, int]:
    """How many anchors and runs; more anchors than there is room for: the texts must be done again."""
    count, n_runs = 0, 0
    window = length - gram + 1
    values, grams = np.empty(window + 1, np.uint64), np.empty(window + 1, np.int64)
    for row in range(len(taken)):
        text = data[begins[row] : begins[row + 1]]
        if not taken[row] or len(text) < length:
            continue
        count, n_runs = _text_anchors(text, row, length, gram, values, grams, hashes, rows, places, count, runs, n_runs)
    return count, n_runs


@kernel
def _text_anchors(
    text: Bytes,
    row: int,
    length: int,
    gram: int,
    values: U64,
    grams: Indices,
    hashes: U64,
    rows: U32,
    places: U32,
    count: int,
    runs: Indices,
    n_runs: int,
) -> tuple[int, int]:
    """values, grams: a ring of the window's grams that no later one is less than, least first."""
    ring, head, size, last = len(values), 0, 0, -1
    window = length - gram + 1
    value, power = np.uint64(0), np.uint64(1)
    for _ in range(gram):
        power *= _BASE
    equal = np.zeros(PERIODS, np.int64)
    for stop in range(1, len(text) + 1):
        value = value * _BASE + np.uint64(text[stop - 1]) + np.uint64(1)
        is_run = _is_run(text, stop - 1, length, equal)
        place = stop - gram
        if place < 0:
            continue
        if place > 0:
            value -= (np.uint64(text[place - 1]) + np.uint64(1)) * power
        mixed = _mixed(value)
        while size and values[(head + size - 1) % ring] >= mixed:
            size -= 1
        values[(head + size) % ring], grams[(head + size) % ring] = mixed, place
        size += 1
        if grams[head] <= place - window:
            head, size = (head + 1) % ring, size - 1
        if stop < length:
            continue
        if is_run:
            n_runs = _extend(runs, n_runs, row, stop - length, stop)
        elif grams[head] != last:
            last = grams[head]
            if count < len(hashes):
                hashes[count], rows[count], places[count] = values[head], row, last
            count += 1
    return count, n_runs


@inner
def _is_run(text: Bytes, place: int, length: int, equal: Indices) -> bool:
    """Whether the window that ends with `place` equals one up to PERIODS bytes before it; counts in `equal`."""
    found = False
    for period in range(1, PERIODS + 1):
        if place >= period and text[place] == text[place - period]:
            equal[period - 1] += 1
        else:
            equal[period - 1] = 0
        found |= equal[period - 1] >= length
    return found


@inner
def _extend(runs: Indices, count: int, row: int, start: int, stop: int) -> int:
    if count and runs[count - 1, 0] == row and start <= runs[count - 1, 2]:
        runs[count - 1, 2] = stop
        return count
    runs[count, 0], runs[count, 1], runs[count, 2] = row, start, stop
    return count + 1


@inner
def _mixed(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
