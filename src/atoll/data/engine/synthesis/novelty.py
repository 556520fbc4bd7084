"""Novelty: whether something like it was asked before, so that no question is learned twice or in two splits.

Two questions are alike when they hold the same numbers and the Jaccard index of their content words is at least ALIKE.
Candidates are found by the words that only few share (prefix filtering: Bayardo, Ma, Srikant 2007), which misses none.
Question words count as content: when and where are different questions. Questions alike in meaning only are not
recognised.
"""

from __future__ import annotations

from math import ceil

from atoll.data.engine.hashing import hash_text
from atoll.data.engine.synthesis.answers import Pair
from atoll.data.engine.synthesis.content import content, folded, numbers
from atoll.data.engine.synthesis.wanted import QUESTION

ALIKE = 0.8


class Asked:
    """What was asked so far. The order in which pairs come decides which of two stays."""

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._words: list[frozenset[str]] = []
        self._with: dict[tuple[tuple[str, frozenset[str]], str], list[int]] = {}

    def is_new(self, pair: Pair) -> bool:
        """Whether nothing like the pair was asked before; it counts as asked from now on if so.

        Questions are compared by what they ask, tasks about a passage by their answers.
        """
        kind = pair.target.kind
        text = pair.asked if kind == QUESTION else pair.answer
        exact = hash_text(f"{kind}\0{' '.join(folded(text).split())}")
        words = content(text)
        about = (kind, numbers(text))
        prefix = [(about, word) for word in _prefix(words)]
        candidates = (number for key in prefix for number in self._with.get(key, ()))
        if exact in self._exact or any(self._is_alike(number, words) for number in candidates):
            return False
        self._exact.add(exact)
        for key in prefix:
            self._with.setdefault(key, []).append(len(self._words))
        self._words.append(words)
        return True

    def _is_alike(self, number: int, words: frozenset[str]) -> bool:
        other = self._words[number]
        return len(words & other) >= ALIKE * len(words | other)


def _prefix(words: frozenset[str]) -> list[str]:
    """So many of the words, the longest first, that two alike sets share at least one of theirs."""
    ranked = sorted(words, key=lambda word: (-len(word), word))
    return ranked[: len(words) - ceil(ALIKE * len(words)) + 1] if words else []
