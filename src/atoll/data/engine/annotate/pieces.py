"""Pieces: words and marks as tokenizers for published rules cut them, which count punctuation as words.

Text between white space is cut as spaCy's English rules do it (they are what datatrove and so FineWeb count): marks
part at both ends, `n't` and `'s` from their word, hyphens, slashes and the like between letters; dotted abbreviations,
faces and addresses stay whole. A character of a script without spaces is a piece by itself; Chinese is segmented into
words only where that was asked for (see `words`). Case is kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from atoll.data.engine.annotate.addresses import is_address
from atoll.data.engine.annotate.blocks import CUTTING, LETTERS, MARKS, NUMERALS, Block, raw_hash, tallied, tally
from atoll.data.engine.annotate.repetition import Trail
from atoll.data.engine.arrays import I64, U32, U64
from atoll.data.engine.characters import (
    AFTER,
    BEFORE,
    CURRENCY,
    ICON,
    INSIDE,
    LOWER,
    NUMERAL,
    QUOTE,
    SINGLE,
    UPPER,
)
from atoll.data.engine.hashing import FACTOR, MASK, mix_one
from atoll.data.engine.kernel import inlined, inner
from atoll.data.engine.scan import Lookup, at, find, lookup

COMMON_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The words of which English prose has at least two (Rae et al. 2021)."""

PIECE_COUNTERS = ("pieces", "plain_words", "plain_characters", "alphabetic_words", "common_words", "trodden")
"""Pieces; those of more than marks, and their characters; pieces with a letter; a bit for each common word; characters
up to the last piece on the trail.
"""
PIECES, _PLAIN_WORDS, _PLAIN_CHARACTERS, _ALPHABETIC, _COMMON, _TRODDEN = range(len(PIECE_COUNTERS))

_WHOLE, _UNIT = 1, 2
_COMMON_SLOTS = 64
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

_ZERO, _COMMON_MASK = np.uint64(0), np.uint64(_COMMON_SLOTS - 1)
_ALPHA = LOWER | UPPER
_PLUS, _COMMA, _HYPHEN, _DOT, _PIPE, _TILDE, _COLON = (ord(mark) for mark in "+,-.|~:")
_EN_DASH, _EM_DASH, _ELLIPSIS, _APOSTROPHE, _CURLY_APOSTROPHE = 0x2013, 0x2014, 0x2026, 0x27, 0x2019

Common = U64
"""uint64 (2, slots): hashes of COMMON_WORDS before they are mixed, each where its lowest bits say, and its bit."""


@cache
def known_words() -> Lookup:
    """What cutting and counting look up."""
    return lookup({_WHOLE: list(_KEPT_WHOLE), _UNIT: list(_UNITS)})


@cache
def common_words() -> Common:
    """COMMON_WORDS, found at one look each."""
    table = np.zeros((2, _COMMON_SLOTS), np.uint64)
    for number, word in enumerate(COMMON_WORDS):
        key = sum((ord(letter) + 1) * FACTOR**place for place, letter in enumerate(word)) & MASK
        slot = key % _COMMON_SLOTS
        assert not table[0, slot], "two common words in one place"
        table[:, slot] = key, 1 << number
    return table


@inner
def cut(block: Block, length: int, gaps: int, known: Lookup) -> int:
    """Cut the first `length` characters, which have so many `gaps`, into pieces, block.starts and stops; how many."""
    held, first = 0, 0
    block.gaps[gaps] = length
    for gap in range(gaps + 1):
        place = at(block.gaps, gap)
        if first < place:
            held = _cut_run(block, first, place, known, held)
        if place < length and block.kinds[place] & SINGLE:
            held = _put(block, held, place, place + 1)
        first = place + 1
    return held


@inner
def count(block: Block, held: int, before: int, common: Common, trail: Trail, counts: I64) -> None:
    """Count the pieces of a block that begins after `before` characters; lay them on the trail while it has room."""
    starts, stops, tallies = block.starts, block.stops, block.tallies
    laid = min(held, max(0, len(trail.hashes) - counts[PIECES]))
    _lay(block, laid, counts[PIECES], trail)
    if laid > 0:
        counts[_TRODDEN] = before + at(stops, laid - 1)
    counts[PIECES] += held
    plain, characters, alphabetic, met = 0, 0, 0, _ZERO
    for piece in range(held):
        first, last = at(starts, piece), at(stops, piece)
        found, size = tallies[last] - tallies[first], last - first
        is_plain = tallied(found, MARKS) < size
        plain += int(is_plain)
        characters += size if is_plain else 0
        alphabetic += int(tallied(found, LETTERS) > 0)
        key = raw_hash(block, first, last)
        slot = key & _COMMON_MASK
        met |= common[1, slot] if common[0, slot] == key else _ZERO
    counts[_PLAIN_WORDS] += plain
    counts[_PLAIN_CHARACTERS] += characters
    counts[_ALPHABETIC] += alphabetic
    counts[_COMMON] |= np.int64(met)


@inlined
def _lay(block: Block, held: int, before: int, trail: Trail) -> None:
    """Lay the first `held` pieces behind the `before` that are on the trail."""
    starts, stops, hashes, ends = block.starts, block.stops, trail.hashes, trail.ends
    end = int(ends[before]) if held > 0 else 0
    for piece in range(held):
        first, last = at(starts, piece), at(stops, piece)
        end += last - first
        hashes[before + piece] = mix_one(raw_hash(block, first, last))
        ends[before + piece + 1] = end


@inlined
def _put(block: Block, held: int, first: int, last: int) -> int:
    block.starts[held], block.stops[held] = first, last
    return held + 1


@inlined
def _cut_run(block: Block, first: int, last: int, known: Lookup, held: int) -> int:
    """Cut a run without white space; the new number of pieces.

    Most runs have no mark, or one at an end that parts whatever the word is; only the others are looked at closely.
    """
    found = tally(block, first, last)
    marks = tallied(found, CUTTING)
    is_number = tallied(found, NUMERALS) > 0 and tallied(found, LETTERS) > 0
    if marks > 1 or is_number:
        return _cut_closely(block, first, last, known, held)
    if marks == 0 or last - first == 1:
        return _put(block, held, first, last)
    middle = _sole_mark(block.points, block.kinds, first, last)
    if middle == first or _is_whole(block, first, last, known):
        return _cut_closely(block, first, last, known, held)
    held = _put(block, held, first, middle)
    return _put(block, held, middle, last)


@inlined
def _sole_mark(points: U32, kinds: U32, first: int, last: int) -> int:
    """Where the only mark of a run parts it in two because it is at an end; `first` where that is not so."""
    if kinds[last - 1] & AFTER and points[last - 1] != _DOT:
        return last - 1
    if points[last - 1] == _DOT:
        return last - 1 if kinds[last - 2] & (NUMERAL | LOWER) else first
    return first + 1 if kinds[first] & BEFORE and points[first] != _PLUS else first


@inlined
def _cut_closely(block: Block, first: int, last: int, known: Lookup, held: int) -> int:
    """Cut a run without white space: marks from both ends, then its middle; the new number of pieces."""
    points, kinds, parted = block.points, block.kinds, block.parted
    count, head, tail = 0, 1, 0
    while first < last and head + tail > 0 and not _is_whole(block, first, last, known):
        head = _head(points, kinds, first, last)
        if head > 0:
            held = _put(block, held, first, first + head)
            first += head
            if _is_whole(block, first, last, known):
                break
        tail = _tail(block, first, last, known)
        if tail > 0:
            parted[count] = last
            count, last = count + 1, last - tail
    if first < last:
        held = _cut_middle(block, first, last, known, held)
    for i in range(count):
        stop = at(parted, count - i - 1)
        held, last = _put(block, held, last, stop), stop
    return held


@inlined
def _group(block: Block, known: Lookup, first: int, last: int) -> int:
    return find(np.uint64(mix_one(raw_hash(block, first, last))), known)


@inlined
def _is_whole(block: Block, first: int, last: int, known: Lookup) -> bool:
    """Whether these characters are an abbreviation, a letter with a dot, or a face."""
    if not 2 <= last - first <= _WHOLE_CHARACTERS:
        return False
    if last - first == 2 and block.points[last - 1] == _DOT and block.kinds[first] & _ALPHA:
        return True
    return _group(block, known, first, last) == _WHOLE


@inner
def _dots(points: U32, first: int, last: int) -> int:
    """How many dots stand from `first` on."""
    place = first
    while place < last and points[place] == _DOT:
        place += 1
    return place - first


@inlined
def _head(points: U32, kinds: U32, first: int, last: int) -> int:
    """How many characters part from the beginning."""
    if points[first] == _DOT:
        dots = _dots(points, first, last)
        return dots if dots > 1 else 0
    if points[first] == _PLUS and first + 1 < last and kinds[first + 1] & NUMERAL:
        return 0
    return 1 if kinds[first] & BEFORE else 0


@inlined
def _tail(block: Block, first: int, last: int, known: Lookup) -> int:
    """How many characters part from the end."""
    points, kinds = block.points, block.kinds
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
    return _unit(block, first, last, known)


@inlined
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


@inlined
def _unit(block: Block, first: int, last: int, known: Lookup) -> int:
    """The length of a unit that stands after a numeral."""
    length = 0
    while length < last - first and length <= _UNIT_CHARACTERS and not block.kinds[last - 1 - length] & NUMERAL:
        length += 1
    if length == 0 or length == last - first or length > _UNIT_CHARACTERS:
        return 0
    return length if _group(block, known, last - length, last) == _UNIT else 0


@inlined
def _is_apostrophe(point: np.uint32) -> bool:
    return point in (_APOSTROPHE, _CURLY_APOSTROPHE)


@inlined
def _cut_middle(block: Block, first: int, last: int, known: Lookup, held: int) -> int:
    points, kinds = block.points, block.kinds
    if _is_whole(block, first, last, known):
        return _put(block, held, first, last)
    short = _contraction(points, kinds, first, last)
    if short > 0:
        held = _put(block, held, first, last - short)
        return _put(block, held, last - short, last)
    if is_address(points, kinds, first, last):
        return _put(block, held, first, last)
    return _cut_inside(block, first, last, held)


@inlined
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


@inlined
def _cut_inside(block: Block, first: int, last: int, held: int) -> int:
    points, kinds = block.points, block.kinds
    start, i = first, first
    while i < last:
        length = _inside(points, kinds, i, first, last) if kinds[i] & INSIDE else 0
        if length == 0 or i == first:
            i += max(1, length)
            continue
        if start < i:
            held = _put(block, held, start, i)
        held = _put(block, held, i, i + length)
        i += length
        start = i
    return _put(block, held, start, last) if start < last else held


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
