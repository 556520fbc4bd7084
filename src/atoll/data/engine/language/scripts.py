"""Scripts: how many letters of each a text has, and the words of its excerpts as the language model takes them."""

from __future__ import annotations

from functools import cache

import numpy as np

from atoll.data.engine.arrays import I32, U8
from atoll.data.engine.characters import LETTER, LIMIT, characters
from atoll.data.engine.kernel import inner
from atoll.data.engine.language.predict import CLOSE, OPEN
from atoll.data.engine.language.telling import telling
from atoll.data.engine.scan import decode

SCRIPTS: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...] = (
    ("latin", "", ((0x41, 0x250), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800))),
    ("cyrillic", "", ((0x400, 0x530), (0x1C80, 0x1C90), (0x2DE0, 0x2E00), (0xA640, 0xA6A0))),
    ("arabic", "", ((0x600, 0x700), (0x750, 0x780), (0x8A0, 0x900), (0xFB50, 0xFE00), (0xFE70, 0xFF00))),
    ("devanagari", "", ((0x900, 0x980), (0xA8E0, 0xA900))),
    ("hebrew", "", ((0x590, 0x600), (0xFB1D, 0xFB50))),
    ("bengali", "", ((0x980, 0xA00),)),
    ("other", "", ()),
    ("han", "zh", ((0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, LIMIT))),
    ("hans", "zh", ()),
    ("hant", "zh", ()),
    ("kana", "ja", ((0x3040, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFF9E))),
    ("hangul", "ko", ((0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD7B0))),
    ("greek", "el", ((0x370, 0x400), (0x1F00, 0x2000))),
    ("armenian", "hy", ((0x530, 0x590),)),
    ("georgian", "ka", ((0x10A0, 0x1100), (0x1C90, 0x1CC0), (0x2D00, 0x2D30))),
    ("thai", "th", ((0xE00, 0xE80),)),
    ("lao", "lo", ((0xE80, 0xF00),)),
    ("tibetan", "bo", ((0xF00, 0x1000),)),
    ("myanmar", "my", ((0x1000, 0x10A0),)),
    ("ethiopic", "am", ((0x1200, 0x13A0),)),
    ("khmer", "km", ((0x1780, 0x1800),)),
    ("gurmukhi", "pa", ((0xA00, 0xA80),)),
    ("gujarati", "gu", ((0xA80, 0xB00),)),
    ("oriya", "or", ((0xB00, 0xB80),)),
    ("tamil", "ta", ((0xB80, 0xC00),)),
    ("telugu", "te", ((0xC00, 0xC80),)),
    ("kannada", "kn", ((0xC80, 0xD00),)),
    ("malayalam", "ml", ((0xD00, 0xD80),)),
    ("sinhala", "si", ((0xD80, 0xE00),)),
    ("thaana", "dv", ((0x780, 0x7C0),)),
    ("syriac", "syr", ((0x700, 0x750),)),
)
"""Name, the language the script decides (empty: the model is asked), and ranges of its code points."""


_NAMES = [name for name, _, _ in SCRIPTS]
HAN, HANS, HANT, KANA, HANGUL = map(_NAMES.index, ("han", "hans", "hant", "kana", "hangul"))
_OTHER = _NAMES.index("other")
_NONE = 255
_APOSTROPHE, _QUOTE = 0x27, 0x2019
"""Both stand in words."""
_MARKS = 0x300
"""From here on there are marks that belong to letters, which are no letters themselves."""

EXCERPTS = 3
EXCERPT_BYTES = 192
_SLACK = 48
"""An excerpt may be longer by so much, to end where a word does."""
LETTERS_BYTES = 2 * EXCERPTS * (EXCERPT_BYTES + _SLACK)
"""Room for the words of a text: a letter and what parts it from the next become three bytes at most."""


@cache
def script_table() -> U8:
    """The script of every code point below LIMIT by its number; 255: no letter."""
    table = np.full(LIMIT, _NONE, np.uint8)
    tables = characters()
    table[((tables.flags & LETTER) > 0)[tables.classes]] = _OTHER
    for number, (_, _, ranges) in enumerate(SCRIPTS):
        for start, stop in ranges:
            part = table[start:stop]
            part[part == _OTHER] = number
    for number, letters in zip((HANS, HANT), telling(), strict=True):
        table[np.frombuffer(letters.encode("utf-32-le"), "<u4")] = number
    table.setflags(write=False)
    return table


@inner
def read_excerpts(data: U8, begin: int, end: int, table: U8, counts: I32, letters: U8) -> int:
    """Count the scripts of a text's excerpts, or of all of a short one, and copy their words; where these end."""
    room = 0
    if end - begin <= EXCERPTS * EXCERPT_BYTES:
        return _read(data, begin, end, table, counts, letters, room)
    step = (end - begin) // EXCERPTS
    for piece in range(EXCERPTS):
        first = begin + piece * step + (step - EXCERPT_BYTES) // 2
        start = _word_start(data, first, first + EXCERPT_BYTES)
        stop = _word_start(data, first + EXCERPT_BYTES, end)
        room = _read(data, start, stop, table, counts, letters, room)
    return room


@inner
def count_telling(data: U8, begin: int, end: int, table: U8, counts: I32) -> None:
    """Count the letters of a whole text that tell a Chinese script, in place of those of its excerpts."""
    counts[HANS] = counts[HANT] = 0
    place = begin
    while place < end:
        point, place = decode(data, place)
        script = table[point] if point < LIMIT else np.uint8(_NONE)
        if script in (HANS, HANT):
            counts[script] += 1


@inner
def _word_start(data: U8, place: int, stop: int) -> int:
    """Where a word or at least a character starts, from `place` on."""
    for here in range(place, min(stop, place + 32)):
        if data[here] <= 32:
            return here
    while place < stop and data[place] & 0xC0 == 0x80:
        place += 1
    return place


@inner
def _read(data: U8, start: int, stop: int, table: U8, counts: I32, letters: U8, room: int) -> int:
    """Count the scripts of an excerpt, copy its words to `letters` at `room`, each in its marks; the new end."""
    place, is_open = start, False
    while place < stop:
        point, after = decode(data, place)
        script = table[point] if point < LIMIT else np.uint8(_NONE)
        if script != _NONE:
            counts[script] += 1
        if script != _NONE or point == _APOSTROPHE or (point >= _MARKS and not _is_sign(point)):
            if not is_open:
                letters[room] = OPEN
                room, is_open = room + 1, True
            for here in range(place, after):
                letters[room] = data[here]
                room += 1
        elif is_open:
            letters[room] = CLOSE
            room, is_open = room + 1, False
        place = after
    if is_open:
        letters[room] = CLOSE
        room += 1
    return room


@inner
def _is_sign(point: np.uint32) -> bool:
    """Punctuation and symbols beyond Latin, which are no marks of letters."""
    if point == _QUOTE:
        return False
    return bool(0x2000 <= point < 0x2C00 or 0x3000 <= point < 0x3005 or 0x3008 <= point < 0x3040 or point >= 0xFF00)
