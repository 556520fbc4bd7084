"""The statistics of documents as Arrow columns: one row a document, one column a number a rule may speak of.

The columns and their meaning are `atoll.data.rules.COLUMNS`. Nothing is estimated. What a number says about quality is
for rules to decide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from atoll.data.engine import characters
from atoll.data.engine.annotate import repetition
from atoll.data.engine.annotate.blocks import Block, block, fill
from atoll.data.engine.annotate.lines import (
    LINE_COUNTERS,
    LINES,
    Lines,
    begin,
    count_newlines,
    end,
    lines_room,
    most_newlines,
    read_lines,
    slots_of,
)
from atoll.data.engine.annotate.pieces import PIECE_COUNTERS, PIECES, Common, common_words, count, cut, known_words
from atoll.data.engine.annotate.repetition import LONGEST, SHORTEST, TOP_LONGEST, Grams, Trail, grams, trail
from atoll.data.engine.annotate.words import cut_at, whole_words
from atoll.data.engine.arrays import I32, I64, U8, U32, U64, Numbers
from atoll.data.engine.characters import Characters
from atoll.data.engine.kernel import bare, inner
from atoll.data.engine.scan import Lookup, at, utf8_of
from atoll.data.engine.segment.cuts import Cuts
from atoll.data.rules import COLUMNS, REPETITION_COLUMNS

KINDS = {
    "spaces": characters.SPACE,
    "letters": characters.LETTER,
    "digits": characters.DIGIT,
    "latin": characters.LATIN,
    "cjk": characters.CJK,
    "word_characters": characters.WORD | characters.SINGLE,
    "hashes": characters.HASH,
    "ellipses": characters.ELLIPSIS,
}
"""Kinds of characters that are counted."""

Counts = dict[str, Numbers]

_FIGURES = tuple(
    f"top_{length}_gram_ratio" if length <= TOP_LONGEST else f"duplicate_{length}_gram_ratio"
    for length in range(SHORTEST, LONGEST + 1)
)
_NAMES = (*PIECE_COUNTERS, *LINE_COUNTERS, *KINDS, *_FIGURES)


class Meter(NamedTuple):
    """Room to measure texts one after the other. met: how many characters are of each of `masks`."""

    tables: Characters
    block: Block
    known: Lookup
    common: Common
    trail: Trail
    grams: Grams
    lines: Lines
    met: I64
    masks: U32


class Measured(NamedTuple):
    """counts: int32 (texts, counters). lines: hashes of the lines that are not blank, over their characters that are
    not white space, those of text i from line_starts[i] to line_starts[i + 1].
    """

    counts: I32
    lines: U64
    line_starts: I64


def measure(texts: pa.StringArray, cuts: Cuts, with_repetition: bool, with_lines: bool) -> Measured:
    """Read each of `texts` once and count. The pieces of a text that `cuts` has cut are its words."""
    data, starts = utf8_of(texts)
    most, total = most_newlines(data, starts)
    pieces_max = min(repetition.PIECES_MAX, int(np.diff(starts).max(initial=0))) if with_repetition else 0
    counts = np.zeros((len(texts), len(_NAMES)), np.int32)
    lines = np.empty(total + len(texts) if with_lines else 0, np.uint64)
    line_starts = np.zeros(len(texts) + 1, np.int64)
    counters = np.zeros(len(PIECE_COUNTERS) + len(LINE_COUNTERS), np.int64)
    measure_texts(data, starts, cuts, _meter(pieces_max, most), counters, counts, lines, line_starts)
    return Measured(counts, lines[: line_starts[-1]].copy(), line_starts)


def _meter(pieces_max: int, newlines_max: int) -> Meter:
    tables = characters.characters()
    room = trail(pieces_max), grams(pieces_max), lines_room(newlines_max), np.zeros(len(KINDS), np.int64)
    masks = np.array([*KINDS.values()], np.uint32)
    return Meter(tables, block(tables), known_words(), common_words(), *room, masks)


@bare
def measure_texts(
    data: U8, starts: I64, cuts: Cuts, meter: Meter, counters: I64, counts: I32, lines: U64, line_starts: I64
) -> None:
    """Fill the last three arrays with what `measure` promises."""
    kinds = len(counters)
    figures = kinds + len(meter.masks)
    for text in range(len(starts) - 1):
        row, place = counts[text], line_starts[text]
        words = cuts.starts if cuts.is_cut[text] else cuts.starts[:0]
        found = _read(data, starts[text], starts[text + 1], words, meter, counters, lines[place:])
        line_starts[text + 1] = place + found if len(lines) > 0 else 0
        for i in range(kinds):
            row[i] = counters[i]
        for i in range(len(meter.met)):
            row[kinds + i] = meter.met[i]
        if len(meter.trail.hashes) > 0:
            held = min(counters[PIECES], len(meter.trail.hashes))
            repetition.repetition(meter.trail, held, meter.grams, row[figures:])


@inner
def _read(data: U8, start: int, stop: int, words: U8, meter: Meter, counters: I64, lines: U64) -> int:
    """Read a text into `counters` and meter.met; how many lines are not blank. words: where they start, or empty."""
    counters[:] = 0
    meter.met[:] = 0
    of_pieces, of_lines = counters[: len(PIECE_COUNTERS)], counters[len(PIECE_COUNTERS) :]
    seen = meter.lines.seen[: slots_of(count_newlines(data, start, stop))]
    begin(meter.lines, seen, start)
    place, before = start, 0
    while place < stop:
        length, gaps = fill(data, place, stop, meter.tables, meter.block)
        if len(words) > 0 and meter.block.places[length] < stop:
            length, gaps = whole_words(meter.block, length, gaps, words)
        _count_kinds(meter, length)
        is_cut = len(words) > 0
        pieces = cut_at(meter.block, length, words) if is_cut else cut(meter.block, length, gaps, meter.known)
        count(meter.block, pieces, before, meter.common, meter.trail, of_pieces)
        read_lines(data, meter.block, length, gaps, pieces, meter.lines, seen, of_lines, lines)
        place = at(meter.block.places, length)
        before += length
    end(data, stop, meter.lines, seen, of_lines, lines)
    return int(of_lines[LINES])


@inner
def _count_kinds(meter: Meter, length: int) -> None:
    kinds = meter.block.kinds
    for number in range(len(meter.masks)):
        mask, total = meter.masks[number], 0
        for i in range(length):
            total += (kinds[i] & mask) > 0
        meter.met[number] += total


def statistics(sizes: I64, tokens: I64, measured: Measured, with_repetition: bool) -> dict[str, pa.Array]:
    """COLUMNS (without REPETITION_COLUMNS where those are not wanted) from sizes in bytes, tokens and counts."""
    count: Counts = dict(zip(_NAMES, measured.counts.T, strict=True))
    count |= {"bytes": sizes, "words": tokens[:, 0], "stop_words": tokens[:, 1]}
    count["common_words"] = np.bitwise_count(count["common_words"])
    ratios = _of_characters(count) | _of_lines(count) | _of_pieces(count)
    if with_repetition:
        ratios |= _of_repetition(count)
    wanted = [name for name in COLUMNS if with_repetition or name not in REPETITION_COLUMNS]
    return {name: pa.array(np.ascontiguousarray(ratios[name] if name in ratios else count[name])) for name in wanted}


def _of_characters(count: Counts) -> dict[str, Numbers]:
    letters, digits = count["letters"], count["digits"]
    solid = count["characters"] - count["spaces"]
    return {
        "mean_word_length": _ratio(count["word_characters"], count["words"]),
        "alpha_ratio": _ratio(letters, solid),
        "digit_ratio": _ratio(digits, solid),
        "symbol_ratio": _ratio(solid - letters - digits, solid),
        "stop_word_ratio": _ratio(count["stop_words"], count["words"]),
        "latin_share": _ratio(count["latin"], letters),
        "cjk_share": _ratio(count["cjk"], letters),
    }


def _of_lines(count: Counts) -> dict[str, Numbers]:
    lines, characters = count["lines"], count["characters"]
    return {
        "mean_line_length": _ratio(characters, lines),
        "short_line_ratio": _ratio(count["short_lines"], lines),
        "ended_line_ratio": _ratio(count["ended_lines"], lines),
        "bullet_line_ratio": _ratio(count["bullet_lines"], count["all_lines"]),
        "ellipsis_line_ratio": _ratio(count["ellipsis_lines"], count["all_lines"]),
        "duplicate_line_ratio": _ratio(count["duplicate_lines"], lines),
        "duplicate_line_character_ratio": _ratio(count["duplicate_line_characters"], characters),
        "duplicate_line_text_ratio": _ratio(count["duplicate_line_characters"], characters - count["newlines"]),
        "duplicate_paragraph_ratio": _ratio(count["duplicate_paragraphs"], count["paragraphs"]),
        "duplicate_paragraph_character_ratio": _ratio(count["duplicate_paragraph_characters"], characters),
    }


def _of_pieces(count: Counts) -> dict[str, Numbers]:
    all_pieces = count["pieces"]
    return {
        "mean_plain_word_length": _ratio(count["plain_characters"], count["plain_words"]),
        "hash_ratio": _ratio(count["hashes"], all_pieces),
        "ellipsis_ratio": _ratio(count["ellipses"] + count["dot_ellipses"], all_pieces),
        "alphabetic_word_ratio": _ratio(count["alphabetic_words"], all_pieces),
        "newline_ratio": _ratio(count["newlines"], all_pieces),
    }


def _of_repetition(count: Counts) -> dict[str, Numbers]:
    """Shares of the characters that were looked at: all, but of texts of more than PIECES_MAX pieces."""
    is_whole = count["pieces"] <= repetition.PIECES_MAX
    characters = np.where(is_whole, count["characters"], count["trodden"])
    return {name: _ratio(count[name], characters) for name in _FIGURES}


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
