"""MinHash: the shingles of a text, and signatures whose agreement estimates the Jaccard index of two texts.

The shingle that starts at a token is that token and those after it: `cjk_characters` tokens in all where it is a
single (a character of a script written without spaces), else `words` tokens; it is there when the text goes on so far.
A text in which none is there has one shingle, of all its tokens; a text without tokens has none. So equal widths give
the plain n-token shingles, and Chinese with English names in it has one sequence of shingles throughout.

A signature entry is the least value of the shingles' upper halves under one of `permutations` maps
x -> factor * x + term modulo 2**32 with odd factors (Broder 1997). Banding (Leskovec, Rajaraman, Ullman, Mining of
Massive Datasets, 3.4) makes candidates of texts that agree on all rows of a band. Signatures only propose; `dedup`
verifies by the shingles themselves.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from atoll.data.engine.arrays import I64, U8, U32, U64
from atoll.data.engine.characters import Characters, characters
from atoll.data.engine.hashing import mix, mix_one, powers, seeded
from atoll.data.engine.kernel import bare, inner, kernel
from atoll.data.engine.scan import BLOCK_TOKENS, Lookup, Tokens, find, scan_block, stop_words, tokens_room, utf8_of

WIDTH_MAX = 20
RECALL_MIN = 0.99
NOTHING = 0xFFFFFFFF

Signatures = U32
"""uint32 (texts, permutations); a row of NOTHING for a text without tokens."""

_ZERO, _ONE, _HALF = np.uint64(0), np.uint64(1), np.uint64(32)


class Widths(NamedTuple):
    """Tokens of a shingle: `words` from a word on, `cjk_characters` from a single on; both 1 to WIDTH_MAX."""

    words: int
    cjk_characters: int


class Maps(NamedTuple):
    """The permutations."""

    factors: U32
    terms: U32


class Shingler(NamedTuple):
    """What a text is scanned with, and the room for it: blocks of tokens, shingles and their upper halves."""

    tables: Characters
    stop_words: Lookup
    tokens: Tokens
    widths: Widths
    powers: U64
    shingles: U64
    other: U64
    halves: U32


def shingler(words: int, cjk_characters: int) -> Shingler:
    """Room to scan texts one after the other."""
    assert 1 <= min(words, cjk_characters) <= max(words, cjk_characters) <= WIDTH_MAX, "widths are 1 to 20 tokens"
    room = np.zeros(BLOCK_TOKENS, np.uint64), np.zeros(BLOCK_TOKENS, np.uint64), np.zeros(BLOCK_TOKENS, np.uint32)
    widths = Widths(words, cjk_characters)
    return Shingler(characters(), stop_words(), tokens_room(), widths, powers(BLOCK_TOKENS), *room)


def signatures(texts: pa.StringArray, permutations: int, room: Shingler) -> tuple[Signatures, I64]:
    """Signatures of `texts`, and int64 (texts, 2): how many tokens each has, and how many of them are stop words."""
    data, starts = utf8_of(texts)
    found = np.full((len(texts), permutations), NOTHING, np.uint32)
    counts = np.zeros((len(texts), 2), np.int64)
    sign(data, starts, room, maps(permutations), found, counts)
    return found, counts


def shingles(texts: pa.StringArray, words: int, cjk_characters: int) -> tuple[U64, I64]:
    """The distinct shingles of each text, ascending; those of text i from starts[i] to starts[i + 1]."""
    data, starts = utf8_of(texts)
    flat = np.empty(len(data), np.uint64)
    ends = np.zeros(len(texts) + 1, np.int64)
    collect(data, starts, shingler(words, cjk_characters), flat, ends)
    return flat[: ends[-1]].copy(), ends


@cache
def maps(permutations: int) -> Maps:
    """The permutations, fixed for ever."""
    words = seeded(permutations, seed=1)
    factors = (words >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return Maps(factors, (words & np.uint64(0xFFFFFFFF)).astype(np.uint32))


def rows_of_band(threshold: float, permutations: int) -> int:
    """The most rows a band may have so that pairs at `threshold` become candidates with RECALL_MIN probability."""
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= RECALL_MIN:
            return rows
    return 1


def band_keys(signatures: Signatures, band: int, rows: int) -> U64:
    """One word for each text; texts that agree on all rows of `band` have equal words."""
    part = signatures[:, band * rows : (band + 1) * rows].astype(np.uint64)
    return mix((part + np.uint64(1)) @ powers(rows))


@inner
def _sums(hashes: U64, count: int, width: int, powers: U64, result: U64) -> None:
    """result[i]: the hash of hashes[i : i + width], before it is mixed, for the first `count` places."""
    for i in range(count):
        result[i] = hashes[i] + _ONE
    for place in range(1, width):
        power = powers[place]
        for i in range(count):
            result[i] += (hashes[i + place] + _ONE) * power


@inner
def _mixed(values: U64, count: int) -> None:
    for i in range(count):
        values[i] = mix_one(values[i])


@inner
def _choose(tokens: Tokens, widths: Widths, count: int, room: Shingler) -> int:
    """Of two sums for each of `count` places keep the one of its own width, where the block goes on so far."""
    held, kept = tokens.held[0], 0
    for i in range(count):
        width = widths.cjk_characters if tokens.is_single[i] else widths.words
        if i + width <= held:
            room.shingles[kept] = room.other[i] if tokens.is_single[i] else room.shingles[i]
            kept += 1
    return kept


@inner
def _fold(room: Shingler, is_last: bool) -> int:
    """Make the shingles of the tokens held and keep only the tokens that later shingles need; how many shingles."""
    tokens, widths = room.tokens, room.widths
    held = tokens.held[0]
    of_words, of_singles = max(0, held - widths.words + 1), max(0, held - widths.cjk_characters + 1)
    done = min(of_words, of_singles)
    count: int = max(of_words, of_singles) if is_last else done
    _sums(tokens.hashes, min(count, of_words), widths.words, room.powers, room.shingles)
    if widths.words != widths.cjk_characters:
        _sums(tokens.hashes, min(count, of_singles), widths.cjk_characters, room.powers, room.other)
        count = _choose(tokens, widths, count, room)
    _mixed(room.shingles, count)
    for i in range(done, held):
        tokens.hashes[i - done], tokens.is_single[i - done] = tokens.hashes[i], tokens.is_single[i]
    tokens.held[0] = held - done
    return count


@inner
def next_shingles(room: Shingler, is_last: bool, before: int) -> int:
    """The shingles of the tokens held into room.shingles; how many. `before`: how many the text had before."""
    count = _fold(room, is_last)
    held = room.tokens.held[0]
    if not is_last or before + count > 0 or held == 0:
        return count
    _sums(room.tokens.hashes, 1, held, room.powers, room.shingles)
    _mixed(room.shingles, 1)
    return 1


@inner
def _lower(row: U32, maps: Maps, halves: U32, count: int) -> None:
    """Lower every entry of `row` to the least of its permutation over `halves`."""
    for j in range(len(row)):
        factor, term, least = maps.factors[j], maps.terms[j], row[j]
        for i in range(count):
            least = min(least, np.uint32(factor * halves[i] + term))
        row[j] = least


@bare
def sign(
    data: U8,
    starts: I64,
    room: Shingler,
    maps: Maps,
    result: U32,
    counts: I64,
) -> None:
    """Fill the last two arrays with what `signatures` promises."""
    tokens = room.tokens
    for text in range(len(starts) - 1):
        place, stop, total = starts[text], starts[text + 1], 0
        tokens.held[0], tokens.partial[1] = 0, _ZERO
        while place < stop:
            earlier = tokens.held[0]
            place = scan_block(data, place, stop, room.tables, tokens)
            counts[text, 0] += tokens.held[0] - earlier
            for i in range(earlier, tokens.held[0]):
                counts[text, 1] += find(tokens.hashes[i], room.stop_words)
            count = next_shingles(room, place == stop, total)
            total += count
            for i in range(count):
                room.halves[i] = np.uint32(room.shingles[i] >> _HALF)
            _lower(result[text], maps, room.halves, count)


@kernel
def collect(data: U8, starts: I64, room: Shingler, flat: U64, ends: I64) -> None:
    """Fill the last two arrays with what `shingles` promises."""
    for text in range(len(starts) - 1):
        place, stop = starts[text], starts[text + 1]
        first = last = ends[text]
        room.tokens.held[0], room.tokens.partial[1] = 0, _ZERO
        while place < stop:
            place = scan_block(data, place, stop, room.tables, room.tokens)
            count = next_shingles(room, place == stop, last - first)
            flat[last : last + count] = room.shingles[:count]
            last += count
        flat[first:last].sort()
        ends[text + 1] = first + _distinct(flat[first:last])


@inner
def _distinct(values: U64) -> int:
    """Move the different of ascending `values` to their head; how many."""
    kept = 0
    for i in range(len(values)):
        if i == 0 or values[i] != values[i - 1]:
            values[kept] = values[i]
            kept += 1
    return kept
