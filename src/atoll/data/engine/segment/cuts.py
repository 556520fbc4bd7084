"""Cuts: where the words of Chinese texts start, as the package jieba cuts them, for a whole batch of texts.

A text is cut where Han characters fill a seventh of its bytes or more; others are left to the rules that cut English.
White space parts words and is in none; any other character outside a block (see `route`) is a word by itself.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from atoll.data.engine.arrays import I64, U8, U32, Flags
from atoll.data.engine.characters import LIMIT, SINGLE, SPACE, WORD, characters
from atoll.data.engine.hashing import FACTOR, mix_one
from atoll.data.engine.kernel import bare, inlined
from atoll.data.engine.scan import STOP_WORDS, Lookup, decode, find, stop_words, utf8_of
from atoll.data.engine.segment.jieba import ASCII, FIRST_HAN, LAST_HAN, SLOTS, Model
from atoll.data.engine.segment.route import Route, cut_block, route

_HAN_BYTES, _BYTES_PER_HAN = 3, 21
_MARK, _LETTER = 1, 2
_WORDS, _STOP_WORDS = 0, 1
_STOP_WORD_CHARACTERS = max(map(len, STOP_WORDS))
_CAPITAL_A, _CAPITAL_Z, _TO_LOWER = 0x41, 0x5A, 0x20
_ONE, _ZERO, _FACTOR = np.uint64(1), np.uint64(0), np.uint64(FACTOR)


class Cuts(NamedTuple):
    """starts: a bit for each byte of a batch and one more, the lowest of eight first; 1 where a word starts. is_cut:
    whether a text was cut. counts: int64 (texts, 2), its words with a letter or a digit, and those that are stop words.
    """

    starts: U8
    is_cut: Flags
    counts: I64


class _Tables(NamedTuple):
    """kinds of all characters; stop_words; `roles` of ASCII characters; is_stop: of each slot, if it is a stop word."""

    kinds: U32
    stop_words: Lookup
    roles: U8
    is_stop: Flags


def cuts(texts: pa.StringArray, model: Model) -> Cuts:
    """Cut each of `texts` that is Chinese."""
    data, starts = utf8_of(texts)
    found = Cuts(
        np.zeros(len(data) // 8 + 1, np.uint8), np.zeros(len(texts), bool), np.zeros((len(texts), 2), np.int64)
    )
    cut_texts(data, starts, _tables(), route(), model, found)
    return found


def uncut(texts: pa.StringArray) -> Cuts:
    """None of `texts` is cut."""
    return _nothing(0, len(texts))


def _nothing(size: int, count: int) -> Cuts:
    return Cuts(np.zeros(size // 8 + 1, np.uint8), np.zeros(count, bool), np.zeros((count, 2), np.int64))


@inlined
def is_start(starts: U8, place: int) -> bool:
    """Whether a word starts at the byte `place`."""
    return bool(starts[place >> 3] >> np.uint8(place & 7) & np.uint8(1))


@cache
def _tables() -> _Tables:
    roles, is_stop = np.zeros(ASCII, np.uint8), np.zeros(SLOTS, bool)
    roles[[ord(mark) for mark in "+#&._%-"]] = _MARK
    for first, last in ("09", "AZ", "az", "__"):
        roles[ord(first) : ord(last) + 1] = _LETTER
    singles = [ord(word) for word in STOP_WORDS if len(word) == 1]
    singles += [ord(word.upper()) for word in STOP_WORDS if len(word) == 1 and word.isascii()]
    is_stop[[point for point in singles if point < ASCII]] = True
    is_stop[[point - FIRST_HAN + ASCII for point in singles if FIRST_HAN <= point <= LAST_HAN]] = True
    return _Tables(characters().kinds, stop_words(), roles, is_stop)


@bare
def cut_texts(data: U8, starts: I64, tables: _Tables, room: Route, model: Model, found: Cuts) -> None:
    """Fill `found`, whose arrays are zeros, with what it promises."""
    for text in range(len(starts) - 1):
        start, stop = starts[text], starts[text + 1]
        found.is_cut[text] = is_chinese(data, start, stop)
        if found.is_cut[text]:
            _cut_text(data, start, stop, tables, room, model, found.starts, found.counts[text])


@bare
def is_chinese(data: U8, start: int, stop: int) -> bool:
    """Whether Han characters fill enough of a text."""
    count = 0
    for place in range(start, stop):
        count += 0xE4 <= data[place] <= 0xE9  # what the characters from U+4000 to U+9FFF begin with
    return count > 0 and count * _BYTES_PER_HAN >= stop - start


@inlined
def _cut_text(data: U8, place: int, stop: int, tables: _Tables, room: Route, model: Model, bits: U8, row: I64) -> None:
    kinds = tables.kinds
    while place < stop:
        begin = place
        place, length = _read_block(data, place, stop, tables.roles, room)
        if length > 0:
            cut_block(room, length, model)
            _note_block(begin, length, tables, room, bits, row)
            continue
        point, place = decode(data, begin)
        kind = kinds[point] if point < LIMIT else np.uint32(0)
        if not kind & SPACE:
            _mark(bits, begin)
            row[_WORDS] += (kind & (WORD | SINGLE)) > 0
            row[_STOP_WORDS] += (kind & SINGLE) > 0 and find(mix_one(np.uint64(point) + _ONE), tables.stop_words) > 0


@inlined
def _read_block(data: U8, place: int, stop: int, roles: U8, room: Route) -> tuple[int, int]:
    """Put the characters of the block at `place` into room.slots; where it ends and how many there are."""
    slots, length = room.slots, 0
    while place < stop and length < len(slots) - 1:
        first = data[place]
        if first < ASCII:
            if roles[first] == 0:
                break
            slots[length], place = first, place + 1
        elif 0xE4 <= first <= 0xE9:
            point, after = decode(data, place)
            if not FIRST_HAN <= point <= LAST_HAN:
                break
            slots[length], place = np.int64(point) - FIRST_HAN + ASCII, after
        else:
            break
        length += 1
    return place, length


@inlined
def _note_block(place: int, length: int, tables: _Tables, room: Route, bits: U8, row: I64) -> None:
    """Mark and count the words of a block that starts at byte `place`."""
    first = 0
    while first < length:
        _mark(bits, place)
        last, is_word = first, False
        while last == first or (last < length and not room.is_start[last]):
            slot = room.slots[last]
            is_word |= slot >= ASCII or tables.roles[slot] == _LETTER
            place += 1 if slot < ASCII else _HAN_BYTES
            last += 1
        row[_WORDS] += is_word
        row[_STOP_WORDS] += _is_stop_word(room, first, last, tables)
        first = last


@inlined
def _is_stop_word(room: Route, first: int, last: int, tables: _Tables) -> bool:
    """Whether a word of a block is one; those of more than a character are Latin."""
    if last - first == 1:
        return bool(tables.is_stop[room.slots[first]])
    if last - first > _STOP_WORD_CHARACTERS:
        return False
    value, power = _ZERO, _ONE
    for place in range(first, last):
        slot = room.slots[place]
        if slot >= ASCII:
            return False
        value += (np.uint64(slot + _TO_LOWER if _CAPITAL_A <= slot <= _CAPITAL_Z else slot) + _ONE) * power
        power *= _FACTOR
    return find(mix_one(value), tables.stop_words) > 0


@inlined
def _mark(bits: U8, place: int) -> None:
    bits[place >> 3] |= np.uint8(1 << (place & 7))
