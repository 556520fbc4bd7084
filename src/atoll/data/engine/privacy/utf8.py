"""Small questions about UTF-8 bytes, compiled: what a byte is, how wide a digit is, which Han character stands here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.kernel import inner

Bytes = NDArray[np.uint8]
U32 = NDArray[np.uint32]
Found = tuple[int, int, int, int]
"""Kind (0: nothing), start, stop, and where to go on."""


@inner
def is_letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@inner
def is_digit(byte: int) -> bool:
    return 48 <= byte <= 57


@inner
def is_upper(byte: int) -> bool:
    return 65 <= byte <= 90


@inner
def is_word(byte: int) -> bool:
    return is_letter(byte) or is_digit(byte) or byte == 95


@inner
def has(sorted_values: U32, value: int) -> bool:
    """Whether `value` is one of `sorted_values`."""
    low, high = 0, len(sorted_values)
    while low < high:
        middle = (low + high) // 2
        if int(sorted_values[middle]) < value:
            low = middle + 1
        else:
            high = middle
    return bool(low < len(sorted_values) and int(sorted_values[low]) == value)


@inner
def digit_width(data: Bytes, end: int, place: int) -> int:
    """Bytes of the ASCII or full-width digit at `place`; 0: none."""
    if place < end and is_digit(data[place]):
        return 1
    wide = place + 2 < end and data[place] == 0xEF and data[place + 1] == 0xBC and 0x90 <= data[place + 2] <= 0x99
    return 3 if wide else 0


@inner
def is_wide_upper(data: Bytes, end: int, place: int) -> bool:
    """Whether a full-width capital stands at `place`."""
    return bool(place + 2 < end and data[place] == 0xEF and data[place + 1] == 0xBC and 0xA1 <= data[place + 2] <= 0xBA)


@inner
def digits_from(data: Bytes, end: int, place: int) -> tuple[int, int]:
    """How many digits stand from `place` on, and where they end."""
    length = 0
    width = digit_width(data, end, place)
    while width:
        place += width
        length += 1
        width = digit_width(data, end, place)
    return length, place


@inner
def digit_at(data: Bytes, place: int) -> int:
    return int(data[place]) - 48 if data[place] < 0x80 else int(data[place + 2]) - 0x90


@inner
def han_at(data: Bytes, end: int, place: int) -> int:
    """The Han character at `place`; -1: none."""
    if place + 2 >= end or not 0xE4 <= data[place] <= 0xE9:
        return -1
    point = (int(data[place]) & 15) << 12 | (int(data[place + 1]) & 63) << 6 | (int(data[place + 2]) & 63)
    return point if 0x4E00 <= point < 0xA000 else -1
