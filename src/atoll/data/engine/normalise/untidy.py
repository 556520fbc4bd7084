"""Untidiness: which texts of a column hold something that normalisation would change, found in one look at the bytes.

It tells of control and invisible characters, line ends of other kinds, spaces at line ends and blank lines; whether a
text is composed (NFC) is not known here. See `normalise` for what is done about it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.kernel import bare, inner, kernel

UNTIDY, SPECIAL = 1, 2
"""Something is to be changed; among it are characters to be removed or turned into line ends, other than \\r."""

_RECORD, _UNIT = 0x1E, 0x1F
_TAB, _NEWLINE, _RETURN, _SPACE = 0x09, 0x0A, 0x0D, 0x20
_PLAIN, _CONTROL, _END, _LEAD = 0, 1, 2, 3


def _classes() -> NDArray[np.uint8]:
    """What a byte may be the start of."""
    classes = np.zeros(256, np.uint8)
    classes[:0x20] = _CONTROL
    classes[0x7F] = _CONTROL
    classes[[_TAB]] = _PLAIN
    classes[[_NEWLINE, _RETURN]] = _END
    classes[[0xC2, 0xE2, 0xEF]] = _LEAD
    return classes


_CLASSES = _classes()


def untidy(texts: pa.StringArray, is_chat: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """UNTIDY and SPECIAL of every text; a chat's marks are no fault where they stand as they should."""
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    found = np.zeros(len(texts), np.uint8)
    if len(texts) and places[-1] > places[0]:
        _look(np.frombuffer(data, np.uint8), places, is_chat, found)
    return found


@kernel
def _look(
    data: NDArray[np.uint8], places: NDArray[np.int32], is_chat: NDArray[np.bool_], found: NDArray[np.uint8]
) -> None:
    for row in range(len(found)):
        start, stop = places[row], places[row + 1]
        if is_chat[row]:
            found[row] = _of_chat(data, start, stop)
        else:
            found[row] = _of_text(data, start, stop)


@bare
def _of_text(data: NDArray[np.uint8], start: int, stop: int) -> int:
    found = UNTIDY if _ends_in_space(data, start, stop) else 0
    for place in range(start, stop):
        kind = _CLASSES[data[place]]
        if kind != _PLAIN:
            found |= _faults(data, start, place, stop, kind)
    return found


@bare
def _of_chat(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """As for a text, with messages that each begin with RECORD and hold one UNIT."""
    found = UNTIDY if _ends_in_space(data, start, stop) else 0
    expects_unit = False
    for place in range(start, stop):
        byte = data[place]
        if byte == _RECORD:
            if expects_unit or (place > start and _ends_in_space(data, start, place)):
                found |= UNTIDY
            expects_unit = True
        elif byte == _UNIT:
            if not expects_unit or (place + 1 < stop and data[place + 1] == _NEWLINE):
                found |= UNTIDY
            expects_unit = False
        elif _CLASSES[byte] != _PLAIN:
            found |= _faults(data, start, place, stop, _CLASSES[byte])
    if start < stop and data[start] != _RECORD:  # it is no chat, so its marks are faults too
        return UNTIDY | SPECIAL
    return found | UNTIDY if expects_unit else found


@inner
def _faults(data: NDArray[np.uint8], start: int, place: int, stop: int, kind: int) -> int:
    """What is wrong with the character that starts at `place`."""
    if kind == _CONTROL:
        return UNTIDY | SPECIAL
    if kind == _END:
        return UNTIDY if data[place] == _RETURN or _is_odd_end(data, start, place) else 0
    second = data[place + 1]
    if data[place] == 0xC2:  # C1 controls, soft hyphen
        return UNTIDY | SPECIAL if second < 0xA0 or second == 0xAD else 0
    third = data[place + 2]
    if data[place] == 0xE2:  # zero width space, line and paragraph separator, word joiner
        is_special = (second == 0x80 and third in (0x8B, 0xA8, 0xA9)) or (second == 0x81 and third == 0xA0)
    else:  # byte order mark, no characters
        is_special = (second == 0xBB and third == 0xBF) or (second == 0xBF and third >= 0xBE)
    return UNTIDY | SPECIAL if is_special else 0


@inner
def _is_odd_end(data: NDArray[np.uint8], start: int, place: int) -> bool:
    """Whether the line feed is the first character, comes after a space, or is the third in a row."""
    if place == start:
        return True
    if data[place - 1] == _NEWLINE:
        return place - start == 1 or data[place - 2] == _NEWLINE
    return _ends_in_space(data, start, place)


@inner
def _ends_in_space(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether the last character before `stop` is white space: of ASCII, no-break or ideographic."""
    if stop == start:
        return False
    last = data[stop - 1]
    if last <= _SPACE:
        return bool(last == _SPACE or last == _TAB or last == _NEWLINE)  # noqa: SIM109
    if last == 0xA0:
        return stop - start >= 2 and data[stop - 2] == 0xC2
    return last == 0x80 and stop - start >= 3 and data[stop - 2] == 0x80 and data[stop - 3] == 0xE3
