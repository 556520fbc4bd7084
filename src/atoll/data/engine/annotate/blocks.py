"""Blocks: a text as code points with their kinds, some thousand at a time, which is what statistics are counted of.

A block ends at white space or after a single character where there is one, so no run without white space is cut in two
but one longer than a block. Beside its characters a block has sums over them, so the hash of any of its stretches and
how many characters of a kind it has are read off its two ends, without a look at what lies between.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import U8, U32, U64
from atoll.data.engine.characters import (
    AFTER,
    BEFORE,
    INSIDE,
    LETTER,
    LIMIT,
    MARK,
    NUMERAL,
    PUNCTUATION,
    SINGLE,
    SPACE,
    Characters,
)
from atoll.data.engine.hashing import FACTOR, MASK, powers
from atoll.data.engine.kernel import inlined, inner
from atoll.data.engine.scan import at, decode, eight

BLOCK_CHARACTERS = 2048

TALLIED = (LETTER, NUMERAL, MARK, PUNCTUATION, BEFORE | AFTER | INSIDE)
"""Kinds that are counted along a block; the last are those a run is cut at."""
TALLY_BITS = 12
LETTERS, NUMERALS, MARKS, PUNCTUATIONS, CUTTING = (np.uint64(TALLY_BITS * place) for place in range(len(TALLIED)))
"""Where each number stands in a tally."""
_TALLY = np.uint64((1 << TALLY_BITS) - 1)

_ZERO, _ONE, _NOT_ASCII, _APART = np.uint64(0), np.uint64(1), np.uint64(0x8080808080808080), SPACE | SINGLE


class Block(NamedTuple):
    """`points` and their `kinds`; `places`: the byte each begins at (and the last ends at).

    sums, tallies: before each character and after the last, the sum of (point + 1) * FACTOR**i, and how many are of
    each of the TALLIED. gaps: the characters that are white space or singles. starts, stops: of the pieces; parted:
    ends that are parted from a run, the last first. The rest are tables: FACTOR to the powers up and down, and what the
    characters of each class add to a tally.
    """

    points: U32
    kinds: U32
    places: U32
    sums: U64
    tallies: U64
    gaps: U32
    starts: U32
    stops: U32
    parted: U32
    powers: U64
    inverses: U64
    steps: U64


def block(tables: Characters) -> Block:
    """Room for a block."""
    points, kinds = np.zeros((2, BLOCK_CHARACTERS), np.uint32)
    places, gaps = np.zeros((2, BLOCK_CHARACTERS + 1), np.uint32)
    sums, tallies = np.zeros((2, BLOCK_CHARACTERS + 1), np.uint64)
    starts, stops, parted = np.zeros((3, BLOCK_CHARACTERS), np.uint32)
    inverses = np.full(BLOCK_CHARACTERS + 1, pow(FACTOR, -1, MASK + 1), np.uint64)
    inverses[0] = 1
    np.multiply.accumulate(inverses, out=inverses)
    steps = np.zeros(len(tables.flags), np.uint64)
    for place, kind in enumerate(TALLIED):
        steps |= ((tables.flags & kind) > 0).astype(np.uint64) << np.uint64(TALLY_BITS * place)
    room = points, kinds, places, sums, tallies, gaps, starts, stops, parted
    return Block(*room, powers(BLOCK_CHARACTERS + 1), inverses, steps)


@inner
def fill(data: U8, place: int, stop: int, tables: Characters, room: Block) -> tuple[int, int]:
    """Read characters of data[place:stop] into the block; how many can be used before more come, and their gaps."""
    held, place = _decode(data, place, stop, room.points, room.places)
    gaps = _sum_up(room, held, tables)
    if place < stop and gaps > 0:
        held = at(room.gaps, gaps - 1) + 1
    return held, gaps


@inner
def _decode(data: U8, place: int, stop: int, points: U32, places: U32) -> tuple[int, int]:
    """The code points of data[place:stop] and their places, as many as there is room for; where to go on."""
    held = 0
    while place < stop and held < len(points):
        if place + 8 <= stop and held + 8 <= len(points) and eight(data, place) & _NOT_ASCII == _ZERO:
            _widen(data, np.uint64(place), np.uint64(held), points, places)
            held, place = held + 8, place + 8
            continue
        places[held] = place
        points[held], place = decode(data, place)
        held += 1
    places[held] = place
    return held, place


@inlined
def _widen(data: U8, place: np.uint64, held: np.uint64, points: U32, places: U32) -> None:
    """Eight bytes as eight code points."""
    for i in range(8):
        step = np.uint64(i)
        points[held + step], places[held + step] = data[place + step], place + step


@inner
def _sum_up(room: Block, held: int, tables: Characters) -> int:
    """Kinds, sums and tallies of the points held, and where the gaps are; how many."""
    points, kinds, gaps, powers, steps = room.points, room.kinds, room.gaps, room.powers, room.steps
    sums, tallies, classes, flags = room.sums, room.tallies, tables.classes, tables.flags
    apart, total, tally = 0, _ZERO, _ZERO
    for i in range(held):
        point = points[i]
        number = classes[point] if point < LIMIT else np.uint8(0)
        kind = flags[number]
        kinds[i], gaps[apart] = kind, i
        total += (np.uint64(point) + _ONE) * powers[i]
        tally += steps[number]
        sums[i + 1], tallies[i + 1] = total, tally
        apart += (kind & _APART) > 0
    return apart


@inlined
def raw_hash(room: Block, first: int, last: int) -> np.uint64:
    """The hash of these characters, before it is mixed."""
    return np.uint64((room.sums[last] - room.sums[first]) * room.inverses[first])


@inlined
def tally(room: Block, first: int, last: int) -> np.uint64:
    """How many of these characters are of each of the TALLIED."""
    return np.uint64(room.tallies[last] - room.tallies[first])


@inlined
def tallied(tally: np.uint64, place: np.uint64) -> int:
    """One number of a tally."""
    return int(np.int64((tally >> place) & _TALLY))
