"""Untidiness: which texts of a column hold something that normalisation would change, found in one look at the bytes.

It tells of control and invisible characters, line ends of other kinds, spaces at line ends and blank lines; and which
texts may not be composed (NFC), for only some characters ever change. See `normalise` for what is done about it. Most
blocks of bytes hold nothing of the kind, which is found for all their bytes at once.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.arrays import U8
from atoll.data.engine.kernel import bare, inner, kernel

UNTIDY, SPECIAL, LOOSE = 1, 2, 4
"""Something is to be changed; among it are characters to be removed or turned into line ends, other than \\r; there
are characters that may have to be composed."""

_RECORD, _UNIT = 0x1E, 0x1F
_TAB, _NEWLINE, _RETURN, _SPACE, _DELETE = 0x09, 0x0A, 0x0D, 0x20, 0x7F
_PLAIN, _CONTROL, _END, _LEAD, _LOOSE = 0, 1, 2, 3, 4
_BLOCK = 64
_ONE, _TWO = np.uint64(1), np.uint64(2)


def _classes() -> U8:
    """What a byte may be the start of.

    In blocks of characters that are _PLAIN, or no faults where the first byte is E2, E3, EA, EF or F0, none combines
    with another or has a composed form (Unicode Standard Annex 15).
    """
    classes = np.zeros(256, np.uint8)
    classes[:0x20] = _CONTROL
    classes[_DELETE] = _CONTROL
    classes[_TAB] = _PLAIN
    classes[[_NEWLINE, _RETURN]] = _END
    classes[[*range(0xCC, 0xCF), 0xD2, *range(0xD6, 0xE2), *range(0xF1, 0x100)]] = _LOOSE
    classes[[0xC2, 0xE2, 0xE3, 0xEA, 0xEF, 0xF0]] = _LEAD
    return classes


_CLASSES = _classes()


def untidy(texts: pa.StringArray, is_chat: NDArray[np.bool_]) -> U8:
    """UNTIDY, SPECIAL and LOOSE of every text; a chat's marks are no fault where they stand as they should."""
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    found = np.zeros(len(texts), np.uint8)
    if len(texts) and places[-1] > places[0]:
        _look(np.frombuffer(data, np.uint8), places, is_chat, found)
    return found


@kernel
def _look(data: U8, places: NDArray[np.int32], is_chat: NDArray[np.bool_], found: U8) -> None:
    for row in range(len(found)):
        start, stop = places[row], places[row + 1]
        if is_chat[row]:
            found[row] = _of_chat(data, start, stop)
        else:
            found[row] = _of_text(data, start, stop)


@bare
def _of_text(data: U8, start: int, stop: int) -> int:
    found = UNTIDY if _ends_in_space(data, start, stop) else 0
    place = start
    while place < stop:
        place = _next_block(data, start, place, stop, found)
        last = min(place + _BLOCK, stop)
        for here in range(place, last):
            kind = _CLASSES[data[here]]
            if kind != _PLAIN:
                found |= _faults(data, start, here, kind)
        place = last
    return found


@bare
def _of_chat(data: U8, start: int, stop: int) -> int:
    """As for a text, with messages that each begin with RECORD and hold one UNIT."""
    found = UNTIDY if _ends_in_space(data, start, stop) else 0
    expects_unit = False
    place = start
    while place < stop:
        place = _next_block(data, start, place, stop, found)
        last = min(place + _BLOCK, stop)
        for here in range(place, last):
            byte = data[here]
            if byte == _RECORD:
                if expects_unit or (here > start and _ends_in_space(data, start, here)):
                    found |= UNTIDY
                expects_unit = True
            elif byte == _UNIT:
                if not expects_unit or (here + 1 < stop and data[here + 1] == _NEWLINE):
                    found |= UNTIDY
                expects_unit = False
            elif _CLASSES[byte] != _PLAIN:
                found |= _faults(data, start, here, _CLASSES[byte])
        place = last
    if start < stop and data[start] != _RECORD:  # it is no chat, so its marks are faults too
        return found | UNTIDY | SPECIAL
    return found | UNTIDY if expects_unit else found


@inner
def _next_block(data: U8, start: int, place: int, stop: int, found: int) -> int:
    """The first block from `place` on that may hold a fault which is not known; a text begins and ends with such."""
    if place < start + 2:
        return place
    is_loose = found & LOOSE != 0
    while place + _BLOCK + 2 <= stop and not _is_suspect(data, place, is_loose):
        place += _BLOCK
    return place


@inner
def _is_suspect(data: U8, place: int, is_loose: bool) -> bool:
    """Whether a byte of the block may begin a fault. Places are unsigned, or the loop would not become vectors."""
    is_found = False
    begin = np.uint64(place)
    for step in range(_BLOCK):
        here = begin + np.uint64(step)
        byte, second, third = data[here], data[here + _ONE], data[here + _TWO]
        last, earlier = data[here - _ONE], data[here - _TWO]
        is_found |= (byte < _SPACE) & (byte != _TAB) & (byte != _NEWLINE) | (byte == _DELETE)
        is_found |= (byte == _NEWLINE) & ((last == _SPACE) | (last == _TAB) | (last == 0xA0) | (last == 0x80))
        is_found |= (byte == _NEWLINE) & (last == _NEWLINE) & (earlier == _NEWLINE)
        is_found |= (byte == 0xC2) & ((second < 0xA0) | (second == 0xAD))
        is_found |= (byte == 0xE2) & (second == 0x80) & ((third < 0x82) | (third == 0x8B) | _is_among(third, 0xA8, 2))
        is_found |= (byte == 0xE2) & (second == 0x81) & (third == 0xA0)
        is_found |= (byte == 0xEF) & ((second == 0xBB) & (third == 0xBF) | (second == 0xBF) & (third >= 0xBE))
        if not is_loose:
            is_found |= _is_among(byte, 0xCC, 3) | (byte == 0xD2) | _is_among(byte, 0xD6, 12) | (byte > 0xF0)
            is_found |= (byte == 0xE2) & _is_loose_symbol(second)
            is_found |= (byte == 0xE3) & (second == 0x80) & _is_among(third, 0xAA, 6)
            is_found |= (byte == 0xE3) & (second == 0x82) & _is_among(third, 0x99, 2)
            is_found |= (byte == 0xEA) & (second < 0xB0)
            is_found |= (byte == 0xEF) & ((second < 0xAE) | (second == 0xB8) & (third >= 0xA0))
            is_found |= (byte == 0xF0) & (second != 0x9F)
    return is_found


@inner
def _faults(data: U8, start: int, place: int, kind: int) -> int:
    """What is wrong with the character that starts at `place`."""
    if kind == _CONTROL:
        return UNTIDY | SPECIAL
    if kind == _LOOSE:
        return LOOSE
    if kind == _END:
        return UNTIDY if data[place] == _RETURN or _is_odd_end(data, start, place) else 0
    first, second = data[place], data[place + 1]
    if first == 0xC2:  # C1 controls, soft hyphen
        return UNTIDY | SPECIAL if second < 0xA0 or second == 0xAD else 0
    third = data[place + 2]
    if first == 0xE2:  # zero width space, line and paragraph separator, word joiner; quads
        if (second == 0x80 and third in (0x8B, 0xA8, 0xA9)) or (second == 0x81 and third == 0xA0):
            return UNTIDY | SPECIAL
        return LOOSE if _is_loose_symbol(second) or (second == 0x80 and third < 0x82) else 0
    if first == 0xE3:  # tone marks of Han; voicing marks of kana
        is_loose = (second == 0x80 and _is_among(third, 0xAA, 6)) or (second == 0x82 and _is_among(third, 0x99, 2))
        return LOOSE if is_loose else 0
    if first == 0xEA:  # all before Hangul
        return LOOSE if second < 0xB0 else 0
    if first == 0xF0:  # all but emoji
        return LOOSE if second != 0x9F else 0
    if (second == 0xBB and third == 0xBF) or (second == 0xBF and third >= 0xBE):  # byte order mark, no characters
        return UNTIDY | SPECIAL
    return LOOSE if second < 0xAE or (second == 0xB8 and third >= 0xA0) else 0


@inner
def _is_among(byte: np.uint8, first: int, count: int) -> bool:
    return bool((byte >= first) & (byte < first + count))


@inner
def _is_loose_symbol(second: np.uint8) -> bool:
    """Whether some of the 64 symbols are marks that combine or have another form."""
    return bool((second == 0x83) | (second == 0x84) | (second == 0x8C) | (second == 0xAB) | (second >= 0xB0))


@inner
def _is_odd_end(data: U8, start: int, place: int) -> bool:
    """Whether the line feed is the first character, comes after a space, or is the third in a row."""
    if place == start:
        return True
    if data[place - 1] == _NEWLINE:
        return place - start == 1 or data[place - 2] == _NEWLINE
    return _ends_in_space(data, start, place)


@inner
def _ends_in_space(data: U8, start: int, stop: int) -> bool:
    """Whether the last character before `stop` is white space: of ASCII, no-break or ideographic."""
    if stop == start:
        return False
    last = data[stop - 1]
    if last <= _SPACE:
        return bool(last == _SPACE or last == _TAB or last == _NEWLINE)  # noqa: SIM109
    if last == 0xA0:
        return stop - start >= 2 and data[stop - 2] == 0xC2
    return last == 0x80 and stop - start >= 3 and data[stop - 2] == 0x80 and data[stop - 3] == 0xE3
