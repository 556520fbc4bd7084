"""Addresses: whether a run of characters is a URL, a host's name, a file's name or an e-mail address.

Judged by form alone, as spaCy's rules do that leave such a run whole; whether anything is there is not asked.
"""

from __future__ import annotations

import numpy as np

from atoll.data.engine.arrays import U32
from atoll.data.engine.characters import HASH, LOWER, NUMERAL
from atoll.data.engine.kernel import inner

_PLUS, _HYPHEN, _DOT, _AT, _UNDERSCORE, _COLON = (ord(mark) for mark in "+-.@_:")


@inner
def _is_label(point: np.uint32) -> bool:
    """Whether a character may begin or end a part of a host's name."""
    small = point | 0x20
    return bool(0x61 <= small <= 0x7A or 0x30 <= point <= 0x39 or 0xA1 <= point <= 0xFFFF)


@inner
def is_address(points: U32, kinds: U32, first: int, last: int) -> bool:
    """Whether the characters are a URL, a host's name with a port or path, a file's name or an e-mail address."""
    start = _after_scheme(points, first, last)
    if _is_host(points, kinds, start, last):
        return True
    for i in range(start + 1, last):
        if points[i] == _AT:
            return _is_host(points, kinds, i + 1, last)
    return False


@inner
def _after_scheme(points: U32, first: int, last: int) -> int:
    """Where the characters go on after `scheme://`; `first` where there is none."""
    i = first
    while i < last and (_is_label(points[i]) or points[i] in (_PLUS, _HYPHEN, _DOT, _UNDERSCORE)):
        i += 1
    if i - first < 2 or i + 3 > last or points[i] != _COLON:
        return first
    return i + 3 if points[i + 1] == 0x2F and points[i + 2] == 0x2F else first


@inner
def _is_host(points: U32, kinds: U32, first: int, last: int) -> bool:
    """Labels with dots between, the last of small letters; then nothing, a port, or a path."""
    label, i, dots = first, first, 0
    while i < last:
        point = points[i]
        if point == _DOT:
            if i == label or not _is_label(points[i - 1]):
                return False
            label, dots = i + 1, dots + 1
        elif point in (_UNDERSCORE, _HYPHEN):
            if i == label:
                return False
        elif not _is_label(point):
            break
        i += 1
    if dots == 0 or i - label < 2:
        return False
    for k in range(label, i):
        if not kinds[k] & LOWER:
            return False
    return _ends_host(points, kinds, i, last)


@inner
def _ends_host(points: U32, kinds: U32, i: int, last: int) -> bool:
    if i < last and points[i] == _COLON:
        port = i + 1
        while port < last and kinds[port] & NUMERAL:
            port += 1
        if not 3 <= port - i <= 6:
            return False
        i = port
    return bool(i == last or points[i] in (0x2F, 0x3F) or kinds[i] & HASH)
