"""Decontamination: documents that share a run of words with an evaluation set, found by hashes of n-grams.

An n-gram is `words` tokens in a row, tokens as the scan makes them: lower-cased words, and single characters of scripts
written without spaces; punctuation and space do not count. An evaluation text of fewer words is compared as a whole:
from WHOLE_SHARE of `words` on wherever it stands in a document, below that only with documents that are nothing else.
Texts are compared by 64-bit hashes of their runs: of a thousand million runs against a million, one in 18,000 such
comparisons errs once. Paraphrases and translations of evaluation texts are not recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.engine.characters import LIMIT, SINGLE, WORD, Characters, characters
from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.hashing import FACTOR, U64, mix_one
from atoll.data.engine.kernel import inner, kernel
from atoll.data.engine.scan import Tokens, scan_block, tokens_room, utf8_of

I64 = NDArray[np.int64]

SETS_MAX = 64
WHOLE_SHARE = 0.6
FILTER_BITS_PER_GRAM = 32
FOUND = "found.npz"
SAMPLES_MAX = 3
NOWHERE = -1

_ZERO, _ONE, _FACTOR = np.uint64(0), np.uint64(1), np.uint64(FACTOR)
_SIX, _TWELVE, _SIX_BITS = np.uint64(6), np.uint64(12), np.uint64(63)


class Grams(NamedTuple):
    """The runs of words of all sets, as a kernel takes them.

    Runs of lengths[i] words have the hashes[bounds[i]:bounds[i + 1]], rising, and `masks` say by a bit a set which sets
    have each. Length 0 stands for texts of fewer than `least` words, which are compared with whole documents.
    `filters` is a Bloom filter of the hashes of the last `least` words of every run: three bits, which a hash's low
    bits choose, in the word its high bits (all but `shift`) choose. `every` is the mask of all sets.
    """

    lengths: I64
    bounds: I64
    hashes: U64
    masks: U64
    filters: U64
    shift: U64
    least: I64
    every: U64


class Hit(NamedTuple):
    """Where a kernel notes what it finds in one text: arrays of one, as `Found` has of many."""

    masks: U64
    places: I64
    lengths: I64


@dataclass(frozen=True, slots=True)
class Table:
    """All evaluation sets: their names, how many texts each has, and the runs of words they hold."""

    words: int
    names: tuple[str, ...]
    texts: tuple[int, ...]
    grams: Grams

    def save(self, path: Path) -> None:
        """Write the table to `path`, which ends in .npz."""
        np.savez(path, names=np.array(self.names), texts=self.texts, words=self.words, **self.grams._asdict())


@dataclass(frozen=True, slots=True)
class Found:
    """For every document (n,): a bit for each set it shares text with, the first such token, and the run's length.

    A document is read until it has something of every set.
    """

    masks: U64
    places: I64
    lengths: I64

    @property
    def is_contaminated(self) -> NDArray[np.bool_]:
        return np.not_equal(self.masks, _ZERO)


@lru_cache(maxsize=4)
def load(path: Path) -> Table:
    """The table saved to `path`."""
    with np.load(path) as saved:
        grams = Grams(*(saved[name] for name in Grams._fields))
        return Table(int(saved["words"]), tuple(map(str, saved["names"])), tuple(map(int, saved["texts"])), grams)


def build(sets: Mapping[str, Iterable[Sequence[str]]], words: int) -> Table:
    """The table of evaluation sets by name, each given as portions of texts.

    Invalid when there are more than SETS_MAX, or one holds no words.
    """
    if len(sets) > SETS_MAX:
        raise Invalid(f"{len(sets)} evaluation sets are more than {SETS_MAX}", field="recipe.decontaminate.sets")
    runs: dict[int, list[tuple[U64, int]]] = {}
    ends = [np.zeros(0, np.uint64)]
    counts = []
    for number, (name, portions) in enumerate(sets.items()):
        counts.append(0)
        for portion in portions:
            counts[number] += len(portion)
            for length, hashes, last in _runs_of(portion, words):
                runs.setdefault(length, []).append((hashes, number))
                ends.append(last)
        if not any(owner == number for found in runs.values() for _, owner in found):
            hint = "give a file with texts, or leave it out: nothing would be kept out by it"
            raise Invalid(f"the evaluation set {name!r} holds no words", field="recipe.decontaminate.sets", hint=hint)
    return Table(words, tuple(sets), tuple(counts), _grams(runs, np.concatenate(ends), _least(words)))


def find(texts: pa.StringArray, table: Table) -> Found:
    """What each of `texts` shares with the sets."""
    found = Found(np.zeros(len(texts), np.uint64), *np.full((2, len(texts)), NOWHERE, np.int64))
    data, starts = utf8_of(texts)
    drop = _power(int(table.grams.least[0]))
    _find(data, starts, characters(), tokens_room(), table.grams, drop, found.masks, found.places, found.lengths)
    return found


def find_in_batch(item: tuple[Path, Path], folder: Path) -> None:
    """A stage: item = (a batch's file of texts, the table); leaves FOUND in `folder`."""
    texts, table = item
    with pa.memory_map(str(texts)) as file:
        found = find(pa.ipc.open_file(file).get_batch(0).column("text"), load(table))
    np.savez(folder / FOUND, masks=found.masks, places=found.places, lengths=found.lengths)


def collect(folders: Sequence[Path]) -> Found:
    """What the stage found, in the order of its items."""
    parts: list[list[NDArray[np.generic]]] = [[], [], []]
    for folder in folders:
        with np.load(folder / FOUND) as saved:
            for part, name in zip(parts, ("masks", "places", "lengths"), strict=True):
                part.append(saved[name])
    empty = (np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Found(*(np.concatenate([none, *part]) for none, part in zip(empty, parts, strict=True)))


def report(found: Found, table: Table, corpus: Corpus, among: NDArray[np.bool_]) -> list[dict[str, object]]:
    """For every set what it is and how many documents `among` (n,) share text with it, with samples `id: words`."""
    rows: list[dict[str, object]] = []
    for number, (name, texts) in enumerate(zip(table.names, table.texts, strict=True)):
        has = np.uint64(1 << number)
        documents = np.flatnonzero(among & ((found.masks & has) != _ZERO))
        grams = int(np.count_nonzero(table.grams.masks & has))
        samples = [_sample(corpus, found, document) for document in documents[:SAMPLES_MAX].tolist()]
        rows.append({"set": name, "texts": texts, "grams": grams, "documents": len(documents), "samples": samples})
    return rows


def words_at(text: str, first: int, count: int) -> str:
    """The words from token `first` on, `count` of them, as they stand in `text`."""
    spans = token_spans(text)[first : first + count]
    return text[spans[0][0] : spans[-1][1]] if spans else ""


def token_spans(text: str) -> list[tuple[int, int]]:
    """Where each token of `text` starts and stops, in characters: the tokens of the scan."""
    kinds = characters().kinds
    spans: list[tuple[int, int]] = []
    start = NOWHERE
    for place, character in enumerate(text):
        kind = kinds[ord(character)] if ord(character) < LIMIT else 0
        if start != NOWHERE and not kind & WORD:
            spans.append((start, place))
            start = NOWHERE
        if kind & SINGLE:
            spans.append((place, place + 1))
        elif kind & WORD and start == NOWHERE:
            start = place
    return spans if start == NOWHERE else [*spans, (start, len(text))]


def _sample(corpus: Corpus, found: Found, number: int) -> str:
    document = corpus[number]
    return f"{document.id}: {words_at(document.text, int(found.places[number]), int(found.lengths[number]))}"


def _least(words: int) -> int:
    return ceil(WHOLE_SHARE * words)


def _runs_of(texts: Sequence[str], words: int) -> Iterator[tuple[int, U64, U64]]:
    """(length of the runs, their hashes, hashes of the ends of the runs); length 0 for texts compared as documents."""
    data, starts = utf8_of(pa.array(texts, pa.string()))
    tokens, stops = np.empty(len(data), np.uint64), np.zeros(len(texts) + 1, np.int64)
    _tokenise(data, starts, characters(), tokens_room(), tokens, stops)
    sizes, least = np.diff(stops), _least(words)
    for size in np.unique(sizes[sizes > 0]).tolist():
        rows = np.flatnonzero(sizes == size)
        length = min(size, words)
        hashes = _hashed(tokens, stops[rows], size, length)
        if size < least:
            yield 0, hashes.ravel(), hashes[:0].ravel()
        else:
            yield length, hashes.ravel(), _hashed(tokens, stops[rows], size, least)[:, length - least :].ravel()


def _hashed(tokens: U64, starts: I64, size: int, length: int) -> U64:
    """(texts, runs): the hash of every run of `length` tokens of the texts of `size` tokens at `starts`."""
    result = np.empty((len(starts), size - length + 1), np.uint64)
    _hash_runs(tokens, starts, size, length, _power(length), result)
    return result


def _grams(runs: Mapping[int, list[tuple[U64, int]]], ends: U64, least: int) -> Grams:
    lengths = sorted(runs)
    parts = [_merged(runs[length]) for length in lengths]
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
    masks = np.concatenate([np.zeros(0, np.uint64), *(part[1] for part in parts)])
    bounds = np.cumsum([0, *(len(part[0]) for part in parts)])
    bits = max(1, (FILTER_BITS_PER_GRAM * len(ends) // 64).bit_length())
    shift = np.uint64(64 - bits)
    filters, every = np.zeros(1 << bits, np.uint64), np.bitwise_or.reduce(masks, keepdims=True)
    np.bitwise_or.at(filters, (ends >> shift).astype(np.int64), _marks(ends))
    return Grams(
        np.array(lengths, np.int64), bounds, hashes, masks, filters, np.array([shift]), np.array([least]), every
    )


def _marks(hashes: U64) -> U64:
    """The bits of each hash in its word of the filter."""
    places = (hashes & _SIX_BITS, hashes >> _SIX & _SIX_BITS, hashes >> _TWELVE & _SIX_BITS)
    marks: U64 = _ONE << places[0] | _ONE << places[1] | _ONE << places[2]
    return marks


def _merged(runs: list[tuple[U64, int]]) -> tuple[U64, U64]:
    """The distinct hashes, rising, and the sets of each as bits."""
    hashes = np.concatenate([part for part, _ in runs])
    owners = np.concatenate([np.full(len(part), 1 << number, np.uint64) for part, number in runs])
    order = np.argsort(hashes, kind="stable")
    distinct, firsts = np.unique(hashes[order], return_index=True)
    return distinct, np.bitwise_or.reduceat(owners[order], firsts)


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(FACTOR, exponent, 1 << 64))


@kernel
def _tokenise(
    data: NDArray[np.uint8], starts: I64, tables: Characters, tokens: Tokens, result: U64, stops: I64
) -> None:
    """All tokens of all texts in `result`, those of text i up to stops[i + 1]."""
    count = 0
    for text in range(len(starts) - 1):
        place = starts[text]
        while place < starts[text + 1]:
            tokens.held[0], tokens.partial[1] = 0, tokens.partial[1] if place > starts[text] else _ZERO
            place = scan_block(data, place, starts[text + 1], tables, tokens)
            for i in range(tokens.held[0]):
                result[count + i] = tokens.hashes[i]
            count += tokens.held[0]
        stops[text + 1] = count


@kernel
def _hash_runs(tokens: U64, starts: I64, size: int, length: int, drop: np.uint64, result: U64) -> None:
    """The hash of every run of `length` tokens within the texts of `size` tokens that begin at `starts`."""
    for row in range(len(starts)):
        value = _ZERO
        for i in range(size):
            value = value * _FACTOR + tokens[starts[row] + i]
            if i >= length:
                value -= tokens[starts[row] + i - length] * drop
            if i >= length - 1:
                result[row, i - length + 1] = mix_one(value)


@inner
def _sets_with(hashes: U64, first: int, stop: int, which: int, grams: Grams) -> np.uint64:
    """The sets that have the run hashes[first:stop] among those of lengths[which]."""
    value = _ZERO
    for i in range(first, stop):
        value = value * _FACTOR + hashes[i]
    key = np.uint64(mix_one(value))
    low, high = grams.bounds[which], grams.bounds[which + 1]
    while low < high:
        middle = (low + high) // 2
        if grams.hashes[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low < grams.bounds[which + 1] and grams.hashes[low] == key:
        return np.uint64(grams.masks[low])
    return _ZERO


@inner
def _roll(
    hashes: U64, first: int, held: int, before: int, grams: Grams, drop: np.uint64, value: np.uint64, found: Hit
) -> np.uint64:
    """Look at all runs that end in hashes[first:held], which `before` tokens of the text precede.

    The rolling value of the last `least` tokens is gone on with, and given back for the next block.
    """
    least = grams.least[0]
    for i in range(first, held):
        count = before + i - first + 1
        value = value * _FACTOR + hashes[i]
        if count > least:
            value -= hashes[i - least] * drop
        key = np.uint64(mix_one(value))
        marks = _ONE << (key & _SIX_BITS) | _ONE << (key >> _SIX & _SIX_BITS) | _ONE << (key >> _TWELVE & _SIX_BITS)
        if count < least or grams.filters[np.int64(key >> grams.shift[0])] & marks != marks:
            continue
        for which in range(len(grams.lengths)):
            length = grams.lengths[which]
            if 0 < length <= count:
                _note(_sets_with(hashes, i + 1 - length, i + 1, which, grams), count - length, length, found)
        if found.masks[0] == grams.every[0]:
            break
    return value


@inner
def _note(sets: np.uint64, place: int, length: int, found: Hit) -> None:
    """Add what a run of a text is found in."""
    if sets != _ZERO:
        found.masks[0] |= sets
        if found.places[0] < 0 or place < found.places[0]:
            found.places[0], found.lengths[0] = place, length


@kernel
def _find(
    data: NDArray[np.uint8],
    starts: I64,
    tables: Characters,
    tokens: Tokens,
    grams: Grams,
    drop: np.uint64,
    masks: U64,
    places: I64,
    lengths: I64,
) -> None:
    """Fill the last three arrays with what `Found` describes."""
    longest = max(grams.lengths[-1], grams.least[0])
    for text in range(len(starts) - 1):
        found = Hit(masks[text : text + 1], places[text : text + 1], lengths[text : text + 1])
        place, stop, kept, count, value = starts[text], starts[text + 1], 0, 0, _ZERO
        tokens.held[0], tokens.partial[1] = 0, _ZERO
        while place < stop and masks[text] != grams.every[0]:
            place = scan_block(data, place, stop, tables, tokens)
            held = tokens.held[0]
            value = _roll(tokens.hashes, kept, held, count, grams, drop, value, found)
            count += held - kept
            kept = min(held, longest)
            for i in range(kept):
                tokens.hashes[i] = tokens.hashes[held - kept + i]
            tokens.held[0] = kept
        if 0 < count < grams.least[0] and grams.lengths[0] == 0:
            _note(_sets_with(tokens.hashes, 0, count, 0, grams), 0, count, found)
