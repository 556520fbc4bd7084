"""The scan: the UTF-8 of a text as tokens, which are what MinHash, the word counts and the duplicates speak of.

A token is a lower-cased run of word characters, or one character of a script written without spaces (a *single*).
Tokens are hashes only: what a word was cannot be read back. A scan goes block by block, so a text of any length needs
the same little memory. Text must be valid UTF-8, as Arrow's strings are.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from atoll.data.engine import characters
from atoll.data.engine.arrays import I64, U8, U64, Flags
from atoll.data.engine.characters import Characters
from atoll.data.engine.hashing import FACTOR, hash_words, mix_one
from atoll.data.engine.kernel import bare

STOP_WORDS = (
    *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "if", "in", "into", "is"),
    *("it", "its", "no", "not", "of", "on", "or", "s", "such", "t", "that", "the", "their", "then", "there", "these"),
    *("they", "this", "to", "was", "which", "will", "with", "you"),
    *"的了是在和有不这為为與于於中上以及其或とのはをにが",
)
"""Frequent function words of English, Chinese and Japanese; a text of sentences has many."""

BLOCK_TOKENS = 1024
SLOTS = 256

_LIMIT = characters.LIMIT
_WORD, _SINGLE = characters.WORD, characters.SINGLE
_FACTOR, _ZERO, _ONE = np.uint64(FACTOR), np.uint64(0), np.uint64(1)
_SLOT_MASK = np.uint64(SLOTS - 1)


Lookup = U64
"""uint64 (2, SLOTS): hashes of at most some 100 words, open-addressed, 0 being an empty slot; and their groups."""


class Tokens(NamedTuple):
    """Room for a block of tokens: `hashes`, and whether each `is_single`; `held` of them are there.

    `partial` is the sum and the power of a word that the block's end cut in two; a power of 0: no word is open.
    """

    hashes: U64
    is_single: Flags
    held: I64
    partial: U64


def tokens_room() -> Tokens:
    """An empty block."""
    room = np.zeros(BLOCK_TOKENS, np.uint64), np.zeros(BLOCK_TOKENS, bool)
    return Tokens(*room, np.zeros(1, np.int64), np.zeros(2, np.uint64))


def utf8_of(texts: pa.StringArray) -> tuple[U8, I64]:
    """The bytes of all texts in one array, and where each starts (one more entry than texts); no copy of the bytes."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.frombuffer(data if data else b"", np.uint8)
    content.setflags(write=False)  # always: kernels are compiled for one type of array
    return content[starts[0] : starts[-1]], starts - starts[0]


def lookup(groups: dict[int, list[str]]) -> Lookup:
    """A table of the hashes of words, each with the number of its group (above 0)."""
    table = np.zeros((2, SLOTS), np.uint64)
    for value, words in groups.items():
        for word in hash_words(words):
            place = int(word) & (SLOTS - 1)
            while table[0, place]:
                place = (place + 1) & (SLOTS - 1)
            table[:, place] = word, value
    return table


@cache
def stop_words() -> Lookup:
    """STOP_WORDS as a table."""
    return lookup({1: list(STOP_WORDS)})


@bare
def find(key: np.uint64, table: Lookup) -> int:
    """The group of `key`, 0 where it is not in the table."""
    place = key & _SLOT_MASK
    while table[0, place] != _ZERO:
        if table[0, place] == key:
            return int(np.int64(table[1, place]))
        place = (place + _ONE) & _SLOT_MASK
    return 0


@bare
def decode(data: U8, place: int) -> tuple[np.uint32, int]:
    """The code point at `place` and where the next one starts."""
    first = np.uint32(data[place])
    if first < 0x80:
        return first, place + 1
    second = np.uint32(data[place + 1] & 0x3F)
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), place + 2
    third = np.uint32(data[place + 2] & 0x3F)
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), place + 3
    fourth = np.uint32(data[place + 3] & 0x3F)
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | fourth), place + 4


@bare
def scan_block(data: U8, place: int, stop: int, tables: Characters, tokens: Tokens) -> int:
    """Add tokens of data[place:stop] until the block is full or the text ends; where to go on."""
    held, token, power = tokens.held[0], tokens.partial[0], tokens.partial[1]
    while place < stop and held < len(tokens.hashes) - 1:
        point, place = decode(data, place)
        kind = tables.kinds[point] if point < _LIMIT else np.uint32(0)
        if kind & _WORD:
            if power == _ZERO:
                token, power = _ZERO, _ONE
            token += (np.uint64(tables.lower[point]) + _ONE) * power
            power *= _FACTOR
            continue
        if power != _ZERO:
            tokens.hashes[held], tokens.is_single[held] = mix_one(token), False
            held, power = held + 1, _ZERO
        if kind & _SINGLE:
            tokens.hashes[held], tokens.is_single[held] = mix_one(np.uint64(tables.lower[point]) + _ONE), True
            held += 1
    if place == stop and power != _ZERO:
        tokens.hashes[held], tokens.is_single[held] = mix_one(token), False
        held, power = held + 1, _ZERO
    tokens.held[0], tokens.partial[0], tokens.partial[1] = held, token, power
    return place
