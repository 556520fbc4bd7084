"""What a quality model sees of a text: hashes of its words, pairs of words and runs of characters, in one pass.

Letters are lower-cased, digits are one digit, white space is one space. A word is a run of letters and digits, or one
character of a script written without spaces. A feature is a place in a table of 2**bits; what was hashed there cannot
be read back, and two features may share a place. The hashes are fixed for ever: models are files.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.characters import DIGIT, LIMIT, SINGLE, SPACE, WORD, characters
from atoll.data.engine.kernel import inner, kernel

U64 = NDArray[np.uint64]
Weights = NDArray[np.float32]

FACTOR = np.uint64(0x9E3779B97F4A7C15)
RUN_MAX = 8
"""Longest run of characters."""

_ONE, _ZERO_DIGIT, _BLANK = np.uint64(1), np.uint64(48), np.uint64(32)
_LIMIT = np.uint64(LIMIT)
_WORD_SALT, _PAIR_SALT, _SPREAD = np.uint64(0xA5), np.uint64(0xC3), np.uint64(0xD6E8FEB86659FD93)


_NOTHING = np.frombuffer(b"", np.uint8)


def flat(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The UTF-8 of all texts without a copy, and where each begins (n + 1 places); a null is empty."""
    if texts.null_count:
        texts = texts.fill_null("")
    if not len(texts):
        return _NOTHING, np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    starts = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    found = np.frombuffer(data, np.uint8) if data is not None else _NOTHING
    return found, starts


@cache
def tables() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Kinds and lower case of characters, as the kernels want them."""
    found = characters()
    return (found.kinds & (WORD | SINGLE | DIGIT | SPACE)).astype(np.uint8), found.lower


@inner
def mixed(value: np.uint64) -> np.uint64:
    """Spread every bit over the word: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inner
def decoded(data: NDArray[np.uint8], place: int) -> tuple[np.uint64, int]:
    """The code point at `place` of valid UTF-8, and where the next one begins."""
    first = np.uint64(data[place])
    if first < np.uint64(0x80):
        return first, place + 1
    second = np.uint64(data[place + 1]) & np.uint64(0x3F)
    if first < np.uint64(0xE0):
        return (first & np.uint64(0x1F)) << np.uint64(6) | second, place + 2
    third = np.uint64(data[place + 2]) & np.uint64(0x3F)
    if first < np.uint64(0xF0):
        return (first & np.uint64(0x0F)) << np.uint64(12) | second << np.uint64(6) | third, place + 3
    fourth = np.uint64(data[place + 3]) & np.uint64(0x3F)
    high = (first & np.uint64(0x07)) << np.uint64(18) | second << np.uint64(12)
    return high | third << np.uint64(6) | fourth, place + 4


@inner
def _touch(token: np.uint64, shift: np.uint64, weights: Weights, squares: Weights, slope: float, rate: float) -> float:
    """The weight of a feature; with a slope, the weight is moved against it first."""
    place = np.int64(((token ^ (token >> np.uint64(32))) * _SPREAD) >> shift)
    if slope != 0.0:
        grown = float(squares[place]) + slope * slope
        squares[place] = np.float32(grown)
        weights[place] = np.float32(float(weights[place]) - rate * slope / np.sqrt(grown))
    return float(weights[place])


@kernel
def visit(
    data: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    shift: np.uint64,
    shortest: int,
    longest: int,
    weights: Weights,
    squares: Weights,
    slope: float,
    rate: float,
) -> tuple[float, int]:
    """(sum of the weights of a text's features, their number); with a slope other than 0, a step of AdaGrad.

    AdaGrad: J. Duchi, E. Hazan, Y. Singer, JMLR 12 (2011). `squares` holds its sums of squared slopes.
    """
    total, count, place = 0.0, 0, 0
    runs = np.zeros(RUN_MAX, np.uint64)  # hashes of the last 1, 2, … characters
    seen, last = 0, _BLANK
    word, before, power = np.uint64(0), np.uint64(0), np.uint64(0)  # a power of zero: not inside a word
    while place <= len(data):
        if place < len(data):
            point, place = decoded(data, place)
        else:
            point, place = _BLANK, place + 1  # ends the last word
        kind = kinds[point] if point < _LIMIT else np.uint8(0)
        low = np.uint64(lower[point]) if point < _LIMIT else point
        low = _ZERO_DIGIT if kind & DIGIT else (_BLANK if kind & SPACE else low)
        is_word = (kind & WORD) > 0
        if power != np.uint64(0) and not is_word:
            token = mixed(word)
            total += _touch(token ^ _WORD_SALT, shift, weights, squares, slope, rate)
            total += _touch(before * FACTOR + token + _PAIR_SALT, shift, weights, squares, slope, rate)
            count += 2
            before, power = token, np.uint64(0)
        if is_word:
            if power == np.uint64(0):
                word, power = np.uint64(0), _ONE
            word += (low + _ONE) * power
            power *= FACTOR
        elif kind & SINGLE:
            token = mixed(low + _ONE)
            total += _touch(token ^ _WORD_SALT, shift, weights, squares, slope, rate)
            total += _touch(before * FACTOR + token + _PAIR_SALT, shift, weights, squares, slope, rate)
            count += 2
            before = token
        if low == _BLANK and last == _BLANK:
            continue  # white space is one space, and none at the beginning
        last, low = low, low + _ONE
        for back in range(min(longest - 1, seen), 0, -1):
            runs[back] = runs[back - 1] * FACTOR + low
            if back + 1 >= shortest:
                total += _touch(runs[back], shift, weights, squares, slope, rate)
                count += 1
        runs[0] = low
        seen += 1
        if shortest == 1:
            total += _touch(low, shift, weights, squares, slope, rate)
            count += 1
    return total, count
