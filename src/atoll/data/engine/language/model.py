"""A language model: fastText's file of a quantised classifier as tables that a kernel reads.

The format is version 12 of fastText's own (Joulin et al. 2016, "FastText.zip: Compressing text classification models"):
arguments, dictionary, a matrix of product-quantised rows for words and hashed pieces of words, and one of floats for
the labels. Rows stay as they lie in the file, which is mapped, so several processes share them. Every number of the
file is checked before it is believed. Not known here: matrices that are not quantised, n-grams of words.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.arrays import I32, I64, U8, U32, U64
from atoll.data.engine.language.mapped import F32, MappedFile

_MAGIC, _VERSION = 793712314, 12
_LOSSES = {1: True, 3: False}
"""Hierarchical softmax, softmax; whether there is a tree."""
_PREFIX, _END = b"__label__", b"</s>"
_CENTROIDS = 256
_DIMENSIONS_MAX, _BUCKETS_MAX, _ENTRIES_MAX, _PIECE_MAX = 4096, 1 << 24, 1 << 22, 64
_COUNT_MAX = 10**15
"""More than any label occurs: what fastText takes as the count of a node that is not made yet."""
_FNV_START, _FNV_FACTOR = 2166136261, 16777619


class Rows(NamedTuple):
    """The input: row r is norms[norm_codes[r]] times the centroids that codes[r] names.

    Each of its codes stands for `width` numbers, the last for what is left of them.
    """

    codes: U8
    norm_codes: U8
    norms: F32
    centroids: F32
    width: int


class Words(NamedTuple):
    """The words, which have the first rows: where each lies in the bytes of the file, and how one is found."""

    file: U8
    starts: I32
    stops: I32
    slots: I32
    """Numbers of words by their hash, -1 for an empty slot; a power of two of them."""
    end: int
    """The word that ends every line, -1 where there is none."""


class Pieces(NamedTuple):
    """Pieces of words, which have the rows from `first` on, by the bucket their hash falls into.

    Bucket b has row first + rows[rank of b]: `kept` is a bitmap of buckets, `ranks` counts the bits before each of its
    elements.
    """

    first: int
    buckets: int
    all_kept: bool
    """Bucket b has row first + b."""
    kept: U64
    ranks: U32
    rows: U32
    shortest: int
    longest: int
    """Characters of a piece."""


class Output(NamedTuple):
    """The labels. With a `tree`, the children of every node and -1 for those of labels, node labels + i has row i of
    `weights`, (labels, dimensions); else the tree is empty and label i has it.
    """

    weights: F32
    tree: I32


class Tables(NamedTuple):
    """What a kernel needs to predict."""

    rows: Rows
    words: Words
    pieces: Pieces
    output: Output


class Model(NamedTuple):
    """A model at hand: its tables, and the labels by their numbers."""

    tables: Tables
    labels: tuple[str, ...]


class _Arguments(NamedTuple):
    dimensions: int
    has_tree: bool
    buckets: int
    shortest: int
    longest: int


class _Dictionary(NamedTuple):
    starts: I32
    stops: I32
    counts: I64
    words: int
    kept: NDArray[np.int32] | None
    """(pieces, 2): bucket and row, or None where all are kept."""


def load(path: Path) -> Model:
    """The model in the file at `path`.

    Unavailable when it cannot be read; IntegrityError says what is wrong with a file that is none.
    """
    file = MappedFile(path)
    arguments = _arguments(file)
    dictionary = _dictionary(file, arguments.buckets)
    labels = _labels(file, dictionary)
    rows = _rows(file, arguments, dictionary)
    weights = _weights(file, len(labels), arguments.dimensions)
    file.end()
    tree = _tree(dictionary.counts[dictionary.words :].tolist()) if arguments.has_tree else np.empty((0, 2), np.int32)
    return Model(Tables(rows, _words(file, dictionary), _pieces(dictionary, arguments), Output(weights, tree)), labels)


def _arguments(file: MappedFile) -> _Arguments:
    magic, version = file.ints("ii")
    if magic != _MAGIC:
        file.refuse("it does not begin as fastText's files do")
    if version != _VERSION:
        file.refuse(f"it is of version {version} and not {_VERSION}")
    dimensions, _, _, _, _, words, loss, _, buckets, shortest, longest, _ = file.ints("12i")
    file.ints("q")  # a threshold of training
    if loss not in _LOSSES:
        file.refuse(f"its loss {loss} is neither hierarchical softmax (1) nor softmax (3)")
    if words != 1:
        file.refuse(f"it has n-grams of {words} words")
    if not 1 <= dimensions <= _DIMENSIONS_MAX or not 1 <= buckets <= _BUCKETS_MAX:
        file.refuse(f"it has {dimensions} dimensions and {buckets} buckets")
    if not 0 <= shortest <= longest <= _PIECE_MAX or longest == 0:
        file.refuse(f"its pieces have {shortest} to {longest} characters")
    return _Arguments(dimensions, _LOSSES[loss], buckets, max(1, shortest), longest)


def _dictionary(file: MappedFile, buckets: int) -> _Dictionary:
    size, words, labels, _, pruned = file.ints("iiiqq")
    if not (words >= 0 and labels >= 1 and words + labels == size <= _ENTRIES_MAX):
        file.refuse(f"{words} words and {labels} labels are not its {size} entries")
    starts, stops, counts = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int64)
    for number in range(size):
        starts[number], stops[number], counts[number], kind = file.entry()
        if kind != (number >= words):
            file.refuse(f"entry {number} is of kind {kind}, but words (0) come first and labels (1) last")
        if not 0 <= counts[number] < _COUNT_MAX:
            file.refuse(f"entry {number} occurred {counts[number]} times")
    if pruned < -1 or pruned > buckets:
        file.refuse(f"{pruned} of {buckets} buckets are kept")
    kept = None if pruned < 0 else file.pairs(pruned)
    if kept is not None and pruned:
        found, rows = np.sort(kept, axis=0).T
        if found[0] < 0 or found[-1] >= buckets or (np.diff(found) == 0).any():
            file.refuse(f"a bucket that is kept is none of {buckets}, or is named twice")
        if rows[0] < 0 or rows[-1] >= pruned:
            file.refuse(f"the row of a bucket is none of {pruned}")
    return _Dictionary(starts, stops, counts, words, kept)


def _labels(file: MappedFile, dictionary: _Dictionary) -> tuple[str, ...]:
    found = []
    for start, stop in zip(dictionary.starts[dictionary.words :], dictionary.stops[dictionary.words :], strict=True):
        name = file.data[start:stop]
        if not name.startswith(_PREFIX) or not name.isascii():
            file.refuse(f"{name[:40]!r} is no label")
        found.append(name.removeprefix(_PREFIX).decode())
    return tuple(found)


def _rows(file: MappedFile, arguments: _Arguments, dictionary: _Dictionary) -> Rows:
    if not file.flag("whether the input is quantised"):
        file.refuse("its input is not quantised")
    has_norms = file.flag("whether norms are quantised")
    rows, dimensions, size = file.ints("qqi")
    pieces = arguments.buckets if dictionary.kept is None else len(dictionary.kept)
    if (rows, dimensions) != (dictionary.words + pieces, arguments.dimensions):
        words = f"{dictionary.words} words and {pieces} pieces of {arguments.dimensions}"
        file.refuse(f"its input has {rows} rows of {dimensions} numbers for {words}")
    place = file.place
    codes = file.view(size)
    parts, width = _quantiser(file, dimensions)
    if size != rows * parts:
        file.refuse(f"the input at byte {place} has {size} codes for {rows} rows of {parts}")
    centroids = file.floats(dimensions * _CENTROIDS, "a centroid")
    if not has_norms:
        return Rows(codes.reshape(rows, parts), np.zeros(rows, np.uint8), np.ones(1, np.float32), centroids, width)
    norm_codes = file.view(rows)
    _quantiser(file, 1)
    return Rows(codes.reshape(rows, parts), norm_codes, file.floats(_CENTROIDS, "a norm"), centroids, width)


def _quantiser(file: MappedFile, wanted: int) -> tuple[int, int]:
    """Parts and width of a product quantiser of vectors of `wanted` numbers."""
    dimensions, parts, width, last = file.ints("iiii")
    if dimensions != wanted or width < 1 or parts != -(-dimensions // width) or last != (dimensions % width or width):
        file.refuse(f"{parts} parts of {width} and a last one of {last} are not {wanted} numbers")
    return parts, width


def _weights(file: MappedFile, labels: int, dimensions: int) -> F32:
    if file.flag("whether the output is quantised"):
        file.refuse("its output is quantised")
    shape = file.ints("qq")
    if shape != (labels, dimensions):
        file.refuse(f"its output has {shape[0]} rows of {shape[1]} numbers for {labels} labels of {dimensions}")
    return file.floats(labels * dimensions, "the output").reshape(labels, dimensions)


def _words(file: MappedFile, dictionary: _Dictionary) -> Words:
    starts, stops = dictionary.starts[: dictionary.words], dictionary.stops[: dictionary.words]
    count = 1 << max(1, 2 * len(starts) - 1).bit_length()
    slots = np.full(count, -1, np.int32)
    end = -1
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        word = file.data[start:stop]
        if word == _END:
            end = number
        place = fnv(word) & (count - 1)
        while slots[place] >= 0:
            place = (place + 1) & (count - 1)
        slots[place] = number
    return Words(np.frombuffer(file.data, np.uint8), starts, stops, slots, end)


def fnv(word: bytes) -> int:
    """fastText's hash: FNV-1a of 32 bits, where a byte above 127 counts as the negative number it is when signed."""
    value = _FNV_START
    for byte in word:
        value = (value ^ (byte if byte < 0x80 else byte | 0xFFFFFF00)) * _FNV_FACTOR & 0xFFFFFFFF
    return value


def _pieces(dictionary: _Dictionary, arguments: _Arguments) -> Pieces:
    kept = np.empty((0, 2), np.int32) if dictionary.kept is None else dictionary.kept
    blocks, bits = np.divmod(kept[:, 0], 64)
    bitmap = np.zeros(-(-arguments.buckets // 64), np.uint64)
    np.bitwise_or.at(bitmap, blocks, np.uint64(1) << bits.astype(np.uint64))
    counts = np.bitwise_count(bitmap)
    return Pieces(
        first=dictionary.words,
        buckets=arguments.buckets,
        all_kept=dictionary.kept is None,
        kept=bitmap,
        ranks=(np.cumsum(counts, dtype=np.uint32) - counts).astype(np.uint32),
        rows=kept[np.argsort(kept[:, 0]), 1].astype(np.uint32),
        shortest=arguments.shortest,
        longest=arguments.longest,
    )


def _tree(counts: list[int]) -> I32:
    """fastText's Huffman tree over labels, the most frequent first: the children of every node, the root last."""
    labels = len(counts)
    totals = counts + [_COUNT_MAX] * (labels - 1)
    children = np.full((2 * labels - 1, 2), -1, np.int32)
    leaf, inner = labels - 1, labels
    for node in range(labels, 2 * labels - 1):
        for side in (0, 1):
            if leaf >= 0 and totals[leaf] < totals[inner]:
                children[node, side], leaf = leaf, leaf - 1
            else:
                children[node, side], inner = inner, inner + 1
        totals[node] = totals[children[node, 0]] + totals[children[node, 1]]
    return children
