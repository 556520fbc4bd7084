"""Digits: which runs of digits, with what stands between their groups, could be a number of a person or a company."""

from __future__ import annotations

from atoll.data.engine.kernel import inner
from atoll.data.engine.privacy import anchors as a
from atoll.data.engine.privacy.utf8 import (
    U32,
    Bytes,
    Found,
    digit_at,
    digit_width,
    digits_from,
    has,
    is_digit,
    is_letter,
    is_upper,
    is_wide_upper,
    is_word,
)

_STREET_REACH = 48


@inner
def _separator_width(data: Bytes, end: int, place: int) -> int:
    """Bytes of what may stand between two groups of one number, with a digit behind; 0: none."""
    here = place
    for _ in range(2):
        if here >= end:
            return 0
        byte = data[here]
        if byte in (32, 40, 41, 45, 46):
            here += 1
        elif here + 2 < end and byte == 0xEF and data[here + 1] == 0xBC and data[here + 2] in (0x88, 0x89, 0x8D, 0x8E):
            here += 3
        elif here + 1 < end and byte == 0xC2 and data[here + 1] == 0xA0:
            here += 2
        elif here + 2 < end and byte == 0xE3 and data[here + 1] == 0x80 and data[here + 2] == 0x80:
            here += 3
        else:
            return 0
        if digit_width(data, end, here):
            return here - place
    return 0


@inner
def _is_number_shape(third: int, second: int, first: int, length: int, head: int, dots: int) -> bool:
    """Whether groups of these lengths, the last of `length` and starting with digit `head`, could end a number."""
    if length >= 13 and length <= 19:
        return True
    if length == 11 or length == 12:
        return head <= 1 or (length == 12 and head == 8)
    if length == 4:
        return (
            (second == 3 and first in (3, 4))
            or (second == 6 and first == 8)
            or (first == 4 and second == 4)
            or first == 7
        )
    if first in (3, 4) and length in (7, 8):
        return True
    if dots >= 3 and length <= 3:
        return True
    if second == 6 and first == 8 and length == 3:
        return True
    return (first == 6 and length in (5, 13)) or (third == 4 and second == 4 and first == 4)


@inner
def digits(data: Bytes, begin: int, end: int, place: int, streets: U32) -> Found:
    """A run of digits, its groups and what stands around it."""
    before = int(data[place - 1]) if place > begin else 32
    if is_word(before):
        return _inside_word(data, begin, end, place)
    if _six(data, end, place):
        return _ipv6(data, end, place)
    third, second, first, groups, total, dots, shaped = 0, 0, 0, 0, 0, 0, False
    last = here = place
    while True:
        last = here
        length, stop = digits_from(data, end, here)
        groups += 1
        total += length
        shaped = shaped or _is_number_shape(third, second, first, length, digit_at(data, here), dots)
        third, second, first = second, first, length
        gap = _separator_width(data, end, stop)
        if gap == 0 or _six(data, end, stop + gap) or _begins_code(data, end, stop + gap):
            break
        is_dot = data[stop] == 46 if gap == 1 else gap == 3 and data[stop + 2] == 0x8E
        dots = dots + 1 if is_dot and length <= 3 else 0
        here = stop + gap
    code = _credit_code(data, end, place) if groups == 1 and total <= 17 else 0
    if code and (total < 17 or not _is_check_x(data, stop)):
        return a.CODE, place, code, code
    if shaped or (total >= 8 and before in (43, 40)) or (total >= 7 and _has_phone_word(data, begin, place)):
        return a.NUMBER, place, stop, stop
    if first <= 5 and _street(data, end, stop, streets):
        return a.STREET, last, stop, stop
    return 0, place, place, stop


@inner
def _has_phone_word(data: Bytes, begin: int, place: int) -> bool:
    """A colon or a character that is not ASCII close before: where a number without its area code may follow a word."""
    for back in range(1, 5):
        if place - back < begin:
            return False
        byte = data[place - back]
        if byte == 58 or byte >= 0xE3:
            return True
    return False


@inner
def _inside_word(data: Bytes, begin: int, end: int, place: int) -> Found:
    """Digits after letters: a passport, a credit code, or a phone number after its word."""
    length, stop = digits_from(data, end, place)
    letters = place
    while letters > begin and is_letter(data[letters - 1]) and place - letters < 8:
        letters -= 1
    ahead = place - letters
    whole = letters == begin or not is_word(data[letters - 1])
    if whole and ahead <= 2 and is_upper(data[letters]) and 7 <= length <= 9:
        return a.PASSPORT, letters, stop, stop
    code = _credit_code(data, end, letters) if whole and ahead <= 2 and is_upper(data[letters]) else 0
    if code:
        return a.CODE, letters, code, code
    if whole and ahead >= 2 and length == 11 and digit_at(data, place) == 1:
        return a.NUMBER, place, stop, stop
    return 0, place, place, stop


@inner
def _credit_code(data: Bytes, end: int, place: int) -> int:
    """Where eighteen capitals and digits, no more, end; 0: there are none."""
    here, length = place, 0
    width = _code_width(data, end, here)
    while width and length <= 18:
        here += width
        length += 1
        width = _code_width(data, end, here)
    return here if length == 18 and (here == end or not is_word(data[here])) else 0


@inner
def _code_width(data: Bytes, end: int, place: int) -> int:
    """Bytes of the ASCII or full-width digit or capital at `place`; 0: none."""
    if place < end and is_upper(data[place]):
        return 1
    return 3 if is_wide_upper(data, end, place) else digit_width(data, end, place)


@inner
def _is_check_x(data: Bytes, place: int) -> bool:
    """An X, plain or full-width, which may be the check digit of an identity card."""
    return bool(data[place] == 88 or (data[place] == 0xEF and data[place + 2] == 0xB8))


@inner
def _begins_code(data: Bytes, end: int, place: int) -> bool:
    """Whether a credit code with letters in it begins here."""
    return is_digit(data[place]) and _credit_code(data, end, place) > 0 and digits_from(data, end, place)[0] < 17


@inner
def _six(data: Bytes, end: int, place: int) -> bool:
    """Four hexadecimal digits and a colon that begin a global IPv6 address: 2xxx: or 3xxx:."""
    if place + 5 >= end or data[place + 4] != 58 or data[place] not in (50, 51):
        return False
    count = 0
    for here in range(place + 1, place + 4):
        count += is_digit(data[here]) or 97 <= (data[here] | 32) <= 102
    return count == 3


@inner
def _ipv6(data: Bytes, end: int, place: int) -> Found:
    stop, colons, double = place, 0, False
    while stop < end and stop - place < 48:
        byte = data[stop]
        if byte == 58:
            double = double or data[stop - 1] == 58
            colons += 1
        elif not (is_digit(byte) or 97 <= (byte | 32) <= 102 or byte == 46):
            break
        stop += 1
    if colons == 7 or double:
        return a.ADDRESS6, place, stop, stop
    return 0, place, place, place + 5


@inner
def _street(data: Bytes, end: int, stop: int, streets: U32) -> bool:
    """A capital letter follows, and soon a word that begins as Street or Avenue do."""
    if stop + 1 < end and is_upper(data[stop]) and data[stop + 1] == 32:  # 221B
        stop += 1
    if stop + 2 >= end or data[stop] != 32 or not is_upper(data[stop + 1]):
        return False
    for place in range(stop + 2, min(end - 1, stop + _STREET_REACH)):
        byte = data[place]
        if byte == 10 or byte >= 0x80:
            return False
        if is_upper(byte) and data[place - 1] == 32 and has(streets, int(byte) << 8 | int(data[place + 1])):
            return True
    return False
