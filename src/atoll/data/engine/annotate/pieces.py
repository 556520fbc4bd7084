"""Pieces: words and marks as tokenizers for published rules cut them, which count punctuation as words.

Text between white space is cut as spaCy's English rules do it (they are what datatrove and so FineWeb count): marks
part at both ends, `n't` and `'s` from their word, hyphens, slashes and the like between letters; dotted abbreviations,
faces and addresses stay whole. A character of a script without spaces is a piece by itself; Chinese is not segmented
into words. Case is kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from atoll.data.engine.annotate.addresses import is_address
from atoll.data.engine.annotate.blocks import Block
from atoll.data.engine.annotate.repetition import Trail
from atoll.data.engine.arrays import I64, U32
from atoll.data.engine.characters import (
    AFTER,
    BEFORE,
    CURRENCY,
    ICON,
    INSIDE,
    LETTER,
    LOWER,
    MARK,
    NUMERAL,
    QUOTE,
    SINGLE,
    SPACE,
    UPPER,
)
from atoll.data.engine.hashing import FACTOR, mix_one
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.scan import Lookup, find, lookup

COMMON_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The words of which English prose has at least two (Rae et al. 2021)."""

PIECE_COUNTERS = ("pieces", "plain_words", "plain_characters", "alphabetic_words", "common_words", "trodden")
"""Pieces; those of more than marks, and their characters; pieces with a letter; a bit for each common word; characters
up to the last piece on the trail.
"""
PIECES, _PLAIN_WORDS, _PLAIN_CHARACTERS, _ALPHABETIC, _COMMON, _TRODDEN = range(len(PIECE_COUNTERS))

_WHOLE, _UNIT = 9, 10
_KEPT_WHOLE = (
    *("a.m.", "p.m.", "e.g.", "E.g.", "i.e.", "I.e.", "vs.", "v.s.", "Mr.", "Mrs.", "Ms.", "Dr.", "Prof.", "St."),
    *("Jr.", "Inc.", "Ltd.", "Co.", "co.", "Corp.", "Bros.", "Gen.", "Gov.", "Rep.", "Rev.", "Sen.", "Ph.D.", "D.C."),
    *("Jan.", "Feb.", "Mar.", "Apr.", "Jun.", "Jul.", "Aug.", "Sep.", "Sept.", "Oct.", "Nov.", "Dec.", "Calif."),
    *("C++", "''", ":)", ":-)", ":(", ":-(", ";)", ";-)", ":/", ":]", ":}", ":D", ":P", ":p", ":x", ":X", ":o", "=)"),
    *("=]", "(=", "(:", "(;", "[:", "):", "8)", "(8", "<3", "</3", "^_^", "-_-", "._.", "0.0", "o.O", "\\n", "\\t"),
)
_UNITS = (
    *("km", "m", "dm", "cm", "mm", "nm", "ha", "yd", "in", "ft", "kg", "g", "mg", "t", "lb", "oz", "m/s", "km/h"),
    *("kmh", "mph", "hPa", "Pa", "mbar", "mb", "MB", "kb", "KB", "gb", "GB", "tb", "TB", "T", "G", "M", "K", "%"),
)
_UNIT_CHARACTERS = 4
_WHOLE_CHARACTERS = 6

_FACTOR, _ZERO, _ONE = np.uint64(FACTOR), np.uint64(0), np.uint64(1)
_CUTTING = BEFORE | AFTER | INSIDE
_ALPHA = LOWER | UPPER
_PLUS, _COMMA, _HYPHEN, _DOT, _PIPE, _TILDE, _COLON = (ord(mark) for mark in "+,-.|~:")
_EN_DASH, _EM_DASH, _ELLIPSIS, _APOSTROPHE, _CURLY_APOSTROPHE = 0x2013, 0x2014, 0x2026, 0x27, 0x2019

Bounds = I64
"""int64 (3, n): where each piece starts and stops; and room for ends that are parted from a run, the last first."""


@cache
def known_words() -> Lookup:
    """What cutting and counting look up."""
    groups = {number: [word] for number, word in enumerate(COMMON_WORDS, 1)}
    return lookup(groups | {_WHOLE: list(_KEPT_WHOLE), _UNIT: list(_UNITS)})


@bare
def cut(points: U32, kinds: U32, length: int, known: Lookup, bounds: Bounds) -> int:
    """Cut the first `length` characters into pieces, whose bounds go into `bounds`; how many."""
    place, held = 0, 0
    while place < length:
        first, union = place, np.uint32(0)
        while place < length and not kinds[place] & (SPACE | SINGLE):
            union |= kinds[place]
            place += 1
        if first < place:
            is_number = (union & NUMERAL) > 0 and (union & LETTER) > 0
            if union & _CUTTING or is_number:
                held = _cut_run(points, kinds, first, place, known, bounds, held)
            else:
                held = _put(bounds, held, first, place)
        if place < length:
            if kinds[place] & SINGLE:
                held = _put(bounds, held, place, place + 1)
            place += 1
    return held


@bare
def count(block: Block, held: int, before: int, known: Lookup, trail: Trail, counts: I64) -> None:
    """Count the pieces of a block that begins after `before` characters; lay them on the trail while it has room."""
    points, kinds, bounds = block.points, block.kinds, block.bounds
    hashes, ends = trail.hashes, trail.ends
    for piece in range(held):
        first, last = bounds[0, piece], bounds[1, piece]
        value, power = _ZERO, _ONE
        union, common = np.uint32(0), np.uint32(MARK)
        for i in range(first, last):
            value += (np.uint64(points[i]) + _ONE) * power
            power *= _FACTOR
            union |= kinds[i]
            common &= kinds[i]
        number, value = counts[PIECES], mix_one(value)
        if number < len(hashes):
            hashes[number] = value
            ends[number + 1] = ends[number] + (last - first)
            counts[_TRODDEN] = before + last
        counts[PIECES] = number + 1
        if not common & MARK:
            counts[_PLAIN_WORDS] += 1
            counts[_PLAIN_CHARACTERS] += last - first
        if union & LETTER:
            counts[_ALPHABETIC] += 1
            group = find(value, known) if last - first <= 4 else 0
            if 0 < group <= len(COMMON_WORDS):
                counts[_COMMON] |= 1 << (group - 1)


@inner
def _put(bounds: Bounds, held: int, first: int, last: int) -> int:
    bounds[0, held], bounds[1, held] = first, last
    return held + 1


@inner
def _cut_run(points: U32, kinds: U32, first: int, last: int, known: Lookup, bounds: Bounds, held: int) -> int:
    """Cut a run without white space: marks from both ends, then its middle; the new number of pieces."""
    parted, head, tail = 0, 1, 0
    while first < last and head + tail > 0 and not _is_whole(points, kinds, first, last, known):
        head = _head(points, kinds, first, last)
        if head > 0:
            held = _put(bounds, held, first, first + head)
            first += head
            if _is_whole(points, kinds, first, last, known):
                break
        tail = _tail(points, kinds, first, last, known)
        if tail > 0:
            bounds[2, parted] = last
            parted, last = parted + 1, last - tail
    if first < last:
        held = _cut_middle(points, kinds, first, last, known, bounds, held)
    for i in range(parted):
        stop = bounds[2, parted - i - 1]
        held, last = _put(bounds, held, last, stop), stop
    return held


@inner
def _group(points: U32, known: Lookup, first: int, last: int) -> int:
    value, power = _ZERO, _ONE
    for i in range(first, last):
        value += (np.uint64(points[i]) + _ONE) * power
        power *= _FACTOR
    return find(mix_one(value), known)


@inner
def _is_whole(points: U32, kinds: U32, first: int, last: int, known: Lookup) -> bool:
    """Whether these characters are an abbreviation, a letter with a dot, or a face."""
    if not 2 <= last - first <= _WHOLE_CHARACTERS:
        return False
    if last - first == 2 and points[last - 1] == _DOT and kinds[first] & _ALPHA:
        return True
    return _group(points, known, first, last) == _WHOLE


@inner
def _dots(points: U32, first: int, last: int) -> int:
    """How many dots stand from `first` on."""
    place = first
    while place < last and points[place] == _DOT:
        place += 1
    return place - first


@inner
def _head(points: U32, kinds: U32, first: int, last: int) -> int:
    """How many characters part from the beginning."""
    if points[first] == _DOT:
        dots = _dots(points, first, last)
        return dots if dots > 1 else 0
    if points[first] == _PLUS and first + 1 < last and kinds[first + 1] & NUMERAL:
        return 0
    return 1 if kinds[first] & BEFORE else 0


@inner
def _tail(points: U32, kinds: U32, first: int, last: int, known: Lookup) -> int:
    """How many characters part from the end."""
    if first >= last:
        return 0
    point, kind = points[last - 1], kinds[last - 1]
    before = kinds[last - 2] if last - first > 1 else np.uint32(0)
    if point == _DOT:
        return _tail_dots(points, kinds, first, last)
    if kind & AFTER:
        return 1
    if (kind & CURRENCY or point == _PLUS) and before & NUMERAL:
        return 1
    if (point == 0x73 or point == 0x53) and last - first > 1 and _is_apostrophe(points[last - 2]):
        return 2
    return _unit(points, kinds, first, last, known)


@inner
def _tail_dots(points: U32, kinds: U32, first: int, last: int) -> int:
    dots = 0
    while dots < last - first and points[last - 1 - dots] == _DOT:
        dots += 1
    if dots != 1 or last - first == 1:
        return dots if dots > 1 else 0
    point, kind = points[last - 2], kinds[last - 2]
    if kind & (NUMERAL | LOWER | QUOTE | AFTER) or point in (0x25, _PLUS, _HYPHEN, _PIPE, 0xB2):
        return 1
    return 1 if kind & UPPER and last - first > 2 and kinds[last - 3] & UPPER else 0


@inner
def _unit(points: U32, kinds: U32, first: int, last: int, known: Lookup) -> int:
    """The length of a unit that stands after a numeral."""
    length = 0
    while length < last - first and length <= _UNIT_CHARACTERS and not kinds[last - 1 - length] & NUMERAL:
        length += 1
    if length == 0 or length == last - first or length > _UNIT_CHARACTERS:
        return 0
    return length if _group(points, known, last - length, last) == _UNIT else 0


@inner
def _is_apostrophe(point: np.uint32) -> bool:
    return point in (_APOSTROPHE, _CURLY_APOSTROPHE)


@inner
def _cut_middle(points: U32, kinds: U32, first: int, last: int, known: Lookup, bounds: Bounds, held: int) -> int:
    if _is_whole(points, kinds, first, last, known):
        return _put(bounds, held, first, last)
    short = _contraction(points, kinds, first, last)
    if short > 0:
        held = _put(bounds, held, first, last - short)
        return _put(bounds, held, last - short, last)
    if is_address(points, kinds, first, last):
        return _put(bounds, held, first, last)
    return _cut_inside(points, kinds, first, last, bounds, held)


@inner
def _contraction(points: U32, kinds: U32, first: int, last: int) -> int:
    """Length of n't, 'll, 're, 've, 'm or 'd at the end of a word; 0 where there is none."""
    if last - first < 3:
        return 0
    end, before = points[last - 1] | 0x20, points[last - 2]
    if _is_apostrophe(before):
        if end == 0x74 and points[last - 3] | 0x20 == 0x6E and last - first > 3:
            return 3
        return 2 if end == 0x6D or end == 0x64 else 0
    if last - first > 3 and _is_apostrophe(points[last - 3]):
        before |= 0x20
        if end == 0x65 and (before == 0x72 or before == 0x76):
            return 3
        return 3 if end == 0x6C and before == 0x6C else 0
    return 0


@inner
def _cut_inside(points: U32, kinds: U32, first: int, last: int, bounds: Bounds, held: int) -> int:
    start, i = first, first
    while i < last:
        length = _inside(points, kinds, i, first, last) if kinds[i] & INSIDE else 0
        if length == 0 or i == first:
            i += max(1, length)
            continue
        if start < i:
            held = _put(bounds, held, start, i)
        held = _put(bounds, held, i, i + length)
        i += length
        start = i
    return _put(bounds, held, start, last) if start < last else held


@inner
def _inside(points: U32, kinds: U32, i: int, first: int, last: int) -> int:
    """Length of the mark at `i` that parts what stands around it; 0 where it parts nothing."""
    point = points[i]
    if kinds[i] & ICON or point == _ELLIPSIS:
        return 1
    dots = _dots(points, i, last)
    if dots > 1:
        return dots
    if i == first or i + 1 >= last:
        return 0
    before, after = kinds[i - 1], kinds[i + 1]
    if point == _DOT:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if point == _COMMA:
        return 1 if before & _ALPHA and after & _ALPHA else 0
    is_sum = point in (_PLUS, _HYPHEN, 0x2A, 0x5E) and before & NUMERAL
    if is_sum and (after & NUMERAL or points[i + 1] == _HYPHEN):
        return 1
    if not before & (_ALPHA | NUMERAL):
        return 0
    if point in (_COLON, 0x3C, 0x3D, 0x3E, 0x2F):
        return 1 if after & _ALPHA else 0
    return _hyphens(points, kinds, i, last)


@inner
def _hyphens(points: U32, kinds: U32, i: int, last: int) -> int:
    """Length of the dash at `i` before a letter: one to three hyphens, one or two em dashes, en dash or tilde."""
    point, length = points[i], 1
    most = 3 if point == _HYPHEN else 2 if point == _EM_DASH else 1
    if most == 1 and point != _EN_DASH and point != _TILDE:
        return 0
    while length < most and i + length < last and points[i + length] == point:
        length += 1
    return length if i + length < last and kinds[i + length] & _ALPHA else 0
