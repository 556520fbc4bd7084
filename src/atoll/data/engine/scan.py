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
from atoll.data.engine.arrays import I64, U8, U32, U64, Flags
from atoll.data.engine.characters import Characters
from atoll.data.engine.hashing import hash_words, mix_one, powers
from atoll.data.engine.kernel import bare, inlined

STOP_WORDS = (
    *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "if", "in", "into", "is"),
    *("it", "its", "no", "not", "of", "on", "or", "s", "such", "t", "that", "the", "their", "then", "there", "these"),
    *("they", "this", "to", "was", "which", "will", "with", "you"),
    *"的了是在和有不这為为與于於中上以及其或とのはをにが",
)
"""Frequent function words of English, Chinese and Japanese; a text of sentences has many."""

BLOCK_TOKENS, CHUNK_CHARACTERS = 1024, 256
BUCKETS, BUCKET_SLOTS = 64, 8
TERMS = 8

_LIMIT, _TOKEN = characters.LIMIT, characters.WORD | characters.SINGLE
assert (characters.WORD, characters.SINGLE) == (1, 2), "a scan counts on the places of these bits"
_ZERO, _ONE, _NOT_ASCII = np.uint64(0), np.uint64(1), np.uint64(0x8080808080808080)
_1, _2, _3, _4, _5, _6, _7 = (np.uint64(number) for number in range(1, 8))
_8, _16, _24, _32, _40 = (np.uint64(8 * number) for number in range(1, 6))
_LETTER, _BUCKET_MASK = np.uint64(0x7F), np.uint64(BUCKETS - 1)


Lookup = U64
"""uint64 (2, BUCKETS * BUCKET_SLOTS): hashes of some hundred words, each in the bucket its lowest bits say, 0 being an
empty slot; and their groups. The first slot of a bucket stays empty. It is compared as a whole, without a branch.
"""


class Tokens(NamedTuple):
    """Room for a block of tokens: `hashes`, and whether each `is_single`; `held` of them are there.

    `partial` is the sum and the power of a word that the block's end cut in two; a power of 0: no word is open. The
    rest is room for the characters of a chunk in lower case, and for where tokens start (twice the place, one more for
    a single) and stop in it; and tables: `codes`, powers of FACTOR, and for 0 to TERMS characters the powers they take.
    """

    hashes: U64
    is_single: Flags
    held: I64
    partial: U64
    small: U32
    starts: U32
    stops: U32
    codes: U8
    powers: U64
    terms: U64


def tokens_room() -> Tokens:
    """An empty block."""
    hashes, is_single = np.zeros(BLOCK_TOKENS, np.uint64), np.zeros(BLOCK_TOKENS, bool)
    small, starts, stops = np.zeros((3, CHUNK_CHARACTERS + TERMS), np.uint32)
    held, partial = np.zeros(1, np.int64), np.zeros(2, np.uint64)
    terms = np.where(np.arange(TERMS) < np.arange(TERMS + 1)[:, None], powers(TERMS), 0).astype(np.uint64).ravel()
    tables = _codes(), powers(CHUNK_CHARACTERS + 1), terms
    return Tokens(hashes, is_single, held, partial, small, starts, stops, *tables)


def _codes() -> U8:
    """Of each ASCII character its lower case, and in the highest bit whether it stands in a word."""
    tables = characters.characters()
    return (tables.lower[:128] | (tables.kinds[:128] & characters.WORD) << 7).astype(np.uint8)


def utf8_of(texts: pa.StringArray) -> tuple[U8, I64]:
    """The bytes of all texts in one array, and where each starts (one more entry than texts); no copy of the bytes."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.frombuffer(data if data else b"", np.uint8)
    content.setflags(write=False)  # always: kernels are compiled for one type of array
    return content[starts[0] : starts[-1]], starts - starts[0]


def lookup(groups: dict[int, list[str]]) -> Lookup:
    """A table of the hashes of words, each with the number of its group (above 0)."""
    table = np.zeros((2, BUCKETS, BUCKET_SLOTS), np.uint64)
    for value, words in groups.items():
        for word in hash_words(words):
            bucket = int(word) % BUCKETS
            slot = 1 + np.count_nonzero(table[0, bucket])
            assert slot < BUCKET_SLOTS, "too many words"
            table[:, bucket, slot] = word, value
    return table.reshape(2, BUCKETS * BUCKET_SLOTS)


@cache
def stop_words() -> Lookup:
    """STOP_WORDS as a table."""
    return lookup({1: list(STOP_WORDS)})


@bare
def find(key: np.uint64, table: Lookup) -> int:
    """The group of `key`, 0 where it is not in the table."""
    first, number = (key & _BUCKET_MASK) * _8, _ZERO
    for i in range(1, BUCKET_SLOTS):
        slot = np.uint64(i)
        number |= slot * np.uint64(table[0, first + slot] == key)
    return int(np.int64(table[1, first + number]))


@bare
def decode(data: U8, place: int) -> tuple[np.uint32, int]:
    """The code point at `place` and where the next one starts."""
    i = np.uint64(place)
    first = np.uint32(data[i])
    if first < 0x80:
        return first, place + 1
    second = np.uint32(data[i + _1] & 0x3F)
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), place + 2
    third = np.uint32(data[i + _2] & 0x3F)
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), place + 3
    fourth = np.uint32(data[i + _3] & 0x3F)
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | fourth), place + 4


@inlined
def at(places: U32, i: int) -> int:
    """One of some places, with a sign."""
    return int(np.int64(places[i]))


@inlined
def eight(data: U8, place: int) -> np.uint64:
    """The eight bytes from `place` on as one word, the first lowest; compiled it is one load."""
    i = np.uint64(place)
    low = np.uint64(data[i]) | np.uint64(data[i + _1]) << _8 | np.uint64(data[i + _2]) << _16
    low |= np.uint64(data[i + _3]) << _24 | np.uint64(data[i + _4]) << _32
    high = np.uint64(data[i + _5]) | np.uint64(data[i + _6]) << _8 | np.uint64(data[i + _7]) << _16
    return np.uint64(low | high << _40)


@bare
def scan_block(data: U8, place: int, stop: int, tables: Characters, tokens: Tokens) -> int:
    """Add tokens of data[place:stop] until the block is full or the text ends; where to go on."""
    held, is_open = tokens.held[0], tokens.partial[1] != _ZERO
    free = len(tokens.hashes) - 1 - held
    while place < stop and free > 0:
        length = min(free, CHUNK_CHARACTERS)
        place, length, ended, is_word = _cut_chunk(data, place, stop, length, is_open, tables, tokens)
        ended += is_word and place == stop
        held = _hash_chunk(tokens, held, ended, is_open)
        is_open = is_word and place < stop
        if is_open:
            _open(tokens, ended, length)
        free = len(tokens.hashes) - 1 - held
        free = free if free >= CHUNK_CHARACTERS else 0
    tokens.held[0] = held
    return place


@inlined
def _cut_chunk(
    data: U8, place: int, stop: int, limit: int, is_open: bool, tables: Characters, tokens: Tokens
) -> tuple[int, int, int, bool]:
    """Where the tokens of the next characters start and stop, of `limit` at most; where to go on, how many characters
    there are, how many tokens that stop in them, and whether they end in a word.
    """
    small, starts, stops, kinds, lower = tokens.small, tokens.starts, tokens.stops, tables.kinds, tables.lower
    length, ended, begun = 0, _ZERO, np.uint64(is_open)
    before = begun
    starts[0] = 0
    while place < stop and length < limit:
        if place + 8 <= stop and length + 8 <= limit and eight(data, place) & _NOT_ASCII == _ZERO:
            begun, ended, before = _cut_ascii(data, np.uint64(place), np.uint64(length), begun, ended, before, tokens)
            place, length = place + 8, length + 8
            continue
        point, place = decode(data, place)
        point = point if point < _LIMIT else np.uint32(0)
        kind = np.uint64(kinds[point] & _TOKEN)
        small[length] = lower[point]
        starts[begun], stops[ended] = np.uint64(2 * length) | kind >> _ONE, length
        begun += kind & ~before & _ONE | kind >> _ONE
        ended += before & ~kind & _ONE | before >> _ONE
        before = kind
        length += 1
    stops[ended] = length
    return place, length, int(np.int64(ended + (before >> _ONE))), bool(before & _ONE)


@inlined
def _cut_ascii(
    data: U8, place: np.uint64, length: np.uint64, begun: np.uint64, ended: np.uint64, before: np.uint64, tokens: Tokens
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Eight characters of one byte each: how many tokens are begun and ended then, and the kind of the last."""
    codes, small, starts, stops = tokens.codes, tokens.small, tokens.starts, tokens.stops
    stops[ended] = length
    ended += before >> _ONE
    before &= _ONE
    for i in range(8):
        step = np.uint64(i)
        code = np.uint64(codes[data[place + step]])
        small[length + step] = code & _LETTER
        kind = code >> _7
        starts[begun], stops[ended] = (length + step) << _ONE, length + step
        begun += kind & ~before
        ended += before & ~kind
        before = kind
    return begun, ended, before


@inlined
def _hash_chunk(tokens: Tokens, held: int, ended: int, is_open: bool) -> int:
    """The hashes of the tokens that stop in the chunk behind the `held`; how many are held then."""
    for token in range(ended):
        start = at(tokens.starts, token)
        value = _raw(tokens, start >> 1, at(tokens.stops, token))
        tokens.hashes[held + token], tokens.is_single[held + token] = mix_one(value), start & 1
    if is_open and ended > 0:
        value = tokens.partial[0] + _raw(tokens, 0, at(tokens.stops, 0)) * tokens.partial[1]
        tokens.hashes[held], tokens.partial[1] = mix_one(value), _ZERO
    return held + ended


@inlined
def _open(tokens: Tokens, token: int, length: int) -> None:
    """Keep what the chunk has of a word that goes on."""
    start = at(tokens.starts, token) >> 1
    value, power = _raw(tokens, start, length), tokens.powers[length - start]
    if tokens.partial[1] == _ZERO:
        tokens.partial[0], tokens.partial[1] = value, power
    else:
        tokens.partial[0] += value * tokens.partial[1]
        tokens.partial[1] *= power


@inlined
def _raw(tokens: Tokens, start: int, stop: int) -> np.uint64:
    """The hash of these characters of the chunk before it is mixed, TERMS terms at a time."""
    value = _eight_terms(tokens, start, min(TERMS, stop - start))
    place = start + TERMS
    while place < stop:
        value += _eight_terms(tokens, place, min(TERMS, stop - place)) * tokens.powers[place - start]
        place += TERMS
    return value


@inlined
def _eight_terms(tokens: Tokens, start: int, count: int) -> np.uint64:
    """The sum over `count` characters, without a branch."""
    first, row, value = np.uint64(start), np.uint64(TERMS * count), _ZERO
    for i in range(TERMS):
        place = np.uint64(i)
        value += (np.uint64(tokens.small[first + place]) + _ONE) * tokens.terms[row + place]
    return value
