"""Marks and words that personal data stands beside: an @, a colon after a word, dashes, a title, a token's head."""

from __future__ import annotations

from atoll.data.engine.kernel import inner
from atoll.data.engine.privacy import anchors as a
from atoll.data.engine.privacy.utf8 import U32, Bytes, Found, han_at, has, is_digit, is_letter, is_upper, is_word

TOKEN_MIN = 16
"""Letters, digits, _ and - that stand without a break in a key, at least."""
_TOKEN_MAX = 4096
_MAIL_REACH = 255
_SIGNED = 0x65794A  # eyJ, a signed token: its parts are joined by dots
_VALUE_REACH = 64


@inner
def mail(data: Bytes, begin: int, end: int, place: int, width: int) -> Found:
    """An @ (of `width` bytes) between a name and a domain with a dot in it."""
    after = place + width
    if place == begin or after >= end:
        return 0, place, place, after
    before = data[place - 1]
    if not (is_word(before) or before >= 0x80 or before in (37, 43, 45, 46)):
        return 0, place, place, after
    stop = after
    dotted = False
    while stop < min(end, place + _MAIL_REACH):
        byte = data[stop]
        if byte == 46 or byte == 0xEF:
            dotted = dotted or stop > after
        elif not (is_word(byte) or byte == 45 or byte >= 0x80):
            break
        stop += 1
    if dotted:
        return a.AT, place, after, after
    return 0, place, place, after


@inner
def _lower3(data: Bytes, stop: int) -> int:
    """The three bytes before `stop`, letters in lower case, as one number."""
    value = 0
    for back in (3, 2, 1):
        byte = int(data[stop - back])
        value = value << 8 | (byte | 32 if is_upper(byte) else byte)
    return value


@inner
def colon(data: Bytes, begin: int, end: int, place: int, width: int, keys: U32, labels: U32) -> Found:
    """A colon or equals sign after a word that names a secret or a person."""
    after = place + width
    stop = place
    while stop > begin and place - stop < 3 and data[stop - 1] in (32, 34, 39, 93, 41):
        stop -= 1
    if stop - 3 < begin or not (is_letter(data[stop - 1]) or data[stop - 1] >= 0x80):
        return 0, place, place, after
    word = _lower3(data, stop)
    if has(keys, word) and _has_value(data, end, after):
        return a.ASSIGN, place, after, after
    if has(labels, word) and _has_name(data, end, after):
        return a.LABEL, place, after, after
    return 0, place, place, after


@inner
def _has_value(data: Bytes, end: int, place: int) -> bool:
    """A run of six or more bytes without spaces, with a digit or a sign in it, stands near."""
    while place < end and data[place] in (32, 34, 39, 58, 61, 62):
        place += 1
    length, mixed = _run(data, end, place)
    stop = place + length
    if not mixed and 5 <= length <= 6 and stop < end and data[stop] == 32:  # Bearer, Basic or token
        length, mixed = _run(data, end, stop + 1)
    return length >= 6 and mixed


@inner
def _run(data: Bytes, end: int, place: int) -> tuple[int, bool]:
    """How long the run without spaces and quotes at `place` is, and whether it holds a digit."""
    length, mixed = 0, False
    while place < end and 33 <= data[place] < 127 and data[place] not in (34, 39) and length < _VALUE_REACH:
        mixed = mixed or is_digit(data[place])
        place += 1
        length += 1
    return length, mixed


@inner
def _has_name(data: Bytes, end: int, place: int) -> bool:
    """A capital and a small letter, or a Han character, stand near."""
    for _ in range(4):
        if place + 2 >= end:
            return False
        if is_upper(data[place]):
            return is_letter(data[place + 1]) and not is_upper(data[place + 1])
        if data[place] >= 0xE4:
            return True
        if data[place] not in (32, 34, 39, 42):
            return False
        place += 1
    return False


@inner
def secret_word(data: Bytes, end: int, place: int) -> bool:
    """Whether a value follows the Chinese word for a secret that ends at `place`: at most six bytes lie between."""
    for gap in range(7):
        here = place + gap
        if here >= end:
            return False
        if is_word(data[here]):
            return _has_value(data, end, here)
    return False


@inner
def dash(data: Bytes, end: int, place: int) -> Found:
    """Dashes before the word BEGIN."""
    stop = place + 1
    while stop < end and data[stop] == 45:
        stop += 1
    is_block = stop - place == 5 and stop + 5 < end and data[stop] == 66 and data[stop + 1] == 69
    if is_block and data[stop + 2] == 71 and data[stop + 3] == 73 and data[stop + 4] == 78:
        return a.BLOCK, place, stop, stop
    return 0, place, place, stop


@inner
def angle(data: Bytes, begin: int, end: int, place: int) -> Found:
    """The head of a machine-readable zone: P< and three capitals."""
    if place > begin and data[place - 1] == 80 and place + 40 < end:
        capitals = is_upper(data[place + 1]) and is_upper(data[place + 2]) and is_upper(data[place + 3])
        if capitals and (place - 1 == begin or not is_word(data[place - 2])):
            return a.ZONE, place - 1, place + 43, place + 1
    return 0, place, place, place + 1


@inner
def capital(data: Bytes, end: int, place: int) -> Found:
    """Mr, Mrs, Ms, Miss, Dr or Prof, and a capital after it."""
    after = place + 1
    while after + 2 < end and after - place < 9 and 97 <= data[after] <= 122:
        after += 1
    length = after - place
    if (length > 4 and length != 9) or data[after - 1] not in (114, 115, 102):
        return 0, place, place, after
    stop = after + (data[after] == 46)
    if stop + 1 < end and data[stop] == 32 and is_upper(data[stop + 1]) and length in (2, 3, 4):
        return a.TITLE, place, stop, stop
    return 0, place, place, after


@inner
def is_token(byte: int) -> bool:
    return is_word(byte) or byte == 45


@inner
def token(data: Bytes, begin: int, end: int, place: int, heads: U32) -> Found:
    """The long run of token characters around `place`, if it starts as keys do."""
    start = stop = place
    while stop < end and is_token(data[stop]) and stop - place < _TOKEN_MAX:
        stop += 1
    while start > begin and (is_token(data[start - 1]) or data[start - 1] == 46) and place - start < _TOKEN_MAX:
        start -= 1
    if stop - start < TOKEN_MIN or start + 3 > end:
        return 0, place, place, stop
    head = int(data[start]) << 16 | int(data[start + 1]) << 8 | int(data[start + 2])
    if not has(heads, head):
        return 0, start, stop, stop
    while (
        head == _SIGNED and stop < end and stop - start < 4 * _TOKEN_MAX and (is_token(data[stop]) or data[stop] == 46)
    ):
        stop += 1
    return a.TOKEN, start, stop, stop


@inner
def beside_names(data: Bytes, begin: int, place: int, letter: int, pairs: U32) -> bool:
    """Whether the Han character at `place` ends a word beside names or a word for a secret."""
    before = han_at(data, place + 3, place - 3) if place - 3 >= begin else -1
    return before >= 0 and has(pairs, before << 16 | letter)


@inner
def has_surname(data: Bytes, begin: int, end: int, start: int, stop: int, flags: Bytes, surname: int) -> bool:
    """Whether a surname stands among the four characters before `start` or, past a sign or two, behind `stop`."""
    for back in range(2, 5):
        place = start - 3 * back
        if place >= begin and 0xE4 <= data[place] <= 0xE9:
            letter = han_at(data, end, place)
            if letter >= 0 and flags[letter] & surname:
                return True
    place = stop
    while place < min(end, stop + 13):
        letter = han_at(data, end, place)
        if letter >= 0 and flags[letter] & surname:
            return True
        place += 1 if data[place] < 0x80 else 3
    return False
