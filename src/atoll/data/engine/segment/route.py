"""The route through a block: the words whose frequencies have the greatest product, and what is done about the rest.

A block is a run of Han characters, Latin letters, digits and + # & . _ % -. Its words come from the dictionary; a run
of characters that came out single is cut by the hidden Markov model where it is Han, else into numbers and Latin
words. Sums are made in jieba's order and ties go to the same side, so the words are equal to the last one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atoll.data.engine.arrays import I32, U8
from atoll.data.engine.kernel import inlined
from atoll.data.engine.segment.jieba import ASCII, F64, Model
from atoll.data.engine.segment.trie import child_of, weight_of

BLOCK_CHARACTERS = 1 << 16
"""A longer block is cut in two, the one thing that jieba does otherwise."""

_DOT, _PERCENT, _ZERO, _NINE = (ord(mark) for mark in ".%09")
_B, _M, _E, _S = range(4)


class Route(NamedTuple):
    """Room for a block: the `slots` of its characters; for each place the `scores` of the best route from there on and
    where its first word `stops`; `back`, room for the hidden states; `is_start`, 1 where a word starts.
    """

    slots: I32
    scores: F64
    stops: I32
    back: U8
    is_start: U8


def route(characters_max: int = BLOCK_CHARACTERS) -> Route:
    """Room for blocks of so many characters."""
    slots, stops = np.zeros((2, characters_max + 1), np.int32)
    back, is_start = np.zeros((2, characters_max + 1), np.uint8)
    return Route(slots, np.zeros(characters_max + 1, np.float64), stops, back, is_start)


@inlined
def cut_block(room: Route, length: int, model: Model) -> None:
    """Mark in `is_start` where the words of the first `length` slots start."""
    _find_route(room, length, model)
    room.is_start[:length] = 0
    place, single = 0, 0
    while place < length:
        stop = room.stops[place]
        if stop - place > 1:
            _cut_singles(room, single, place, model)
            room.is_start[place] = 1
            single = stop
        place = stop
    _cut_singles(room, single, length, model)


@inlined
def _find_route(room: Route, length: int, model: Model) -> None:
    """The best route from every place to the end, from the last to the first; of equals the one with a longer word."""
    cells, codes, slots, scores = model.cells, model.codes, room.slots, room.scores
    scores[length] = 0.0
    for first in range(length - 1, -1, -1):
        best, stop, node, place = model.weights[0] + scores[first + 1], first + 1, 0, first
        is_known = False
        while place < length:
            node = child_of(cells, node, codes[slots[place]])
            if node == 0:
                break
            place += 1
            weight = weight_of(cells[node])
            if weight > 0:
                score = model.weights[weight] + scores[place]
                if not is_known or score >= best:
                    best, stop, is_known = score, place, True
        scores[first], room.stops[first] = best, stop


@inlined
def _cut_singles(room: Route, first: int, last: int, model: Model) -> None:
    """Cut a run of characters that stand alone on the route. What is a word of the dictionary was not worth it, so its
    characters stay single.
    """
    if last - first < 2 or _is_word(room, first, last, model):
        for place in range(first, last):
            room.is_start[place] = 1
        return
    while first < last:
        stop = first + 1
        if room.slots[first] >= ASCII:
            while stop < last and room.slots[stop] >= ASCII:
                stop += 1
            _cut_han(room, first, stop, model)
        else:
            stop = _latin(room, first, last)
            room.is_start[first] = 1
        first = stop


@inlined
def _is_word(room: Route, first: int, last: int, model: Model) -> bool:
    node = 0
    for place in range(first, last):
        node = child_of(model.cells, node, model.codes[room.slots[place]])
        if node == 0:
            return False
    return weight_of(model.cells[node]) > 0


@inlined
def _latin(room: Route, first: int, last: int) -> int:
    """Where the piece at `first` ends: letters and digits with a fraction and a percent sign, or marks in a row."""
    place = first
    if not _is_alphanumeric(room.slots[first]):
        while place < last and room.slots[place] < ASCII and not _is_alphanumeric(room.slots[place]):
            place += 1
        return place
    while place < last and _is_alphanumeric(room.slots[place]):
        place += 1
    fraction = place + 1
    if place < last and room.slots[place] == _DOT:
        while fraction < last and _ZERO <= room.slots[fraction] <= _NINE:
            fraction += 1
        place = fraction if fraction > place + 1 else place
    return place + 1 if place < last and room.slots[place] == _PERCENT else place


@inlined
def _is_alphanumeric(slot: int) -> bool:
    return _ZERO <= slot <= _NINE or 0x41 <= slot <= 0x5A or 0x61 <= slot <= 0x7A


@inlined
def _cut_han(room: Route, first: int, last: int, model: Model) -> None:
    """Mark where words start in a run of Han characters: the most probable states of Viterbi (1967). Of equals the
    state that comes later in the alphabet.
    """
    _step_forward(room, first, last, model)
    state = int(room.back[last])
    for place in range(last - 1, first, -1):
        room.is_start[place] = state in (_B, _S)
        state = _before(state, int(room.back[place]))
    room.is_start[first] = 1


@inlined
def _before(state: int, origins: int) -> int:
    """The state before `state`: the later of the two that may stand there where its bit is set."""
    is_later = (origins >> state) & 1
    if state in (_B, _S):
        return _S if is_later else _E
    return _M if is_later else _B


@inlined
def _step_forward(room: Route, first: int, last: int, model: Model) -> None:
    """Where the best way to each state comes from, at each place but the first; in back[last] the last state."""
    emissions, moves = model.emissions, model.moves
    here, begins = emissions[room.slots[first] - ASCII], model.begins
    b, m, e, s = begins[_B] + here[_B], begins[_M] + here[_M], begins[_E] + here[_E], begins[_S] + here[_S]
    for place in range(first + 1, last):
        here = emissions[room.slots[place] - ASCII]
        b_e, b_s = e + moves[_B, 0] + here[_B], s + moves[_B, 1] + here[_B]
        m_b, m_m = b + moves[_M, 0] + here[_M], m + moves[_M, 1] + here[_M]
        e_b, e_m = b + moves[_E, 0] + here[_E], m + moves[_E, 1] + here[_E]
        s_e, s_s = e + moves[_S, 0] + here[_S], s + moves[_S, 1] + here[_S]
        origins = (b_s >= b_e) << _B | (m_m >= m_b) << _M | (e_m >= e_b) << _E | (s_s >= s_e) << _S
        room.back[place] = origins
        b, m, e, s = max(b_e, b_s), max(m_b, m_m), max(e_b, e_m), max(s_e, s_s)
    room.back[last] = _S if s >= e else _E
