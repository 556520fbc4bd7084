"""The scan: one pass over the UTF-8 of a batch of texts yields counts, token hashes and line hashes.

A token is a lower-cased run of word characters, or one character of a script written without spaces. Compiled by
numba where it is installed; without it numpy computes the same bits, several times slower.
Tokens are hashes only: what a word was cannot be read back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.characters import CJK, DIGIT, LATIN, LETTER, LIMIT, SINGLE, SPACE, WORD, characters
from atoll.data.engine.hashing import U64, hash_runs, hash_words

COUNTS = ("characters", "spaces", "letters", "digits", "latin", "cjk", "word_characters", "stop_words")
"""Columns of `Scan.counts`."""

_COUNTED = (SPACE, LETTER, DIGIT, LATIN, CJK, WORD | SINGLE)

STOP_WORDS = (
    *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "if", "in", "into", "is"),
    *("it", "its", "no", "not", "of", "on", "or", "s", "such", "t", "that", "the", "their", "then", "there", "these"),
    *("they", "this", "to", "was", "which", "will", "with", "you"),
    *"的了是在和有不这為为与於于中上以及其或とのはをにが",
)
"""Frequent function words of English, Chinese and Japanese; a text of sentences has many."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a batch of n texts holds.

    counts: int64 (n, len(COUNTS)). tokens, lines: hashes in order of appearance, those of text i from
    token_starts[i] to token_starts[i + 1] (line_starts likewise). Blank lines are left out.
    """

    counts: NDArray[np.int64]
    tokens: U64
    token_starts: NDArray[np.int64]
    lines: U64
    line_starts: NDArray[np.int64]

    def tokens_of(self, index: int) -> U64:
        return self.tokens[self.token_starts[index] : self.token_starts[index + 1]]


@cache
def compiled() -> ModuleType | None:
    """The compiled kernels, or None where numba is not installed."""
    try:
        from atoll.data.engine import kernels
    except ImportError:
        return None
    return kernels


def scan(texts: pa.StringArray) -> Scan:
    """Scan `texts`, compiled where possible."""
    return scan_compiled(texts) if compiled() else scan_plain(texts)


def scan_compiled(texts: pa.StringArray) -> Scan:
    """Scan by the compiled kernel; needs numba."""
    from atoll.data.engine import kernels

    data, starts = utf8_of(texts)
    tables = characters()
    tokens = np.empty(len(data), np.uint64)
    lines = np.empty(np.count_nonzero(data == 10) + len(texts), np.uint64)
    counts = np.zeros((len(texts), len(COUNTS)), np.int64)
    token_starts, line_starts = np.zeros((2, len(texts) + 1), np.int64)
    kernels.scan(
        data, starts, tables.kinds, tables.lower, _stop_slots(), counts, tokens, token_starts, lines, line_starts
    )
    return Scan(counts, tokens[: token_starts[-1]].copy(), token_starts, lines[: line_starts[-1]].copy(), line_starts)


def scan_plain(texts: pa.StringArray) -> Scan:
    """Scan by numpy alone: the meaning of the compiled kernel, bit for bit."""
    parts = [_scan_text(text) for text in texts.to_pylist()]
    counts = np.array([part[0] for part in parts], np.int64).reshape(len(parts), len(COUNTS))
    tokens, lines = [part[1] for part in parts], [part[2] for part in parts]
    return Scan(counts, _joined(tokens), _starts(tokens), _joined(lines), _starts(lines))


def utf8_of(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of all texts in one array, and where each starts (one more entry than texts); no copy of the bytes."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return content[starts[0] : starts[-1]], starts - starts[0]


def _scan_text(text: str) -> tuple[list[int], U64, U64]:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    tables = characters()
    kinds = np.where(points < LIMIT, tables.kinds[np.minimum(points, LIMIT - 1)], 0)
    lower = np.where(points < LIMIT, tables.lower[np.minimum(points, LIMIT - 1)], points)
    tokens = _tokens(kinds, lower)
    stop_words = np.isin(tokens, _stop_words()).sum()
    counts = [len(points), *(np.count_nonzero(kinds & flag) for flag in _COUNTED), stop_words]
    return [int(count) for count in counts], tokens, _lines(kinds, points)


def _tokens(kinds: NDArray[np.uint8], lower: NDArray[np.uint32]) -> U64:
    in_word = (kinds & WORD) > 0
    before = np.concatenate([[False], in_word[:-1]])
    begins = (in_word & ~before) | ((kinds & SINGLE) > 0)
    inside = in_word | begins
    return hash_runs(lower[inside], np.flatnonzero(begins[inside]))


def _lines(kinds: NDArray[np.uint8], points: NDArray[np.uint32]) -> U64:
    """Hash of each line that is not blank, over its characters that are not white space."""
    solid = (kinds & SPACE) == 0
    line_numbers = np.cumsum(points == 10)[solid]
    begins = np.diff(line_numbers, prepend=-1) > 0
    return hash_runs(points[solid], np.flatnonzero(begins))


@cache
def _stop_words() -> U64:
    return hash_words(list(STOP_WORDS))


@cache
def _stop_slots() -> U64:
    """The stop words as an open-addressed table of 256 slots; 0 is an empty slot."""
    slots = np.zeros(256, np.uint64)
    for word in _stop_words():
        place = int(word) & 255
        while slots[place]:
            place = (place + 1) & 255
        slots[place] = word
    return slots


def _joined(parts: list[U64]) -> U64:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _starts(parts: list[U64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
