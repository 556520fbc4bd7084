"""Prediction: the most likely label of a run of words, as fastText finds it, in kernels.

A word has a row of its own where the model knows it, and one for every piece of it that was kept, all pieces of
`shortest` to `longest` characters of `<word>`. A text is the mean of all rows of its words and of the end of the line.
Rows are summed by words and words by texts, always in this order, so a sum that is remembered is the sum made anew.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.arrays import I32, U8, U64
from atoll.data.engine.kernel import inner
from atoll.data.engine.language.mapped import F32
from atoll.data.engine.language.model import Output, Pieces, Rows, Tables, Words

OPEN, CLOSE = 60, 62
"""< and >, which stand around every word."""
_SLOTS = 8192
_SHIFT = np.uint64(64 - 13)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_FNV_START, _FNV_FACTOR, _FNV_MASK = np.uint64(2166136261), np.uint64(16777619), np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(0xFFFFFF00)
_ONES, _TWOS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)
_REMEMBERED_BYTES_MAX = 16
_SCORE_MAX = 700.0
"""Of what is greater no exponential is a number."""
_FLOOR = 1e-5
"""fastText adds it to a probability before it takes the logarithm."""


class Room(NamedTuple):
    """What a kernel needs besides the model: sums of words seen before, by their bytes, and space to work in."""

    keys: U64
    """(slots + 1, 2): the bytes of a word of at most 16, 0 for none; the last slot is for words that are longer."""
    rows: I32
    """How many rows a sum is of."""
    sums: F32
    text: F32
    nodes: I32
    chances: NDArray[np.float64]
    """Nodes of the tree to be looked at, and how likely they are."""


def room_for(tables: Tables) -> Room:
    """Room for one run of a kernel."""
    labels, dimensions = tables.output.weights.shape
    return Room(
        np.zeros((_SLOTS + 1, 2), np.uint64),
        np.zeros(_SLOTS + 1, np.int32),
        np.zeros((_SLOTS + 1, dimensions), np.float32),
        np.zeros(dimensions, np.float32),
        np.zeros(labels + 1, np.int32),
        np.zeros(labels + 1, np.float64),
    )


@inner
def predict(letters: U8, stop: int, tables: Tables, room: Room) -> tuple[int, float]:
    """The label of the words in letters[:stop], each between OPEN and CLOSE, and its probability; -1 where the model
    knows nothing of them."""
    rows = _sum_words(letters, stop, tables, room)
    if tables.words.end >= 0:
        _add_row(tables.rows, tables.words.end, room.text)
        rows += 1
    if rows == 0:
        return -1, 0.0
    share = np.float32(1.0 / rows)
    for place in range(len(room.text)):
        room.text[place] *= share
    if len(tables.output.tree) > 0:
        return _best_leaf(tables.output, room)
    return _best_label(tables.output, room)


@inner
def _sum_words(letters: U8, stop: int, tables: Tables, room: Room) -> int:
    """Sum the rows of all words into room.text; how many there are."""
    text, sums = room.text, room.sums
    for place in range(len(text)):
        text[place] = np.float32(0)
    rows = last = 0
    while last < stop:
        first = last
        low = high = np.uint64(0)
        last += 1
        while letters[last] != CLOSE:
            high = high << np.uint64(8) | low >> np.uint64(56)
            low = low << np.uint64(8) | np.uint64(letters[last])
            last += 1
        last += 1
        slot = _SLOTS
        if last - first - 2 <= _REMEMBERED_BYTES_MAX:
            slot = int(np.int64((low ^ high * _FACTOR) * _FACTOR >> _SHIFT))
            if room.keys[slot, 0] != low or room.keys[slot, 1] != high:
                room.keys[slot, 0], room.keys[slot, 1] = low, high
                room.rows[slot] = _sum_word(letters, first, last, tables, sums[slot])
        else:
            room.rows[slot] = _sum_word(letters, first, last, tables, sums[slot])
        rows += room.rows[slot]
        for place in range(len(text)):
            text[place] += sums[slot, place]
    return rows


@inner
def _sum_word(letters: U8, first: int, last: int, tables: Tables, total: F32) -> int:
    """Sum the rows of the word in letters[first:last], its marks included, into `total`; how many there are."""
    for place in range(len(total)):
        total[place] = np.float32(0)
    pieces, rows = tables.pieces, 0
    word = _word(letters, first + 1, last - 1, tables.words)
    if word >= 0:
        _add_row(tables.rows, word, total)
        rows += 1
    for start in range(first, last):
        if letters[start] & 0xC0 == 0x80:
            continue
        value, place = _FNV_START, start
        for length in range(1, pieces.longest + 1):
            if place == last:
                break
            value = _hashed(value, letters[place])
            place += 1
            while place < last and letters[place] & 0xC0 == 0x80:
                value = _hashed(value, letters[place])
                place += 1
            if length >= pieces.shortest and not (length == 1 and (start == first or place == last)):
                row = _piece(value, pieces)
                if row >= 0:
                    _add_row(tables.rows, row, total)
                    rows += 1
    return rows


@inner
def _hashed(value: np.uint64, byte: np.uint8) -> np.uint64:
    """A hash with one more byte; see `fnv`."""
    signed = np.uint64(byte) | _SIGN if byte >= 0x80 else np.uint64(byte)
    return (value ^ signed) * _FNV_FACTOR & _FNV_MASK


@inner
def _piece(value: np.uint64, pieces: Pieces) -> int:
    """The row of a piece by its hash, -1 where it was not kept."""
    bucket = value % np.uint64(pieces.buckets)
    if pieces.all_kept:
        return pieces.first + int(np.int64(bucket))
    block, bit = np.int64(bucket >> np.uint64(6)), np.uint64(1) << (bucket & np.uint64(63))
    if pieces.kept[block] & bit == np.uint64(0):
        return -1
    before = np.int64(pieces.ranks[block]) + np.int64(_ones(pieces.kept[block] & (bit - np.uint64(1))))
    return pieces.first + int(pieces.rows[before])


@inner
def _ones(bits: np.uint64) -> np.uint64:
    """How many bits are set."""
    bits -= bits >> np.uint64(1) & _ONES
    bits = (bits & _TWOS) + (bits >> np.uint64(2) & _TWOS)
    bits = bits + (bits >> np.uint64(4)) & _FOURS
    return bits * _BYTES >> np.uint64(56)


@inner
def _word(letters: U8, start: int, stop: int, words: Words) -> int:
    """The number of a word the model knows, else -1."""
    value = _FNV_START
    for place in range(start, stop):
        value = _hashed(value, letters[place])
    mask = len(words.slots) - 1
    slot = np.int64(value) & mask
    while words.slots[slot] >= 0:
        word = words.slots[slot]
        if _is_word(letters, start, stop, words.file, words.starts[word], words.stops[word]):
            return int(word)
        slot = (slot + 1) & mask
    return -1


@inner
def _is_word(letters: U8, start: int, stop: int, file: U8, known: int, known_stop: int) -> bool:
    if stop - start != known_stop - known:
        return False
    for place in range(stop - start):  # noqa: SIM110 - a kernel has no all()
        if letters[start + place] != file[known + place]:
            return False
    return True


@inner
def _add_row(rows: Rows, row: int, total: F32) -> None:
    scale = rows.norms[rows.norm_codes[row]]
    width = rows.width
    for part in range(rows.codes.shape[1]):
        begin = part * width
        wide = min(width, len(total) - begin)
        centroid = 256 * begin + wide * np.int64(rows.codes[row, part])
        for place in range(wide):
            total[begin + place] += scale * rows.centroids[centroid + place]


@inner
def _best_leaf(output: Output, room: Room) -> tuple[int, float]:
    """The most likely label of the tree, the likelier branch first; a branch that is no longer the best is left."""
    labels = len(output.weights)
    room.nodes[0], room.chances[0] = 2 * labels - 2, 1.0
    waiting = 1
    label, best = -1, -1.0
    while waiting > 0:
        waiting -= 1
        node, chance = int(room.nodes[waiting]), room.chances[waiting]
        if chance <= best:
            continue
        if node < labels:
            label, best = node, chance
            continue
        right = _sigmoid(_score(output.weights, node - labels, room.text))
        likelier = 1 if right > 0.5 else 0
        for side in (1 - likelier, likelier):
            room.nodes[waiting] = output.tree[node, side]
            room.chances[waiting] = chance * ((right if side == 1 else 1.0 - right) + _FLOOR)
            waiting += 1
    return label, best


@inner
def _best_label(output: Output, room: Room) -> tuple[int, float]:
    """The most likely of labels without a tree."""
    label, best, total = -1, -math.inf, 0.0
    for number in range(len(output.weights)):
        score = _score(output.weights, number, room.text)
        room.chances[number] = score
        if score > best:
            label, best = number, score
    for number in range(len(output.weights)):
        total += math.exp(room.chances[number] - best)
    return label, 1.0 / total


@inner
def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-_SCORE_MAX, value)))


@inner
def _score(weights: F32, row: int, text: F32) -> float:
    total = np.float32(0)
    for place in range(len(text)):
        total += weights[row, place] * text[place]
    return float(total)
