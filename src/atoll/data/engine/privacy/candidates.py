"""The candidate scan: one pass over the UTF-8 of a batch that stops only where personal data could be.

It lets too much through and never decides; a candidate is a place to look at, in bytes of the batch. Compiled by numba
where it is installed, the same function in plain Python where not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.privacy import anchors as a
from atoll.data.engine.privacy.contexts import (
    TOKEN_MIN,
    angle,
    beside_names,
    capital,
    colon,
    dash,
    has_surname,
    is_token,
    mail,
    secret_word,
    token,
)
from atoll.data.engine.privacy.digits import digits
from atoll.data.engine.privacy.utf8 import (
    U32,
    Bytes,
    Found,
    digit_width,
    digits_from,
    han_at,
    is_digit,
    is_upper,
    is_wide_upper,
    is_word,
)
from atoll.data.engine.scan import utf8_of


class Candidates(NamedTuple):
    """rows: int64 (n, 4) of kind, text, start and stop, in bytes of `data`; the rows of a text lie together."""

    rows: NDArray[np.int64]
    data: Bytes
    starts: NDArray[np.int64]


def candidates(texts: pa.StringArray) -> Candidates:
    """Every place in `texts` worth a look."""
    return scanned(*utf8_of(texts))


def scanned(data: Bytes, starts: NDArray[np.int64]) -> Candidates:
    """The candidates of texts that lie in `data` from `starts[i]` to `starts[i + 1]`."""
    room = len(data) // 64 + 64
    while True:
        rows = np.empty((room, 4), np.int64)
        count = _scan(data, starts, *_arrays(a.anchors()), rows)
        if count <= room:
            return Candidates(rows[:count], data, starts)
        room = count


def _arrays(tables: a.Anchors) -> tuple[Bytes, Bytes, U32, U32, U32, U32, U32]:
    return tables.actions, tables.han, tables.pairs, tables.keys, tables.labels, tables.tokens, tables.streets


@bare
def _scan(
    data: Bytes,
    starts: NDArray[np.int64],
    actions: Bytes,
    han: Bytes,
    pairs: U32,
    keys: U32,
    labels: U32,
    tokens: U32,
    streets: U32,
    rows: NDArray[np.int64],
) -> int:
    """Fill `rows`; how many there are, which may be more than fit."""
    count = 0
    for text in range(len(starts) - 1):
        begin, end = starts[text], starts[text + 1]
        place = begin
        while place < end:
            action = actions[data[place]]
            if action == 0 or (action >= a.CAPITAL and _is_dull(data, begin, end, place, action)):
                place += 1
                continue
            if action == a.HAN and place + 2 < end:
                point = (int(data[place]) & 15) << 12 | (int(data[place + 1]) & 63) << 6 | (int(data[place + 2]) & 63)
                if not han[point] & a.TAILS or _is_dull_han(data, begin, end, place, han):
                    place += 3
                    continue
            kind, start, stop, place = _look(data, begin, end, place, action, han, pairs, keys, labels, streets)
            if kind != 0:
                count = _keep(rows, count, kind, text, start, stop)
        place = begin
        while place + TOKEN_MIN <= end:
            last = place + TOKEN_MIN - 1
            while last >= place and is_token(data[last]):
                last -= 1
            if last >= place:  # no run of so many begins before what ends this one
                place = last + 1
                continue
            kind, start, stop, place = token(data, begin, end, place, tokens)
            place += 1
            if kind != 0:
                count = _keep(rows, count, kind, text, start, stop)
    return count


@inner
def _is_dull(data: Bytes, begin: int, end: int, place: int, action: int) -> bool:
    """Most capitals and colons by a look at their neighbours, before the tables are asked."""
    if action == a.CAPITAL:
        return (place > begin and is_word(data[place - 1])) or place + 6 >= end or not 97 <= data[place + 1] <= 122
    return (
        place + 1 >= end
        or place == begin
        or not (is_word(data[place + 1]) or data[place + 1] in (32, 34, 39) or data[place + 1] >= 0xE4)
    )


@inner
def _is_dull_han(data: Bytes, begin: int, end: int, place: int, flags: Bytes) -> bool:
    """Whether neither the character before nor the byte behind can make anything of this one."""
    flag = flags[han_at(data, end, place)]
    if flag & a.WORD_TAIL and place - 3 >= begin:
        before = han_at(data, end, place - 3)
        if before >= 0 and flags[before] & a.WORD_HEAD:
            return False
    after = data[place + 3] if place + 3 < end else 0
    return not (after == 0xEF or (flag & a.PLATE_HEAD and is_upper(after)) or (flag & a.ROAD_TAIL and is_digit(after)))


@inner
def _keep(rows: NDArray[np.int64], count: int, kind: int, text: int, start: int, stop: int) -> int:
    if count < len(rows):
        rows[count, 0] = kind
        rows[count, 1] = text
        rows[count, 2] = start
        rows[count, 3] = stop
    return count + 1


@inner
def _look(
    data: Bytes,
    begin: int,
    end: int,
    place: int,
    action: int,
    han: Bytes,
    pairs: U32,
    keys: U32,
    labels: U32,
    streets: U32,
) -> Found:
    """What the byte at `place`, which has an action, begins or ends."""
    if action == a.DIGITS:
        return digits(data, begin, end, place, streets)
    if action == a.HAN:
        return _han(data, begin, end, place, han, pairs)
    if action == a.WIDE:
        return _wide(data, begin, end, place, keys, labels, streets)
    if action == a.COLON:
        return colon(data, begin, end, place, 1, keys, labels)
    if action == a.MAIL:
        return mail(data, begin, end, place, 1)
    if action == a.PERCENT:
        is_at = place + 2 < end and data[place + 1] == 52 and data[place + 2] == 48
        return mail(data, begin, end, place, 3) if is_at else (0, place, place, place + 1)
    if action == a.DASH:
        return dash(data, end, place)
    if action == a.ANGLE:
        return angle(data, begin, end, place)
    return capital(data, end, place)


@inner
def _han(data: Bytes, begin: int, end: int, place: int, flags: Bytes, pairs: U32) -> Found:
    """A character that begins a plate, ends the name of a road, or ends a word beside names and secrets."""
    letter, after = han_at(data, end, place), place + 3
    flag = flags[letter] if letter >= 0 else 0
    if flag & a.PLATE_HEAD and after < end and (is_upper(data[after]) or data[after] == 0xEF):
        return a.PLATE, place, after, after
    if flag & a.ROAD_TAIL and digit_width(data, end, after):
        length, stop = digits_from(data, end, after)
        if length <= 5:
            return a.ROAD, place, stop, after
    if flag & a.WORD_TAIL and beside_names(data, begin, place, letter, pairs):
        if not flag & a.SECRET_TAIL and has_surname(data, begin, end, place - 3, after, flags, a.SURNAME):
            return a.PERSON, place - 3, after, after
        if flag & a.SECRET_TAIL and secret_word(data, end, after):
            return a.ASSIGN, place, after, after
    return 0, place, place, after


@inner
def _wide(data: Bytes, begin: int, end: int, place: int, keys: U32, labels: U32, streets: U32) -> Found:
    """Full-width forms: digits, capitals before them, the colon, the equals sign and the @."""
    if place + 2 >= end or data[place + 1] != 0xBC:
        return 0, place, place, place + 1
    if digit_width(data, end, place):
        return digits(data, begin, end, place, streets)
    if data[place + 2] in (0x9A, 0x9D):
        return colon(data, begin, end, place, 3, keys, labels)
    if data[place + 2] == 0xA0:
        return mail(data, begin, end, place, 3)
    if is_wide_upper(data, end, place):
        return _wide_passport(data, end, place)
    return 0, place, place, place + 3


@inner
def _wide_passport(data: Bytes, end: int, place: int) -> Found:
    """One or two full-width capitals and seven to nine digits."""
    after = place + 3
    if is_wide_upper(data, end, after):
        after += 3
    length, stop = digits_from(data, end, after)
    if 7 <= length <= 9:
        return a.PASSPORT, place, stop, stop
    return 0, place, place, after
