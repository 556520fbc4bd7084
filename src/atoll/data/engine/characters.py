"""Two tables over Unicode: what kind of character each code point is, and its lower case.

They follow the running Python's `unicodedata`, so two machines agree when their Pythons do. Code points beyond the
tables (tags, private use) count as symbols.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LIMIT = 0x32400

WORD = 1  # stands in a word; a word is a run of these
SINGLE = 2  # is a word by itself: scripts written without spaces
LETTER = 4
DIGIT = 8
SPACE = 16
LATIN = 32
CJK = 64

_HAN_AND_KANA = ((0x3005, 0x3008), (0x3040, 0x3100), (0x3100, 0x3130), (0x31A0, 0x31C0), (0x31F0, 0x3200))
_HAN_MORE = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x20000, LIMIT))
_HANGUL = ((0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD800))
_WITHOUT_SPACES = ((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800))  # Thai, Lao, Myanmar, Khmer
_LATIN = ((0x41, 0x250), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800), (0xFF21, 0xFF5B))


@dataclass(frozen=True, slots=True)
class Characters:
    """`kinds` (uint8 flags) and `lower` (uint32 code points), each indexed by code point below LIMIT."""

    kinds: NDArray[np.uint8]
    lower: NDArray[np.uint32]


@cache
def characters() -> Characters:
    """The tables, built once (about 0.1 s)."""
    categories = [unicodedata.category(chr(point)) for point in range(LIMIT)]
    flags = {category: _flags(category) for category in set(categories)}
    kinds = np.array([flags[category] for category in categories], np.uint8)
    kinds[[point for point in range(LIMIT) if chr(point).isspace()]] = SPACE
    kinds[ord("_")] = WORD
    _mark(kinds, _LATIN, LATIN)
    _mark(kinds, _HANGUL, CJK)
    _mark(kinds, _HAN_AND_KANA + _HAN_MORE, CJK)
    for ranges in (_HAN_AND_KANA, _HAN_MORE, _WITHOUT_SPACES):
        _separate(kinds, ranges)
    kinds.setflags(write=False)
    return Characters(kinds, _lower())


def _flags(category: str) -> int:
    if category[0] == "L":
        return WORD | LETTER
    if category[0] == "N":
        return WORD | DIGIT if category == "Nd" else WORD
    return WORD if category[0] == "M" else 0


def _mark(kinds: NDArray[np.uint8], ranges: tuple[tuple[int, int], ...], flag: int) -> None:
    """Add `flag` to the letters in `ranges`."""
    for start, stop in ranges:
        part = kinds[start:stop]
        part[(part & LETTER) > 0] |= flag


def _separate(kinds: NDArray[np.uint8], ranges: tuple[tuple[int, int], ...]) -> None:
    """Make each word character in `ranges` a word by itself."""
    for start, stop in ranges:
        part = kinds[start:stop]
        part[(part & WORD) > 0] ^= WORD | SINGLE


def _lower() -> NDArray[np.uint32]:
    """Lower case by code point; characters whose lower case is longer than one stay as they are."""
    lower = np.arange(LIMIT, dtype=np.uint32)
    for point in range(LIMIT):
        small = chr(point).lower()
        if len(small) == 1:
            lower[point] = ord(small)
    lower.setflags(write=False)
    return lower
