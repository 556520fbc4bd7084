"""A quality model that knows only good texts: how surprising a text is to a small model of them.

Words (characters in scripts without spaces) are hashed; the chance of a word after the two before it is interpolated
from counts of one, two and three words by Witten and Bell's estimate (I. Witten, T. Bell, IEEE Trans. Information
Theory 37, 1991). Counts live in tables of 2**bits places, each kept by the n-gram that comes there most, so a model is
as small as wanted and forgets what is rare. A text's score is the share of held-out reference texts that are at least
as surprising: 0.5 is the median one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.characters import DIGIT, LIMIT, SINGLE, WORD
from atoll.data.engine.hashing import hash_text
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.quality.features import FACTOR, decoded, flat, mixed, tables
from atoll.data.engine.quality.model_file import ModelFile

KIND = "perplexity"
ORDER = 3
LEVELS = 101
TEXTS_MIN = 20
HELDOUT_TENTHS = 2
VOCABULARY = 1 << 20
"""A word never seen has this share of what is left over, 1 / VOCABULARY."""

Counts = NDArray[np.uint32]
_COUNT_BITS, _COUNT_MAX, _CHECK = np.uint64(20), np.uint64((1 << 20) - 1), np.uint64((1 << 12) - 1)
"""A cell is 12 bits that tell its token from 4,095 of 4,096 others, and its count."""

_ONE, _LIMIT, _ZERO_DIGIT = np.uint64(1), np.uint64(LIMIT), np.uint64(48)


@dataclass(frozen=True, slots=True)
class Perplexity:
    """A trained model: cells of n-grams and of contexts, how many different words followed each context, and of all
    texts the words and the different ones. `levels` are the percentiles 0 … 100 of held-out reference texts' surprise.
    """

    bits: int
    grams: Counts
    after: Counts
    kinds: Counts
    totals: tuple[int, int]
    levels: NDArray[np.float64]
    report: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    kind = KIND

    def score(self, texts: pa.StringArray) -> NDArray[np.float32]:
        """float32 (n,) from 0 to 1: the share of reference texts at least as surprising; 0 for texts without words."""
        surprise = self.surprise(texts)
        share = np.interp(surprise, self.levels, np.linspace(1.0, 0.0, LEVELS))
        return np.where(np.isinf(surprise), 0.0, share).astype(np.float32)

    def surprise(self, texts: pa.StringArray) -> NDArray[np.float64]:
        """float64 (n,): mean -log2 probability of a word; infinite for texts without words."""
        data, starts = flat(texts)
        found = np.empty(len(texts))
        shift, totals = np.uint64(64 - self.bits), np.array(self.totals, np.int64)
        _surprise(data, starts, *tables(), shift, self.grams, self.after, self.kinds, totals, found)
        return found

    def file(self) -> ModelFile:
        """The model as a file."""
        arrays: dict[str, NDArray[Any]] = {"grams": self.grams, "after": self.after, "kinds": self.kinds}
        header = {"bits": self.bits, "totals": list(self.totals), "report": self.report}
        return ModelFile(KIND, header, {**arrays, "levels": self.levels})


def from_file(file: ModelFile) -> Perplexity:
    """The model in a file; KeyError or TypeError when it is not one."""
    header, arrays = file.header, file.arrays
    bits, (words, different) = int(header["bits"]), header["totals"]
    grams, after, kinds = (arrays[name] for name in ("grams", "after", "kinds"))
    if any(cells.shape != (1 << bits,) or cells.dtype != np.uint32 for cells in (grams, after, kinds)):
        raise TypeError("its tables have another shape")
    if arrays["levels"].shape != (LEVELS,):
        raise TypeError("its levels have another shape")
    totals = (int(words), int(different))
    return Perplexity(bits, grams, after, kinds, totals, arrays["levels"], header["report"], file.digest)


def train(texts: pa.StringArray, seed: int = 0, bits: int = 20) -> Perplexity:
    """A model of `texts`; a fifth of them, chosen by their hashes, sets the levels. Invalid when there are too few."""
    tenths = np.array([hash_text(text.as_py() or "", seed) % 10 for text in texts])
    learnt, held = texts.filter(pa.array(tenths >= HELDOUT_TENTHS)), texts.filter(pa.array(tenths < HELDOUT_TENTHS))
    if len(learnt) < TEXTS_MIN or not len(held):
        hint = f"give at least {TEXTS_MIN * 2} texts"
        raise Invalid(f"{len(texts)} texts are too few for a model of them", field="good", hint=hint)
    grams, after, kinds = np.zeros((3, 1 << bits), np.uint32)
    totals = np.zeros(2, np.int64)
    _count(*flat(learnt), *tables(), np.uint64(64 - bits), grams, after, kinds, totals)
    counted = (int(totals[0]), int(totals[1]))
    blank = Perplexity(bits, grams, after, kinds, counted, np.zeros(LEVELS))
    surprise = blank.surprise(held)
    surprise = surprise[np.isfinite(surprise)]
    if not len(surprise):
        raise Invalid("the texts held out have no words", field="good", hint="give texts with words")
    levels = np.percentile(surprise, np.linspace(0, 100, LEVELS))
    used = float((grams > 0).mean())
    report = {
        "texts": len(texts),
        "trained_on": len(learnt),
        "tested": len(surprise),
        "perplexity_median": round(float(2.0 ** np.median(surprise)), 3),
        "table_used": round(used, 4),
    }
    return Perplexity(bits, grams, after, kinds, counted, np.maximum.accumulate(levels), report)


@inner
def _next_word(
    data: NDArray[np.uint8], place: int, kinds: NDArray[np.uint8], lower: NDArray[np.uint32]
) -> tuple[np.uint64, int]:
    """(hash of the next word from `place` on, where it ends); hash 0 when there is none."""
    word, power = np.uint64(0), np.uint64(0)
    while place < len(data):
        point, end = decoded(data, place)
        kind = kinds[point] if point < _LIMIT else np.uint8(0)
        low = np.uint64(lower[point]) if point < _LIMIT else point
        low = _ZERO_DIGIT if kind & DIGIT else low
        if kind & WORD:
            if power == np.uint64(0):
                power = _ONE
            word += (low + _ONE) * power
            power *= FACTOR
        elif power != np.uint64(0):
            return mixed(word) | _ONE, place
        elif kind & SINGLE:
            return mixed(low + _ONE) | _ONE, end
        place = end
    return (mixed(word) | _ONE if power != np.uint64(0) else np.uint64(0)), place


@inner
def _context(order: int, last: np.uint64, before: np.uint64) -> np.uint64:
    """The hash of the `order` words before a word."""
    if order == 0:
        return np.uint64(0)
    one = mixed(last + _ONE)
    return one if order == 1 else mixed(one * FACTOR + before)


@inner
def _seen(table: Counts, token: np.uint64, shift: np.uint64) -> tuple[np.int64, np.int64]:
    """(place of a token, its count: 0 when another token has the place)."""
    spread = mixed(token)
    place = np.int64(spread >> shift)
    cell = np.uint64(table[place])
    is_own = cell >> _COUNT_BITS == spread & _CHECK
    return place, np.int64(cell & _COUNT_MAX if is_own else np.uint64(0))


@inner
def _add(table: Counts, token: np.uint64, shift: np.uint64) -> tuple[np.int64, np.int64]:
    """(place, 1 when the token came to have it, 0 when it had it already, -1 when another keeps it).

    A place keeps the token that comes most: others wear its count down and take the place when nothing is left (R.
    Boyer and J. Moore's majority vote, 1981, in every place).
    """
    spread = mixed(token)
    place = np.int64(spread >> shift)
    cell = np.uint64(table[place])
    count = cell & _COUNT_MAX
    if count == np.uint64(0):
        table[place] = np.uint32((spread & _CHECK) << _COUNT_BITS | _ONE)
        return place, np.int64(1)
    if cell >> _COUNT_BITS == spread & _CHECK:
        if count < _COUNT_MAX:
            table[place] = np.uint32(cell + _ONE)
        return place, np.int64(0)
    table[place] = np.uint32(cell - _ONE)
    return place, np.int64(-1)


@kernel
def _count(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    characters: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    shift: np.uint64,
    grams: Counts,
    after: Counts,
    kinds: Counts,
    totals: NDArray[np.int64],
) -> None:
    """Count the n-grams of all texts; `totals` are words, and different ones."""
    for text in range(len(starts) - 1):
        here = data[starts[text] : starts[text + 1]]
        word, place = _next_word(here, 0, characters, lower)
        last, before = np.uint64(0), np.uint64(0)
        while word != np.uint64(0):
            for order in range(ORDER):
                context = _context(order, last, before)
                _, is_new = _add(grams, context * FACTOR + word, shift)
                if order == 0:
                    totals[0] += 1
                    totals[1] += is_new == 1
                    continue
                ahead, is_first = _add(after, context, shift)
                if is_first == 1:
                    kinds[ahead] = np.uint32(0)
                if is_first >= 0 and is_new != 0:
                    kinds[ahead] += np.uint32(1)
            before, last = last, word
            word, place = _next_word(here, place, characters, lower)


@kernel
def _surprise(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    characters: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    shift: np.uint64,
    grams: Counts,
    after: Counts,
    kinds: Counts,
    totals: NDArray[np.int64],
    found: NDArray[np.float64],
) -> None:
    for text in range(len(starts) - 1):
        here = data[starts[text] : starts[text + 1]]
        word, place = _next_word(here, 0, characters, lower)
        last, before = np.uint64(0), np.uint64(0)
        total, count = 0.0, 0
        while word != np.uint64(0):
            chance = 1.0 / VOCABULARY
            for order in range(ORDER):
                context = _context(order, last, before)
                _, known = _seen(grams, context * FACTOR + word, shift)
                seen, different = totals[0], totals[1]
                if order > 0:
                    ahead, seen = _seen(after, context, shift)
                    different = np.int64(kinds[ahead])
                if seen > 0:
                    spare = float(max(1, different))
                    chance = (float(min(known, seen)) + spare * chance) / (float(seen) + spare)
            total -= np.log2(chance)
            count += 1
            before, last = last, word
            word, place = _next_word(here, place, characters, lower)
        found[text] = total / count if count > 0 else np.inf
