"""The compiled kernels: the scan and the MinHash signatures as numba machine code, without the GIL.

They promise the same bits as `scan.scan_plain` and `minhash.signatures_plain`, which say what they mean. Machine code
is kept in NUMBA_CACHE_DIR (or beside this file) where that can be written. Text must be valid UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from atoll.data.engine import characters
from atoll.data.engine.hashing import FACTOR, U64

Function = TypeVar("Function", bound=Callable[..., object])

_FACTOR = np.uint64(FACTOR)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_LIMIT = np.uint32(characters.LIMIT)
_WORD, _SINGLE, _SPACE = characters.WORD, characters.SINGLE, characters.SPACE
_LETTER, _DIGIT, _LATIN, _CJK = characters.LETTER, characters.DIGIT, characters.LATIN, characters.CJK


def _compile(function: Function) -> Function:
    """Compile `function` on its first call; keep the machine code on disk where there is a place for it."""
    try:
        compiled: Function = numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # no folder to write a cache to
        compiled = numba.njit(function, nogil=True)
    return compiled


@_compile
def _mix(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@_compile
def _is_stop_word(token: np.uint64, slots: U64) -> bool:
    place = token & np.uint64(255)
    while slots[place] != _ZERO:
        if slots[place] == token:
            return True
        place = (place + _ONE) & np.uint64(255)
    return False


@_compile
def _decode(data: NDArray[np.uint8], place: int) -> tuple[np.uint32, int]:
    """The code point at `place` and where the next one starts."""
    first = np.uint32(data[place])
    if first < 0x80:
        return first, place + 1
    second = np.uint32(data[place + 1] & 0x3F)
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), place + 2
    third = np.uint32(data[place + 2] & 0x3F)
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), place + 3
    fourth = np.uint32(data[place + 3] & 0x3F)
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | fourth), place + 4


@_compile
def _emit(token: np.uint64, tokens: U64, count: int, stop_slots: U64, row: NDArray[np.int64]) -> int:
    """Append a finished token; the new number of tokens."""
    tokens[count] = _mix(token)
    row[7] += _is_stop_word(tokens[count], stop_slots)
    return count + 1


@_compile
def _count(kind: np.uint8, row: NDArray[np.int64]) -> None:
    row[2] += (kind & _LETTER) > 0
    row[3] += (kind & _DIGIT) > 0
    row[4] += (kind & _LATIN) > 0
    row[5] += (kind & _CJK) > 0
    row[6] += (kind & (_WORD | _SINGLE)) > 0


@_compile
def _scan_text(
    data: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    stop_slots: U64,
    row: NDArray[np.int64],
    tokens: U64,
    lines: U64,
) -> tuple[int, int]:
    """Scan one text into `row` and the heads of `tokens` and `lines`; how many of each."""
    place, n_tokens, n_lines = 0, 0, 0
    token, token_power = _ZERO, _ZERO  # a power of zero: not inside a word
    line, line_power = _ZERO, _ONE  # a power of one: nothing of the line yet
    while place < len(data):
        point, place = _decode(data, place)
        kind = kinds[point] if point < _LIMIT else np.uint8(0)
        row[0] += 1
        if token_power != _ZERO and not kind & _WORD:
            n_tokens = _emit(token, tokens, n_tokens, stop_slots, row)
            token_power = _ZERO
        if kind & _SPACE:
            row[1] += 1
            if point == 10 and line_power != _ONE:
                lines[n_lines] = _mix(line)
                n_lines += 1
                line, line_power = _ZERO, _ONE
            continue
        _count(kind, row)
        line += (np.uint64(point) + _ONE) * line_power
        line_power *= _FACTOR
        if kind & _WORD:
            if token_power == _ZERO:
                token, token_power = _ZERO, _ONE
            token += (np.uint64(lower[point]) + _ONE) * token_power
            token_power *= _FACTOR
        elif kind & _SINGLE:
            n_tokens = _emit(np.uint64(lower[point]) + _ONE, tokens, n_tokens, stop_slots, row)
    if token_power != _ZERO:
        n_tokens = _emit(token, tokens, n_tokens, stop_slots, row)
    if line_power != _ONE:
        lines[n_lines] = _mix(line)
        n_lines += 1
    return n_tokens, n_lines


@_compile
def scan(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    stop_slots: U64,
    counts: NDArray[np.int64],
    tokens: U64,
    token_starts: NDArray[np.int64],
    lines: U64,
    line_starts: NDArray[np.int64],
) -> None:
    """Fill the last five arrays with what `scan.Scan` describes."""
    for text in range(len(starts) - 1):
        here = data[starts[text] : starts[text + 1]]
        free_tokens, free_lines = tokens[token_starts[text] :], lines[line_starts[text] :]
        n_tokens, n_lines = _scan_text(here, kinds, lower, stop_slots, counts[text], free_tokens, free_lines)
        token_starts[text + 1] = token_starts[text] + n_tokens
        line_starts[text + 1] = line_starts[text] + n_lines


@_compile
def signatures(
    shingles: NDArray[np.uint32],
    starts: NDArray[np.int64],
    factors: NDArray[np.uint32],
    terms: NDArray[np.uint32],
    result: NDArray[np.uint32],
) -> None:
    """For every text i and permutation j, the least factors[j] * shingle + terms[j] modulo 2**32 of its shingles."""
    for text in range(len(starts) - 1):
        row = result[text]
        for place in range(starts[text], starts[text + 1]):
            shingle = shingles[place]
            for j in range(len(row)):
                row[j] = min(row[j], np.uint32(factors[j] * shingle + terms[j]))
