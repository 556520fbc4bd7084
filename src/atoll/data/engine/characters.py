"""Tables over Unicode: what kind of character each code point is, and its lower case.

They follow the running Python's `unicodedata`, so two machines agree when their Pythons do. Code points beyond the
tables (tags, private use) count as symbols.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import U8, U32

LIMIT = 0x32400

WORD = 1  # stands in a word; a word is a run of these
SINGLE = 2  # is a word by itself: scripts written without spaces
LETTER = 4
DIGIT = 8
SPACE = 16
LATIN = 32
CJK = 64
LOWER = 1 << 7  # a small letter, or one of a script without capitals
UPPER = 1 << 8  # a capital, or a letter of a script without capitals
QUOTE = 1 << 9
BEFORE = 1 << 10  # a mark that parts from the word it stands before
AFTER = 1 << 11  # a mark that parts from the word it stands after
INSIDE = 1 << 12  # a mark that may part two words
ICON = 1 << 13  # dingbats, arrows, emoji
MARK = 1 << 14  # punctuation: a piece of nothing else is no plain word
PUNCTUATION = 1 << 15  # Unicode categories P*
ENDING = 1 << 16  # ends a sentence
NUMERAL = 1 << 17  # 0 to 9
CURRENCY = 1 << 18
HASH = 1 << 19  # the sign #
ELLIPSIS = 1 << 20  # the single character …

_HAN_AND_KANA = ((0x3005, 0x3008), (0x3040, 0x3100), (0x3100, 0x3130), (0x31A0, 0x31C0), (0x31F0, 0x3200))
_HAN_MORE = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFFA0), (0x20000, LIMIT))
_HANGUL = ((0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD800))
_WITHOUT_SPACES = ((0x0E00, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800))  # Thai, Lao, Myanmar, Khmer
_LATIN = ((0x41, 0x250), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800), (0xFF21, 0xFF5B))

_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"  # noqa: RUF001
_AROUND = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪—–" + _QUOTES  # noqa: RUF001
_BEFORE = "§%=+" + _AROUND
_INSIDE = ".+-*^,–—~:<>=/…"  # noqa: RUF001
_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~—–“”„’´«»►…∶━、。，．：；？！～％＆（）［］【】《》〈〉「」"  # noqa: RUF001
_ENDINGS = (  # the code points Unicode lists as Sentence_Terminal
    *(0x21, 0x2E, 0x3F, 0x589, 0x7F9, 0x837, 0x839, 0x1362, 0x166E, 0x1803, 0x1809, 0x2E2E, 0x2E3C, 0x3002),
    *(0xA4FF, 0xA6F3, 0xA6F7, 0xA92F, 0xABEB, 0xFE52, 0xFF01, 0xFF0E, 0xFF1F, 0xFF61, 0x10F55, 0x110BE, 0x111CD),
    *(0x11238, 0x11239, 0x1123B, 0x1123C, 0x112A9, 0x1144B, 0x1144C, 0x11944, 0x11946, 0x16AF5, 0x16B44, 0x16E98),
    *(0x1BC9F, 0x1DA88),
    *range(0x61D, 0x620),
    *(0x6D4, 0x700, 0x701, 0x702, 0x83D, 0x83E, 0x964, 0x965, 0x104A, 0x104B, 0x1367, 0x1368, 0x1735, 0x1736),
    *(0x17D4, 0x17D5, 0x17D9, 0x17DA, 0x1944, 0x1945),
    *(*range(0x1AA8, 0x1AAC), 0x1B5A, 0x1B5B, 0x1B5E, 0x1B5F, 0x1B7D, 0x1B7E, 0x1C3B, 0x1C3C, 0x1C7E, 0x1C7F),
    *(0x203C, 0x203D, 0x2047, 0x2048, 0x2049, 0x2E53, 0x2E54, 0xA60E, 0xA60F, 0xA876, 0xA877, 0xA8CE, 0xA8CF),
    *(0xA9C8, 0xA9C9, 0xAA5D, 0xAA5E, 0xAA5F, 0xAAF0, 0xAAF1, 0xFE56, 0xFE57, 0x10A56, 0x10A57),
    *(*range(0x10F56, 0x10F5A), *range(0x10F86, 0x10F8A), 0x11047, 0x11048, 0x110BF, 0x110C0, 0x110C1),
    *(0x11141, 0x11142, 0x11143, 0x111C5, 0x111C6, 0x111DE, 0x111DF, 0x115C2, 0x115C3, *range(0x115C9, 0x115D8)),
    *(0x11641, 0x11642, *range(0x1173C, 0x1173F), 0x11A42, 0x11A43, 0x11A9B, 0x11A9C, 0x11C41, 0x11C42),
    *(0x11EF7, 0x11EF8, 0x11F43, 0x11F44, 0x16A6E, 0x16A6F, 0x16B37, 0x16B38),
)


class Characters(NamedTuple):
    """Arrays indexed by code point below LIMIT: `kinds` (uint32 flags), `classes` (uint8, equal for equal kinds),
    `lower` (uint32 code points); and `flags` (uint32): the kind of each class. A tuple, as kernels take one.
    """

    kinds: U32
    classes: U8
    lower: U32
    flags: U32


@cache
def characters() -> Characters:
    """The tables, built once (about 0.2 s)."""
    categories = [unicodedata.category(chr(point)) for point in range(LIMIT)]
    meaning = {category: _flags(category) for category in set(categories)}
    kinds = np.array([meaning[category] for category in categories], np.uint32)
    kinds[[point for point in range(LIMIT) if chr(point).isspace()]] = SPACE
    kinds[ord("_")] = WORD | PUNCTUATION
    _mark(kinds, _LATIN, LATIN)
    _mark(kinds, _HANGUL, CJK)
    _mark(kinds, _HAN_AND_KANA + _HAN_MORE, CJK)
    for ranges in (_HAN_AND_KANA, _HAN_MORE, _WITHOUT_SPACES):
        _separate(kinds, ranges)
    _add_marks(kinds)
    flags, classes = np.unique(kinds, return_inverse=True)
    assert len(flags) < 256, "a class is a byte"
    tables = Characters(kinds, classes.astype(np.uint8), _lower(), flags)
    for table in tables:
        table.setflags(write=False)
    return tables


def _flags(category: str) -> int:
    if category[0] == "L":
        return WORD | LETTER | {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}.get(category, UPPER | LOWER)
    if category[0] == "N":
        return WORD | DIGIT if category == "Nd" else WORD
    if category[0] == "M":
        return WORD
    if category[0] == "P":
        return PUNCTUATION
    return {"So": ICON | BEFORE | AFTER | INSIDE, "Sc": CURRENCY | BEFORE, "Cc": MARK}.get(category, 0)


def _mark(kinds: U32, ranges: tuple[tuple[int, int], ...], flag: int) -> None:
    """Add `flag` to the letters in `ranges`."""
    for start, stop in ranges:
        part = kinds[start:stop]
        part[(part & LETTER) > 0] |= np.uint32(flag)


def _separate(kinds: U32, ranges: tuple[tuple[int, int], ...]) -> None:
    """Make each word character in `ranges` a word by itself."""
    for start, stop in ranges:
        part = kinds[start:stop]
        is_word = (part & WORD) > 0
        part[is_word] = part[is_word] & ~np.uint32(WORD) | np.uint32(SINGLE)


def _add_marks(kinds: U32) -> None:
    """What single characters are besides their category."""
    for places, flag in (
        (map(ord, _QUOTES), QUOTE),
        (map(ord, _BEFORE), BEFORE),
        (map(ord, _AROUND), AFTER),
        (map(ord, _INSIDE), INSIDE),
        (map(ord, _MARKS), MARK),
        (_ENDINGS, ENDING | MARK),
        (range(0x30, 0x3A), NUMERAL),
        ((0x23,), HASH),
        ((0x2026,), ELLIPSIS),
    ):
        _add(kinds, places, flag)


def _add(kinds: U32, places: Iterable[int], flag: int) -> None:
    kinds[list(places)] |= np.uint32(flag)


def _lower() -> U32:
    """Lower case where it is one character, else the character itself."""
    lower = np.arange(LIMIT, dtype=np.uint32)
    for point in range(LIMIT):
        small = chr(point).lower()
        if len(small) == 1:
            lower[point] = ord(small)
    return lower
