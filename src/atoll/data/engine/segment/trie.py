"""A trie in one array: all beginnings of the words of a dictionary, one cell of 64 bits each.

A double array (Aoe 1989): the child of a node by the code c is the cell base + c if that cell names the node as its
parent. A cell holds base, parent and weight, 21 bits each, from the highest; the root is cell 0. A weight is a number
above 0 where a word ends, else 0.
"""

from __future__ import annotations

import numpy as np

from atoll.data.engine.arrays import I32, I64, U64, Numbers
from atoll.data.engine.kernel import bare, inlined

FIELD_BITS = 21
LIMIT = 1 << FIELD_BITS
"""Cells, codes and weights are fewer."""

_FIELD = np.uint64(LIMIT - 1)
_BASE_SHIFT, _PARENT_SHIFT = np.uint64(2 * FIELD_BITS), np.uint64(FIELD_BITS)
_NO_PARENT = np.uint64(LIMIT - 1)
_EMPTY = _NO_PARENT << _PARENT_SHIFT
_TAKEN = -2


@inlined
def base_of(cell: np.uint64) -> int:
    """Where the children of a cell's node are counted from."""
    return int(np.int64(cell >> _BASE_SHIFT))


@inlined
def parent_of(cell: np.uint64) -> int:
    """The cell of the parent of a cell's node."""
    return int(np.int64((cell >> _PARENT_SHIFT) & _FIELD))


@inlined
def weight_of(cell: np.uint64) -> int:
    """The number of the weight of the word that ends at a cell's node; 0: none does."""
    return int(np.int64(cell & _FIELD))


@inlined
def child_of(cells: U64, node: int, code: np.uint16) -> int:
    """The cell of a node's child by `code`; 0: it has none."""
    child = base_of(cells[node]) + int(np.int64(code))
    return child if parent_of(cells[child]) == node else 0


def build(codes: Numbers, lengths: I64, weights: I64) -> U64:
    """The cells of the trie of some words. codes: those of all words one after the other, each above 0; of words that
    are equal the last one's weight counts.
    """
    parents, letters, ends = _nodes(codes, lengths)
    bases, alphabet = _bases(parents, letters), int(letters.max()) + 1
    places = bases[parents] + letters
    size = int(places.max()) + alphabet
    assert size < LIMIT, "a cell's number has 21 bits"
    values = np.zeros(len(parents), np.int64)
    values[ends] = weights
    above = np.append(_NO_PARENT.astype(np.int64), places[parents[1:]])
    cells = np.full(size, _EMPTY, np.uint64)
    cells[places] = (bases << 2 * FIELD_BITS | above << FIELD_BITS | values).astype(np.uint64)
    return cells


def _nodes(codes: Numbers, lengths: I64) -> tuple[I64, I64, I64]:
    """The nodes of a trie level by level, the root first, children of one node side by side by their codes: the parent
    and the code of each, and at which node every word ends.
    """
    starts = np.cumsum(lengths) - lengths
    ends = np.zeros(len(lengths), np.int64)
    parents, letters, total = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], 1
    for depth in range(int(lengths.max(initial=0))):
        words = np.flatnonzero(lengths > depth)
        keys, numbers = np.unique(ends[words] << FIELD_BITS | codes[starts[words] + depth], return_inverse=True)
        parents.append(keys >> FIELD_BITS)
        letters.append(keys & LIMIT - 1)
        ends[words] = total + numbers
        total += len(keys)
    return np.concatenate(parents), np.concatenate(letters), ends


def _bases(parents: I64, letters: I64) -> I64:
    """The base of every node, 0 for those without children."""
    counts = np.bincount(parents[1:], minlength=len(parents))
    starts = np.cumsum(counts) - counts + 1
    by_children = np.argsort(-counts[1:], kind="stable") + 1
    order = np.append(0, by_children[: np.count_nonzero(counts[1:])])
    bases = np.zeros(len(parents), np.int64)
    alphabet = int(letters.max()) + 1
    size = 2 * (len(parents) + alphabet)
    while not find_bases(counts, starts, letters, order, _free(size), size - alphabet - 1, bases):
        size *= 2
    return bases


def _free(size: int) -> I32:
    """The list of free cells, all of them: the next one and the one before."""
    cells = np.arange(size, dtype=np.int32)
    return np.stack([cells + 1, cells - 1])


@bare
def find_bases(counts: I64, starts: I64, letters: I64, order: I64, free: I32, last: int, bases: I64) -> bool:
    """Find the base of the nodes in `order`, whether there is room; those of most children first, so few gaps are left.

    Node i has counts[i] children, from starts[i] on. free: the list of free cells, whose head is cell 0. last: where no
    node's first child may stand any more.
    """
    free[1, 0] = _TAKEN
    first, count = free[0, 0], 0
    for node in order:
        if counts[node] != count:
            first, count = free[0, 0], counts[node]
        children = letters[starts[node] : starts[node] + count]
        while first < last and (first < children[0] or not _fits(children, free, first - children[0])):
            first = free[0, first]
        if first >= last:
            return False
        base = first - children[0]
        bases[node] = base
        for child in children:
            first = free[0, first] if base + child == first else first
            _take(base + child, free)
    return True


@inlined
def _fits(children: I64, free: I32, base: int) -> bool:
    for child in children:  # noqa: SIM110
        if free[1, base + child] == _TAKEN:
            return False
    return True


@inlined
def _take(cell: int, free: I32) -> None:
    ahead, back = free[0, cell], free[1, cell]
    free[0, back], free[1, ahead] = ahead, back
    free[1, cell] = _TAKEN
