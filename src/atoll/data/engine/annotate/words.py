"""Words: the pieces of a text whose words were found before (see `segment`), instead of by the rules of `pieces`."""

from __future__ import annotations

from atoll.data.engine.annotate.blocks import Block
from atoll.data.engine.arrays import U8
from atoll.data.engine.characters import SPACE
from atoll.data.engine.kernel import inner
from atoll.data.engine.scan import at
from atoll.data.engine.segment.cuts import is_start


@inner
def whole_words(block: Block, length: int, gaps: int, starts: U8) -> tuple[int, int]:
    """How many of the first `length` characters can be used before more come, and their gaps: up to where a word starts
    or after white space, all of them where one word fills the block.
    """
    last = length
    while last > 0 and not is_start(starts, at(block.places, last)) and not block.kinds[last - 1] & SPACE:
        last -= 1
    if last == 0:
        return length, gaps
    while gaps > 0 and block.gaps[gaps - 1] >= last:
        gaps -= 1
    return last, gaps


@inner
def cut_at(block: Block, length: int, starts: U8) -> int:
    """Cut the first `length` characters into block.starts and stops where words start and at white space; how many."""
    held, is_open = 0, False
    for place in range(length):
        if block.kinds[place] & SPACE:
            is_open = False
            continue
        if not is_open or is_start(starts, at(block.places, place)):
            block.starts[held] = place
            held, is_open = held + 1, True
        block.stops[held - 1] = place + 1
    return held
