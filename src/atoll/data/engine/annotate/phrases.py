"""Phrases: which of a few fixed phrases a line holds, in any case (Raffel et al. 2020 drop lines by them)."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import I64, U8
from atoll.data.engine.kernel import inner

LOREM_IPSUM, JAVASCRIPT, POLICY = 1, 2, 4
_PHRASES = (
    (LOREM_IPSUM, "lorem ipsum"),
    (JAVASCRIPT, "javascript"),
    *(
        (POLICY, phrase)
        for phrase in (
            *("terms of use", "privacy policy", "cookie policy"),
            *("uses cookies", "use of cookies", "use cookies"),
        )
    ),
)


class Phrases(NamedTuple):
    """The phrases' bytes one after the other, where each starts, what it means; and for every byte a bit for each
    phrase that has it in the first place, in the second, and in the third.
    """

    letters: U8
    starts: I64
    meanings: I64
    first: U8
    second: U8
    third: U8


@cache
def phrases() -> Phrases:
    """The phrases as a kernel takes them."""
    words = [phrase.encode() for _, phrase in _PHRASES]
    heads = np.zeros((3, 256), np.uint8)
    for number, word in enumerate(words):
        for table, letter in zip(heads, word, strict=False):
            table[[letter, letter - 0x20]] |= np.uint8(1 << number)
    starts = np.array([0, *accumulate(map(len, words))])
    meanings = np.array([meaning for meaning, _ in _PHRASES])
    return Phrases(np.frombuffer(b"".join(words), np.uint8), starts, meanings, *heads)


@inner
def find_phrases(data: U8, start: int, stop: int, table: Phrases) -> int:
    """The meanings of all phrases in data[start:stop]."""
    found = 0
    for place in range(start, stop - 2):
        hits = table.first[data[place]] & table.second[data[place + 1]] & table.third[data[place + 2]]
        if hits:
            for number in range(len(table.meanings)):
                if hits >> number & 1 and _stands(data, place, stop, number, table):
                    found |= table.meanings[number]
    return found


@inner
def _stands(data: U8, place: int, stop: int, number: int, table: Phrases) -> bool:
    start, end = table.starts[number], table.starts[number + 1]
    if place + end - start > stop:
        return False
    for i in range(start, end):
        letter = data[place + i - start]
        if 0x41 <= letter <= 0x5A:
            letter |= 0x20
        if letter != table.letters[i]:
            return False
    return True
