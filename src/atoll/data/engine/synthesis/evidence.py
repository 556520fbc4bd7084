"""Evidence: where in a passage a quotation stands, and whether it holds what an answer says.

A quotation is looked for as it is; then without case, spacing and punctuation; then as the stretch of words (or Chinese
characters) that differs least from it, by Sellers' edit distance of a pattern to any part of a text (Sellers 1980).
Support is counted in words: a denial in the same words, or a conclusion in others, is not recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.compose.contamination import token_spans
from atoll.data.engine.synthesis.content import content, folded, numbers

I64 = NDArray[np.int64]

ALIKE_MIN = 0.8
"""Least share of a quotation's words that must be found in place."""

_QUOTES = " \n\t\"'`\u2018\u2019\u201c\u201d\u300c\u300d\u300e\u300f"

WORDS_MIN = 3
WORDS_MAX = 400


@dataclass(frozen=True, slots=True)
class Located:
    """A quotation found in a passage, in characters; `alike` is 1 when it is verbatim but for case and punctuation."""

    start: int
    stop: int
    alike: float


def locate(quotation: str, passage: str) -> Located | None:
    """Where `quotation` stands in `passage`; None when nothing is alike enough or it has too few words."""
    quotation = quotation.strip(_QUOTES)
    wanted = _words(quotation)
    if not WORDS_MIN <= len(wanted) <= WORDS_MAX:
        return None
    place = passage.find(quotation)
    if place >= 0:
        return Located(place, place + len(quotation), 1.0)
    spans = token_spans(passage)
    first, stop, distance = nearest(wanted, [folded(passage[slice(*span)]) for span in spans])
    alike = 1 - distance / len(wanted)
    if alike < ALIKE_MIN:
        return None
    return Located(spans[first][0], spans[stop - 1][1], alike)


def nearest(pattern: list[str], words: list[str]) -> tuple[int, int, int]:
    """(start, stop, distance): the part of `words` with the least edit distance to `pattern`, the first of equals."""
    numbered = {word: number for number, word in enumerate({*pattern, *words})}
    ours, theirs = (np.array([numbered[word] for word in side], np.int64) for side in (pattern, words))
    ends = _distances(ours, theirs, np.zeros(len(words) + 1, np.int64))
    stop = int(np.argmin(ends))
    if not stop:
        return 0, 0, len(pattern)
    back = _distances(ours[::-1], theirs[:stop][::-1], np.arange(stop + 1))
    return stop - int(np.argmin(back)), stop, int(ends[stop])


def support(answer: str, evidence: str, question: str, passage: str) -> float:
    """The share of the answer's content words that stand in the evidence, or in both question and passage; 0 to 1."""
    said = content(answer)
    held = content(evidence) | (content(question) & content(passage))
    return len(said & held) / len(said) if said else 0.0


def strange_numbers(answer: str, evidence: str, question: str) -> frozenset[str]:
    """Numbers in the answer that neither the evidence nor the question has."""
    return numbers(answer) - numbers(evidence) - numbers(question)


def _words(text: str) -> list[str]:
    return [folded(text[slice(*span)]) for span in token_spans(text)]


def _distances(pattern: I64, words: I64, before: I64) -> I64:
    """The least edit distance of `pattern` to parts of `words` by where they end (0 to all).

    before: what it costs to leave out the words before each place; zeros where a part may begin anywhere.
    """
    steps = np.arange(len(words) + 1)
    row = before
    for number, word in enumerate(pattern, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (words != word))
        first = [before[0] + number]
        row = np.minimum.accumulate(np.concatenate([first, changed]) - steps) + steps
    return row
