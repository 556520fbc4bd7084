"""The surroundings of anchors compared: by hash, byte by byte, or window by window.

The surroundings of an anchor are the bytes of all windows of L bytes that may have it as their anchor: L - gram to its
left and L to its right, as far as the text goes. Groups are places with equal grams in keep order; a place may be
proved a repeat by one before it that is in a source or in the same document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atoll.data.engine.dedup.cuts import Bytes
from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.hashing import U64
from atoll.data.engine.kernel import inner, kernel

_PRIME = np.uint64(2**61 - 1)
_BASE = np.uint64(0x15F4914F6CDD1D6B)  # any number below the prime
_LOW30, _LOW31 = np.uint64(2**30 - 1), np.uint64(2**31 - 1)


def hashed(data: Bytes, begins: Indices, rows: Indices, places: Indices, length: int, gram: int) -> tuple[U64, Indices]:
    """The hash of the surroundings of each place of a batch's texts, and their reach: int64 (2, places), bytes to the
    left and to the right."""
    hashes, reach = np.empty(len(rows), np.uint64), np.empty((2, len(rows)), np.int64)
    _hash_contexts(data, begins, rows, places, length, gram, hashes, reach)
    return hashes, reach


def repeated(groups: U64, hashes: U64, documents: Indices, is_source: Mask) -> Mask:
    """Which places have the surroundings of one before them in their group."""
    order = np.lexsort((hashes, groups))
    result = np.zeros(len(order), np.bool_)
    _repeated(groups, hashes, documents, is_source, order, result)
    return result


def windows(data: Bytes, begins: Indices, rows: Indices, places: Indices, length: int, shift: int, count: int) -> U64:
    """The hashes of the windows that start shift, shift + 1 … bytes before each place; 0 where the text has none.

    uint64 (places, count).
    """
    result = np.zeros((len(rows), count), np.uint64)
    _hash_windows(data, begins, rows, places, length, shift, result)
    return result


@dataclass(frozen=True, slots=True)
class Contexts:
    """The surroundings of places themselves: data[i, left - lefts[i] : left + rights[i]], the place at `left`."""

    data: Bytes
    lefts: Indices
    rights: Indices
    length: int

    @classmethod
    def empty(cls, count: int, length: int, gram: int) -> Contexts:
        data = np.zeros((count, 2 * length - gram), np.uint8)
        return cls(data, np.zeros(count, np.int64), np.zeros(count, np.int64), length)

    def fill(self, some: Indices, data: Bytes, begins: Indices, rows: Indices, places: Indices) -> None:
        """Take the surroundings of the places numbered `some` from a batch's texts."""
        left = self.data.shape[1] - self.length
        _copy_contexts(data, begins, rows, places, some, left, self.data, self.lefts, self.rights)

    def matched(self, starts: Indices, documents: Indices, is_source: Mask) -> tuple[Indices, Indices]:
        """How far to the left and right of each place what repeats goes; 0 where fewer than `length` bytes do."""
        lefts, rights = np.zeros((2, len(self.lefts)), np.int64)
        left = self.data.shape[1] - self.length
        _match(starts, self.data, left, self.lefts, self.rights, documents, is_source, self.length, lefts, rights)
        return lefts, rights


@kernel
def _hash_contexts(
    data: Bytes,
    begins: Indices,
    rows: Indices,
    places: Indices,
    length: int,
    gram: int,
    hashes: U64,
    reach: Indices,
) -> None:
    for number in range(len(rows)):
        begin, stop = begins[rows[number]], begins[rows[number] + 1]
        place = begin + places[number]
        left, right = min(places[number], length - gram), min(stop - place, length)
        value = np.uint64(left) << np.uint64(32) | np.uint64(right)
        for byte in data[place - left : place + right]:
            value = (value ^ np.uint64(byte)) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(32)
        hashes[number], reach[0, number], reach[1, number] = value, left, right


@kernel
def _repeated(groups: U64, hashes: U64, documents: Indices, is_source: Mask, order: Indices, result: Mask) -> None:
    has_source = False
    for step in range(len(order)):
        place = order[step]
        before = order[step - 1]
        if step and groups[place] == groups[before] and hashes[place] == hashes[before]:
            result[place] = has_source or documents[place] == documents[before]
            has_source |= is_source[place]
        else:
            has_source = is_source[place]


@kernel
def _copy_contexts(
    data: Bytes,
    begins: Indices,
    rows: Indices,
    places: Indices,
    some: Indices,
    left_max: int,
    contexts: Bytes,
    lefts: Indices,
    rights: Indices,
) -> None:
    length = contexts.shape[1] - left_max
    for number in range(len(rows)):
        begin, stop = begins[rows[number]], begins[rows[number] + 1]
        place, entry = begin + places[number], some[number]
        left, right = min(places[number], left_max), min(stop - place, length)
        contexts[entry, left_max - left : left_max + right] = data[place - left : place + right]
        lefts[entry], rights[entry] = left, right


@kernel
def _match(
    starts: Indices,
    contexts: Bytes,
    left_max: int,
    lefts: Indices,
    rights: Indices,
    documents: Indices,
    is_source: Mask,
    length: int,
    left_found: Indices,
    right_found: Indices,
) -> None:
    for group in range(len(starts) - 1):
        for later in range(starts[group], starts[group + 1]):
            for earlier in range(starts[group], later):
                if not is_source[earlier] and documents[earlier] != documents[later]:
                    continue
                one, other = contexts[earlier], contexts[later]
                left, left_stop = 0, min(lefts[earlier], lefts[later])
                while left < left_stop and one[left_max - 1 - left] == other[left_max - 1 - left]:
                    left += 1
                right, right_stop = 0, min(rights[earlier], rights[later])
                while right < right_stop and one[left_max + right] == other[left_max + right]:
                    right += 1
                if left + right >= length:
                    left_found[later] = max(left_found[later], left)
                    right_found[later] = max(right_found[later], right)


@inner
def _times(one: np.uint64, other: np.uint64) -> np.uint64:
    """one * other modulo 2**61 - 1, by halves."""
    one_high, one_low = one >> np.uint64(31), one & _LOW31
    other_high, other_low = other >> np.uint64(31), other & _LOW31
    middle = one_low * other_high + one_high * other_low
    total = one_high * other_high * np.uint64(2) + (middle >> np.uint64(30))
    total += ((middle & _LOW30) << np.uint64(31)) + one_low * other_low
    total = (total & _PRIME) + (total >> np.uint64(61))
    return total - _PRIME if total >= _PRIME else total


@kernel
def _hash_windows(
    data: Bytes, begins: Indices, rows: Indices, places: Indices, length: int, shift: int, result: U64
) -> None:
    """Polynomials modulo a prime; a window one byte to the left is had from the one before."""
    highest = np.uint64(1)
    for _ in range(length - 1):
        highest = _times(highest, _BASE)
    for number in range(len(rows)):
        text = data[begins[rows[number]] : begins[rows[number] + 1]]
        is_known, value = False, np.uint64(0)
        for step in range(result.shape[1]):
            start = places[number] - shift - step
            if start < 0 or start + length > len(text):
                continue
            if is_known:
                gone = _times(np.uint64(text[start + length]) + np.uint64(1), highest)
                value = _times((value + _PRIME - gone) % _PRIME, _BASE) + np.uint64(text[start]) + np.uint64(1)
            else:
                value = np.uint64(0)
                for place in range(start + length - 1, start - 1, -1):
                    value = _times(value, _BASE) + np.uint64(text[place]) + np.uint64(1)
            value %= _PRIME
            is_known = True
            result[number, step] = value + np.uint64(1)


@kernel
def meet(
    starts: Indices,
    hashes: U64,
    documents: Indices,
    is_source: Mask,
    windows: Indices,
    length: int,
    span_starts: Indices,
    span_stops: Indices,
) -> None:
    """Widen the span of every place by the windows that occur at a place before it in its group.

    windows: where the window of the first column of `hashes` starts in its text; those of further columns start one
    byte further left each.
    """
    slots = 1
    for group in range(len(starts) - 1):
        while slots < 2 * (starts[group + 1] - starts[group]):
            slots *= 2
    latest, proof = np.empty(slots, np.int64), np.empty(slots, np.bool_)
    for group in range(len(starts) - 1):
        size = 1
        while size < 2 * (starts[group + 1] - starts[group]):
            size *= 2
        for column in range(hashes.shape[1]):
            latest[:size] = -1
            for place in range(starts[group], starts[group + 1]):
                if hashes[place, column] == 0:
                    continue
                slot = _slot(latest, size, hashes, place, column)
                before = latest[slot]
                latest[slot] = place
                if before < 0:
                    proof[slot] = is_source[place]
                    continue
                if proof[slot] or documents[before] == documents[place]:
                    start = windows[place] - column
                    span_starts[place] = min(span_starts[place], start)
                    span_stops[place] = max(span_stops[place], start + length)
                proof[slot] |= is_source[place]


@inner
def _slot(latest: Indices, size: int, hashes: U64, place: int, column: int) -> np.int64:
    """The slot of a hash in a table of `size` slots: its own, or an empty one."""
    wanted = hashes[place, column]
    slot = np.int64((wanted * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)) & (size - 1)
    while latest[slot] >= 0 and hashes[latest[slot], column] != wanted:
        slot = (slot + 1) & (size - 1)
    return slot
