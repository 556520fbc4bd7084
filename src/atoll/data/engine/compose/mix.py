"""Mixing: which documents of which source are taken, and how often, so that shares of tokens match their weights.

Documents are drawn in the order of a hash of id and seed, whatever order they come in, so a larger budget takes what a
smaller one took and more (but for the last document of a source). A source's share is met within one document, and so
is the whole budget. What a token is, exact or estimated, is the caller's; what documents say is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.curate import plan
from atoll.data.engine.hashing import U64, mix, seeded
from atoll.data.recipes.parts import REPEAT_MOST

I64 = NDArray[np.int64]

LATIN_CHARACTERS_PER_TOKEN, CJK_CHARACTERS_PER_TOKEN = 4.0, 1.4
"""Rules of thumb for vocabularies of 30,000 to 150,000 pieces; a tokenizer's own count is exact."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What is taken of one source: tokens unless named otherwise; `repeats` is how often the same document at most."""

    source: str
    weight: float
    documents: int
    available: int
    wanted: int
    taken: int
    documents_taken: int
    repeats: int

    @property
    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Mixture:
    """`times` (n,) is how often each document is taken; `portions` says what that makes, by name of source."""

    times: NDArray[np.int16]
    portions: tuple[Portion, ...]

    @property
    def tokens(self) -> int:
        return sum(portion.taken for portion in self.portions)


@dataclass(frozen=True, slots=True)
class _Stock:
    """What there is of one source: its documents' numbers in the order they are drawn, and tokens up to each."""

    name: str
    weight: float
    numbers: I64
    reached: I64

    @property
    def tokens(self) -> int:
        return int(self.reached[-1]) if len(self.reached) else 0


def source_codes(sources: pa.ChunkedArray | pa.StringArray, names: Sequence[str]) -> NDArray[np.int32]:
    """The place among `names` of what stands before the first colon of each of `sources`, (n,).

    Invalid when a document is of none of them.
    """
    found = pc.replace_substring_regex(sources, pattern="(?s):.*", replacement="")
    codes = pc.index_in(found, value_set=pa.array(names, pa.string()))
    if codes.null_count:
        strange = found.filter(pc.is_null(codes))[0].as_py()
        raise Invalid(f"a document is of the source {strange!r}", hint=f"the run's sources: {', '.join(names)}")
    return np.asarray(codes, np.int32)


def approximate_tokens(notes: pa.RecordBatch) -> I64:
    """About how many tokens each document is, at least 1, by its statistics (n,).

    Its letters in scripts without spaces and all its other characters count by a rule of thumb each.
    """
    columns = ("characters", "alpha_ratio", "cjk_share")
    characters, letters, share = (notes.column(name).to_numpy(zero_copy_only=False) for name in columns)
    cjk = characters * letters * share
    tokens = (characters - cjk) / LATIN_CHARACTERS_PER_TOKEN + cjk / CJK_CHARACTERS_PER_TOKEN
    result: I64 = np.maximum(1, np.rint(tokens)).astype(np.int64)
    return result


def draw(
    codes: NDArray[np.int32], names: Sequence[str], tokens: I64, hashes: U64, wanted: plan.Mix, seed: int
) -> Mixture:
    """The mixture of documents given by source (its place among `names`), tokens and hash of id, each (n,).

    Invalid when a weight speaks of no source, when a source has nothing, when the budget is more than there is, and
    when it is too small for any document.
    """
    weights = _weights(names, dict(wanted.weights))
    keys = mix(hashes ^ seeded(1, seed)[0])
    stocks = [_stock(name, weights[name], codes == code, tokens, keys) for code, name in enumerate(names)]
    wants = _wants(stocks, wanted)
    times, portions, surplus = np.zeros(len(codes), np.int16), [], 0
    for stock in sorted(stocks, key=lambda stock: stock.name):
        taken = _take(stock, wants[stock.name], surplus, wanted.repeat_max, times)
        surplus += taken - wants[stock.name]
        portions.append(_portion(stock, wants[stock.name], taken, times))
    if wanted.tokens is not None and not times.any():
        raise _too_little(stocks, wanted.tokens)
    return Mixture(times, tuple(portions))


def _weights(names: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    if unknown := sorted(set(given) - set(names)):
        hint = f"the run's sources: {', '.join(names)}"
        raise Invalid(f"a weight is given to {unknown[0]!r}, which is no source", field="recipe.mix.weights", hint=hint)
    return {name: given.get(name, 1.0) for name in names}


def _stock(name: str, weight: float, members: NDArray[np.bool_], tokens: I64, keys: U64) -> _Stock:
    numbers = np.flatnonzero(members)
    numbers = numbers[np.lexsort((tokens[numbers], keys[numbers]))]
    return _Stock(name, weight, numbers, np.cumsum(tokens[numbers]))


def _wants(stocks: Sequence[_Stock], wanted: plan.Mix) -> dict[str, int]:
    """Tokens wanted of each source."""
    if empty := [stock.name for stock in stocks if not stock.tokens]:
        hint = "loosen the rules that dropped them, or leave the source out"
        raise Invalid(f"nothing is left to mix of the source {empty[0]!r}", field="recipe.mix", hint=hint)
    whole = sum(stock.weight for stock in stocks)
    most = min(stock.tokens * wanted.repeat_max * whole / stock.weight for stock in stocks)
    total = int(most) if wanted.tokens is None else wanted.tokens
    if total > most:
        raise _beyond(stocks, wanted, total, most)
    return {s.name: min(round(total * s.weight / whole), int(s.tokens * wanted.repeat_max)) for s in stocks}


def _beyond(stocks: Sequence[_Stock], wanted: plan.Mix, total: int, most: float) -> Invalid:
    whole = sum(stock.weight for stock in stocks)
    scarce = min(stocks, key=lambda stock: stock.tokens / stock.weight)
    share = total * scarce.weight / whole
    repeats = ceil(100 * share / scarce.tokens) / 100
    message = (
        f"{total} tokens at these weights want {round(share)} of the source {scarce.name!r}, which has "
        f"{scarce.tokens} and is taken at most {wanted.repeat_max:g} times over"
    )
    repeat = f"repeat_max to {repeats:g}, or " if repeats <= REPEAT_MOST else ""
    hint = f"at most {int(most)} tokens go with these weights; or set {repeat}its weight lower"
    return Invalid(message, field="recipe.mix.tokens", hint=hint)


def _too_little(stocks: Sequence[_Stock], total: int) -> Invalid:
    whole = sum(stock.weight for stock in stocks)
    least = min(ceil(int(stock.reached[0]) * whole / stock.weight) for stock in stocks)
    message = f"a budget of {total} is too small for any document: nothing would be left to train on"
    hint = f"at least {least} tokens, what the first document drawn takes; null takes as many as the weights allow"
    return Invalid(message, field="recipe.mix.tokens", hint=hint)


def _take(stock: _Stock, want: int, surplus: int, repeat_max: float, times: NDArray[np.int16]) -> int:
    """Mark what is taken of one source; its tokens: `want` or one document more or less.

    The side is chosen on which all sources together, with a `surplus` so far, come nearest to their budget.
    """
    rounds, rest = divmod(want, stock.tokens)
    count = int(np.searchsorted(stock.reached, rest, side="right"))
    below = int(stock.reached[count - 1]) if count else 0
    if below < rest and rounds < ceil(repeat_max):
        above = int(stock.reached[count])
        is_nearer = abs(surplus + above - rest) < abs(surplus + below - rest)
        count, below = (count + 1, above) if is_nearer else (count, below)
    times[stock.numbers] = rounds
    times[stock.numbers[:count]] += 1
    return rounds * stock.tokens + below


def _portion(stock: _Stock, want: int, taken: int, times: NDArray[np.int16]) -> Portion:
    mine = times[stock.numbers]
    return Portion(
        source=stock.name,
        weight=stock.weight,
        documents=len(mine),
        available=stock.tokens,
        wanted=want,
        taken=taken,
        documents_taken=int(np.count_nonzero(mine)),
        repeats=int(mine.max(initial=0)),
    )
