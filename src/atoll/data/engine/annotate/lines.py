"""Lines: one reading of a text, line by line, counts what rules ask of characters, lines, paragraphs and sentences.

A line ends at a line feed; a paragraph at two or more in a row. Lines and paragraphs are equal when all their
characters are. The first LINES_MAX different ones of a text are remembered; of longer texts later ones count as new.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atoll.data.engine import characters
from atoll.data.engine.annotate import phrases
from atoll.data.engine.annotate.blocks import PUNCTUATIONS, Block, raw_hash, tallied, tally
from atoll.data.engine.annotate.phrases import Phrases, find_phrases
from atoll.data.engine.arrays import I64, U8, U64
from atoll.data.engine.hashing import FACTOR, mix_one
from atoll.data.engine.kernel import bare, inlined, inner
from atoll.data.engine.scan import at, eight

SHORT_LINE_CHARACTERS = 30
FINISHED_WORDS_MIN = 3
FINISHED_WORD_CHARACTERS_MAX = 1000
SLOTS_MAX = 1 << 20
LINES_MAX = SLOTS_MAX * 3 // 4

LINE_COUNTERS = (
    *("characters", "newlines", "all_lines", "lines", "short_lines", "ended_lines", "bullet_lines"),
    *("ellipsis_lines", "dot_ellipses", "duplicate_lines", "duplicate_line_characters"),
    *("paragraphs", "duplicate_paragraphs", "duplicate_paragraph_characters"),
    *("finished_lines", "finished_sentences", "lorem_ipsum_lines", "curly_lines", "javascript_lines", "policy_lines"),
)
_PLACES = range(len(LINE_COUNTERS))
(_CHARACTERS, _NEWLINES, _ALL, LINES, _SHORT, _ENDED, _BULLETS, _ELLIPSES, _DOT_ELLIPSES) = _PLACES[:9]
(_DUPLICATE, _DUPLICATE_CHARACTERS, _PARAGRAPHS, _DUPLICATE_PARAGRAPHS, _DUPLICATE_PARAGRAPH_CHARACTERS) = _PLACES[9:14]
(_FINISHED, _FINISHED_SENTENCES, _LOREM_IPSUM, _CURLY, _JAVASCRIPT, _POLICY) = _PLACES[14:]

STATE = 12
"""Numbers a text is read with: of the line the byte it begins at, its characters, words, characters of the word that is
open and of the longest, first and last byte that is not white space, kind of its last character, sentences, and whether
the last of them has ended; characters of the paragraph; how many hashes are remembered.
"""
(_BEGIN, _SIZE, _WORDS, _WORD, _LONGEST, _FIRST, _LAST, _KIND, _SENTENCES, _IS_ENDED, _PARAGRAPH, _HELD) = range(STATE)
HASHES = 3
"""Hashes: of the line without white space and the factor of its next character; of the paragraph."""
_SOLID, _POWER, _OF_PARAGRAPH = range(HASHES)

_ENDING = characters.ENDING
_FACTOR, _ZERO, _ONE, _PARAGRAPH_SEED = np.uint64(FACTOR), np.uint64(0), np.uint64(1), np.uint64(0x5851F42D4C957F2D)
_NEWLINE, _DOT, _CLOSE, _OPEN, _HYPHEN = (ord(mark) for mark in "\n.][-")
_MAY_HAVE_DOTS, _HAS_CURLY = 1, 2
_LOW_BITS, _HIGH_BITS, _DOTS, _CURLIES = (np.uint64(0x0101010101010101 * byte) for byte in (1, 0x80, 0x2E, 0x7B))
_BYTE, _HALF = np.uint64(8), np.uint64(32)


class Lines(NamedTuple):
    """What lines are read with, and room for it: `state` and `hashes` of the line, `seen` lines and paragraphs."""

    phrases: Phrases
    state: I64
    hashes: U64
    seen: U64


def lines_room(newlines_max: int) -> Lines:
    """Room to read the lines of texts of at most so many line feeds each."""
    room = np.zeros(STATE, np.int64), np.zeros(HASHES, np.uint64), np.zeros(slots_of(newlines_max), np.uint64)
    return Lines(phrases.phrases(), *room)


@bare
def slots_of(newlines: int) -> int:
    """Slots for the lines and paragraphs of a text of so many line feeds."""
    slots = 16
    while slots < 4 * (newlines + 1) and slots < SLOTS_MAX:
        slots *= 2
    return slots


@inner
def count_newlines(data: U8, start: int, stop: int) -> int:
    """How many line feeds there are."""
    count = 0
    for place in range(start, stop):
        count += data[place] == 10
    return count


@bare
def most_newlines(data: U8, starts: I64) -> tuple[int, int]:
    """The most line feeds of a text, and those of all texts."""
    most, total = 0, 0
    for text in range(len(starts) - 1):
        count = count_newlines(data, starts[text], starts[text + 1])
        most, total = max(most, count), total + count
    return most, total


@inner
def begin(room: Lines, seen: U64, place: int) -> None:
    """Forget the text before; the next begins at byte `place`, `seen` is as much of room.seen as it needs."""
    seen[:] = _ZERO
    room.state[:] = 0
    room.hashes[_OF_PARAGRAPH] = _ZERO
    _begin_line(room.state, room.hashes, place)


@inlined
def _begin_line(state: I64, hashes: U64, place: int) -> None:
    state[:_PARAGRAPH] = 0
    state[_BEGIN], state[_FIRST] = place, -1
    hashes[_SOLID], hashes[_POWER] = _ZERO, _ONE


@inner
def read_lines(
    data: U8, block: Block, length: int, gaps: int, pieces: int, room: Lines, seen: U64, counts: I64, lines: U64
) -> None:
    """Read the next `length` characters of a text, which have so many `gaps` and are cut into so many `pieces`.

    Hashes of lines that end here go to `lines` where that has room.
    """
    state, hashes, words = room.state, room.hashes, room.phrases
    first, piece = 0, 0
    for gap in range(gaps):
        place = at(block.gaps, gap)
        if block.points[place] == _NEWLINE:
            piece = _add(block, first, place, piece, pieces, state, hashes, len(lines) > 0)
            close_line(data, at(block.places, place), words, state, hashes, seen, counts, lines)
            counts[_NEWLINES] += 1
            first = place + 1
    counts[_CHARACTERS] += length
    _add(block, first, length, piece, pieces, state, hashes, len(lines) > 0)


@inner
def end(data: U8, stop: int, room: Lines, seen: U64, counts: I64, lines: U64) -> None:
    """Close the last line and paragraph of the text that ends at byte `stop`."""
    state, hashes, words = room.state, room.hashes, room.phrases
    if state[_SIZE] > 0:
        close_line(data, stop, words, state, hashes, seen, counts, lines)
    _close_paragraph(state, hashes, seen, counts)


@inlined
def _add(block: Block, first: int, last: int, piece: int, pieces: int, state: I64, hashes: U64, with_hash: bool) -> int:
    """Add characters `first` to `last` of the block to the line, from `piece` on; the piece that comes next."""
    if first == last:
        return piece
    state[_SIZE] += last - first
    state[_KIND] = block.kinds[last - 1]
    until = _add_pieces(block, first, last, piece, pieces, state)
    if until > piece:
        state[_FIRST] = block.places[block.starts[piece]] if state[_FIRST] < 0 else state[_FIRST]
        state[_LAST] = block.places[block.stops[until - 1]]
        if with_hash:
            _add_hashes(block, piece, until, hashes)
    return until


@inlined
def _add_pieces(block: Block, first: int, last: int, piece: int, pieces: int, state: I64) -> int:
    """Count the words and sentences of the pieces before character `last`; the piece that comes next.

    A sentence begins with the line, and with the first piece after an ending mark that is no punctuation.
    """
    starts, stops, kinds, end = block.starts, block.stops, block.kinds, first
    words, word, longest = state[_WORDS], state[_WORD], state[_LONGEST]
    sentences, is_ended = state[_SENTENCES], state[_IS_ENDED]
    while piece < pieces and starts[piece] < last:
        start, stop = at(starts, piece), at(stops, piece)
        word = word if start == end else 0
        words += word == 0
        word += stop - start
        longest, end = max(longest, word), stop
        sentences = max(1, sentences)
        ends = np.int64((stop - start == 1) & ((kinds[start] & _ENDING) > 0))
        begins = is_ended & np.int64(tallied(tally(block, start, stop), PUNCTUATIONS) < stop - start) & 1 - ends
        sentences, is_ended = sentences + begins, is_ended - begins | ends
        piece += 1
    state[_WORDS], state[_WORD], state[_LONGEST] = words, word if end == last else 0, longest
    state[_SENTENCES], state[_IS_ENDED] = sentences, is_ended
    return piece


@inlined
def _add_hashes(block: Block, piece: int, until: int, hashes: U64) -> None:
    """Add the pieces to the hash of the line without white space."""
    solid, power = hashes[_SOLID], hashes[_POWER]
    for i in range(piece, until):
        start, stop = at(block.starts, i), at(block.stops, i)
        solid += raw_hash(block, start, stop) * power
        power *= block.powers[stop - start]
    hashes[_SOLID], hashes[_POWER] = solid, power


@inlined
def close_line(data: U8, end: int, words: Phrases, state: I64, hashes: U64, seen: U64, counts: I64, lines: U64) -> None:
    """Count the line that was read and ends before byte `end`, and begin the next."""
    size = state[_SIZE]
    counts[_ALL] += 1
    if size == 0:
        _close_paragraph(state, hashes, seen, counts)
    else:
        exact, marks = _survey(data, state[_BEGIN], end)
        _extend_paragraph(state, hashes, size, exact)
        if state[_LAST] > 0:
            if len(lines) > 0:
                lines[counts[LINES]] = mix_one(hashes[_SOLID])
            _count_line(data, marks, state, counts)
            if _is_repeated(state, seen, exact):
                counts[_DUPLICATE] += 1
                counts[_DUPLICATE_CHARACTERS] += size
            _judge(data, words, marks, state, counts)
    _begin_line(state, hashes, end + 1)


@inlined
def _survey(data: U8, start: int, stop: int) -> tuple[np.uint64, int]:
    """A hash of these bytes, eight at a time; and a bit for dots that may be three in a row, one for curly brackets."""
    value, dots, curlies = np.uint64(stop - start) * _FACTOR, _ZERO, _ZERO
    place = start
    while place < stop:
        word = eight(data, place) if place + 8 <= stop else _rest(data, place, stop)
        value = (value ^ word) * _FACTOR
        value ^= value >> _HALF
        unlike = word ^ _DOTS
        dots |= _zeros(unlike | unlike >> _BYTE)
        curlies |= _zeros(word ^ _CURLIES)
        place += 8
    return mix_one(value), (_MAY_HAVE_DOTS if dots else 0) | (_HAS_CURLY if curlies else 0)


@inlined
def _rest(data: U8, place: int, stop: int) -> np.uint64:
    """Up to seven bytes as one word."""
    word = _ZERO
    for i in range(stop - place):
        word |= np.uint64(data[place + i]) << np.uint64(8 * i)
    return word


@inlined
def _zeros(word: np.uint64) -> np.uint64:
    """Above 0 where a byte of the word is 0 (Warren, Hacker's Delight, 6-1)."""
    return np.uint64((word - _LOW_BITS) & ~word & _HIGH_BITS)


@inlined
def _count_line(data: U8, marks: int, state: I64, counts: I64) -> None:
    counts[LINES] += 1
    counts[_SHORT] += state[_SIZE] <= SHORT_LINE_CHARACTERS
    counts[_ENDED] += (state[_KIND] & _ENDING) > 0
    counts[_BULLETS] += _is_bullet(data, state[_FIRST])
    counts[_ELLIPSES] += _ends_in_ellipsis(data, state[_FIRST], state[_LAST])
    if marks & _MAY_HAVE_DOTS:
        counts[_DOT_ELLIPSES] += _dot_ellipses(data, state[_FIRST], state[_LAST])


@inlined
def _extend_paragraph(state: I64, hashes: U64, size: int, exact: np.uint64) -> None:
    state[_PARAGRAPH] += size + (state[_PARAGRAPH] > 0)
    hashes[_OF_PARAGRAPH] = hashes[_OF_PARAGRAPH] * _FACTOR + exact


@inlined
def _close_paragraph(state: I64, hashes: U64, seen: U64, counts: I64) -> None:
    size = state[_PARAGRAPH]
    if size == 0:
        return
    counts[_PARAGRAPHS] += 1
    if _is_repeated(state, seen, mix_one(hashes[_OF_PARAGRAPH] ^ _PARAGRAPH_SEED)):
        counts[_DUPLICATE_PARAGRAPHS] += 1
        counts[_DUPLICATE_PARAGRAPH_CHARACTERS] += size
    state[_PARAGRAPH] = 0
    hashes[_OF_PARAGRAPH] = _ZERO


@inlined
def _is_repeated(state: I64, seen: U64, key: np.uint64) -> bool:
    """Whether `key` was asked for before in this text; it is remembered from now on."""
    mask = np.uint64(len(seen) - 1)
    key = max(key, _ONE)
    slot = key & mask
    while seen[slot] != _ZERO:
        if seen[slot] == key:
            return True
        slot = (slot + _ONE) & mask
    if state[_HELD] < LINES_MAX:
        seen[slot] = key
        state[_HELD] += 1
    return False


@inner
def _is_bullet(data: U8, first: int) -> bool:
    """Whether a line begins with a hyphen or a bullet (U+2022)."""
    if data[first] == _HYPHEN:
        return True
    return bool(data[first] == 0xE2 and data[first + 1] == 0x80 and data[first + 2] == 0xA2)


@inner
def _ends_in_ellipsis(data: U8, first: int, last: int) -> bool:
    """Whether the bytes up to `last` end in three dots or in the character of three dots."""
    if last - first < 3:
        return False
    one, two, three = data[last - 3], data[last - 2], data[last - 1]
    return bool(one == two == three == _DOT) or bool(one == 0xE2 and two == 0x80 and three == 0xA6)


@inner
def _dot_ellipses(data: U8, first: int, last: int) -> int:
    """How many times three dots stand in the line, none counted twice."""
    found, dots = 0, 0
    for place in range(first, last):
        dots = dots + 1 if data[place] == _DOT else 0
        if dots == 3:
            found, dots = found + 1, 0
    return found


@inner
def _judge(data: U8, table: Phrases, marks: int, state: I64, counts: I64) -> None:
    """Count the line if it is finished: a mark at its end, three words, none too long (Raffel et al. 2020)."""
    if state[_WORDS] < FINISHED_WORDS_MIN or state[_LONGEST] > FINISHED_WORD_CHARACTERS_MAX:
        return
    first, last = state[_FIRST], _before_citations(data, state[_FIRST], state[_LAST])
    if last == first or data[last - 1] not in (0x2E, 0x3F, 0x21, 0x22, 0x27):
        return
    if last - first >= 3 and data[last - 3] == data[last - 2] == data[last - 1] == _DOT:
        return
    counts[_FINISHED] += 1
    found = find_phrases(data, first, last, table)
    counts[_LOREM_IPSUM] += (found & phrases.LOREM_IPSUM) > 0
    if found & phrases.JAVASCRIPT:
        counts[_JAVASCRIPT] += 1
        return
    counts[_CURLY] += (marks & _HAS_CURLY) > 0
    if found & phrases.POLICY:
        counts[_POLICY] += 1
        return
    counts[_FINISHED_SENTENCES] += state[_SENTENCES]


@inner
def _before_citations(data: U8, first: int, last: int) -> int:
    """Where the line ends without numbers in square brackets behind it."""
    while last - first >= 2 and data[last - 1] == _CLOSE:
        place = last - 2
        while place > first and 0x30 <= data[place] <= 0x39:
            place -= 1
        if data[place] != _OPEN:
            break
        last = place
    return last
