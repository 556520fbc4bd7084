"""Blocks: a text as code points with their kinds, some thousand at a time, which is what statistics are counted of.

A block ends at white space or after a single character where there is one, so no run without white space is cut in two
but one longer than a block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import I64, U8, U32
from atoll.data.engine.characters import LIMIT, SINGLE, SPACE, Characters
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.scan import decode

BLOCK_CHARACTERS = 2048


class Block(NamedTuple):
    """`points` and their `kinds`; `places`: the byte each begins at (and the last ends at); `bounds` of its pieces."""

    points: U32
    kinds: U32
    places: I64
    bounds: I64


def block() -> Block:
    """Room for a block."""
    points, kinds = np.zeros((2, BLOCK_CHARACTERS), np.uint32)
    return Block(points, kinds, np.zeros(BLOCK_CHARACTERS + 1, np.int64), np.zeros((3, BLOCK_CHARACTERS), np.int64))


@inner
def fill(data: U8, place: int, stop: int, tables: Characters, room: Block, held: int, met: I64) -> tuple[int, int]:
    """Put characters of data[place:stop] behind the `held` ones; where to go on, and how many are held.

    met: how often each class of characters was met, counted on.
    """
    points, kinds, places = room.points, room.kinds, room.places
    classes, flags = tables.classes, tables.flags
    while place < stop and held < len(points):
        places[held] = place
        point, place = decode(data, place)
        number = classes[point] if point < LIMIT else np.uint8(0)
        met[number] += 1
        points[held], kinds[held] = point, flags[number]
        held += 1
    places[held] = place
    return place, held


@bare
def whole(room: Block, held: int) -> int:
    """How many of the `held` characters can be read before more come: up to the last white space or single."""
    last = held
    while last > 0 and not room.kinds[last - 1] & (SPACE | SINGLE):
        last -= 1
    return last if last > 0 else held


@inner
def shift(room: Block, done: int, held: int) -> int:
    """Forget the first `done` characters; how many are left."""
    points, kinds, places = room.points, room.kinds, room.places
    for i in range(done, held):
        points[i - done], kinds[i - done], places[i - done] = points[i], kinds[i], places[i]
    places[held - done] = places[held]
    return held - done
