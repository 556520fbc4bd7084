"""Repetition: how much of a text its most frequent and its repeated n-grams of pieces take (Rae et al. 2021, A.1.1).

top n-gram: the characters of the most frequent one (of equals the earliest), single spaces between its pieces, times
how often it occurs. Repeated n-grams: the text is read from left to right; an n-gram that was read before is counted
with its characters and stepped over whole. An n-gram that occurs twice has (n - 1)-grams that occur twice, so each
length looks only at the places the one before left over, and the figures are exact. Of a text of more than
PIECES_MAX pieces, which the same authors drop as too long, the pieces after are not looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import I32, U8, U64
from atoll.data.engine.hashing import FACTOR
from atoll.data.engine.kernel import bare, inner

PIECES_MAX = 1 << 17
SHORTEST, TOP_LONGEST, LONGEST = 2, 4, 10
FIGURES = LONGEST - SHORTEST + 1
"""Top 2-, 3-, 4-grams, then repeated 5- to 10-grams: characters of each."""

_MET_PER_SLOT = 4
_FACTOR, _ZERO, _ONE, _HALF = np.uint64(FACTOR), np.uint64(0), np.uint64(1), np.uint64(32)


class Trail(NamedTuple):
    """The pieces of a text: their hashes, and where each ends in characters (ends[0] is 0)."""

    hashes: U64
    ends: I32


class Grams(NamedTuple):
    """Room for the n-grams of a text: their places, hashes and slots; of each slot the hash and how often; and for each
    of some first bits of a hash whether n-grams had them once (1) or more often (3).
    """

    places: I32
    sums: U64
    slots: I32
    keys: U64
    counts: I32
    met: U8


def trail(pieces_max: int = PIECES_MAX) -> Trail:
    """An empty trail; of no pieces where repetition is not wanted."""
    return Trail(np.zeros(pieces_max, np.uint64), np.zeros(pieces_max + 1, np.int32))


def grams(pieces_max: int = PIECES_MAX) -> Grams:
    """Room for the n-grams of a trail."""
    places, slots = np.zeros((2, pieces_max), np.int32)
    room = slots_for(pieces_max)
    tables = np.zeros(room, np.uint64), np.zeros(room, np.int32), np.zeros(_MET_PER_SLOT * room, np.uint8)
    return Grams(places, np.zeros(pieces_max, np.uint64), slots, *tables)


@bare
def slots_for(count: int) -> int:
    """A power of two that `count` keys fill at most by half."""
    slots = 16
    while slots < 2 * count:
        slots *= 2
    return slots


@inner
def _extend(path: Trail, room: Grams, held: int, pieces: int, length: int) -> int:
    """Make n-grams of `length` from those one shorter, leaving out the ones the text ends within; how many."""
    kept = 0
    for i in range(held):
        place = room.places[i]
        if place + length <= pieces:
            room.places[kept] = place
            room.sums[kept] = room.sums[i] * _FACTOR + path.hashes[place + length - 1]
            kept += 1
    return kept


@inner
def _leave_out_single(room: Grams, held: int) -> int:
    """Keep the n-grams whose first bits another has too, so all that occur more than once; how many.

    Few of the others are left, and no branch is taken to find them, as looking each one up would take.
    """
    slots = _MET_PER_SLOT * slots_for(held)
    room.met[:slots] = 0
    mask = np.uint64(slots - 1)
    for i in range(held):
        slot = room.sums[i] >> _HALF & mask
        room.met[slot] = room.met[slot] << 1 & 2 | 1
    kept = 0
    for i in range(held):
        place, value = room.places[i], room.sums[i]
        room.places[kept], room.sums[kept] = place, value
        kept += room.met[value >> _HALF & mask] > 1
    return kept


@inner
def _count(room: Grams, held: int) -> None:
    """Give every n-gram its slot and every slot its count."""
    slots = slots_for(held)
    room.keys[:slots] = _ZERO
    room.counts[:slots] = 0
    mask = np.uint64(slots - 1)
    for i in range(held):
        key = max(room.sums[i], _ONE)
        slot = (key ^ (key >> np.uint64(32))) & mask
        while min(room.keys[slot], room.keys[slot] ^ key) != _ZERO:  # neither empty nor its own
            slot = (slot + _ONE) & mask
        room.keys[slot] = key
        room.counts[slot] += 1
        room.slots[i] = slot


@inner
def _characters(path: Trail, place: int, length: int) -> int:
    return int(path.ends[place + length] - path.ends[place])


@inner
def _top(path: Trail, room: Grams, held: int, length: int) -> int:
    """Characters of the most frequent n-gram times its count."""
    best, place = 1, 0
    for i in range(held):
        if room.counts[room.slots[i]] > best:
            best, place = room.counts[room.slots[i]], room.places[i]
    return (_characters(path, place, length) + length - 1) * best


@inner
def _repeated(path: Trail, room: Grams, held: int, length: int) -> int:
    """Characters of n-grams that were read before; counts of slots that were read become negative."""
    total, free = 0, 0
    for i in range(held):
        place, slot = room.places[i], room.slots[i]
        if place < free:
            continue
        if room.counts[slot] < 0:
            total += _characters(path, place, length)
            free = place + length
        else:
            room.counts[slot] = -room.counts[slot]
    return total


@inner
def _only_repeated(room: Grams, held: int) -> int:
    """Keep the n-grams that occur more than once; how many."""
    kept = 0
    for i in range(held):
        room.places[kept], room.sums[kept] = room.places[i], room.sums[i]
        kept += abs(room.counts[room.slots[i]]) > 1
    return kept


@bare
def repetition(path: Trail, pieces: int, room: Grams, result: I32) -> None:
    """Fill `result` with the FIGURES of a text of `pieces` pieces; a figure of n-grams it is too short for is 0."""
    for i in range(pieces):
        room.places[i], room.sums[i] = i, path.hashes[i]
    held = pieces
    for length in range(SHORTEST, LONGEST + 1):
        if length > pieces:
            result[length - SHORTEST] = 0
            continue
        held = _extend(path, room, held, pieces, length)
        if length <= 2:
            held = _leave_out_single(room, held)
        _count(room, held)
        if length <= TOP_LONGEST:
            result[length - SHORTEST] = _top(path, room, held, length)
        else:
            result[length - SHORTEST] = _repeated(path, room, held, length)
        held = _only_repeated(room, held)
