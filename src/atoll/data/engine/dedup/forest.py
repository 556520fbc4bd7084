"""Disjoint sets as an array of parents (Tarjan 1975): the root of a set is its least member.

Which pairs are joined decides the sets, never the order they are joined in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.dedup.exact import Indices, Mask
from atoll.data.engine.kernel import inner, kernel

Pairs = NDArray[np.uint64]
"""One word a pair: the smaller member in the upper half, the greater in the lower; so a sort orders them."""

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def members_of(pairs: Pairs) -> Indices:
    """The two members of every pair; int64 (pairs, 2)."""
    result = np.empty((len(pairs), 2), np.int64)
    np.right_shift(pairs, _HALF, out=result[:, 0], casting="unsafe")
    np.bitwise_and(pairs, _LOW, out=result[:, 1], casting="unsafe")
    return result


def pairs_from(members: Indices) -> Pairs:
    """The pairs of these members, int64 (pairs, 2), the smaller first."""
    result: Pairs = members[:, 0].astype(np.uint64) << _HALF | members[:, 1].astype(np.uint64)
    return result


def distinct(pairs: Pairs) -> Pairs:
    """The different ones, ascending."""
    ordered = np.sort(pairs)  # a hundred times faster than numpy's own way, which hashes
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    result: Pairs = ordered[is_first]
    return result


@inner
def root(parents: Indices, member: int) -> int:
    """The least member of the set `member` is in; shortens the way there."""
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = parents[member]
    return member


@kernel
def join(parents: Indices, pairs: Indices) -> None:
    """Make one set of each pair's two."""
    for place in range(len(pairs)):
        one, other = root(parents, pairs[place, 0]), root(parents, pairs[place, 1])
        if one < other:
            parents[other] = one
        else:
            parents[one] = other


@kernel
def apart(parents: Indices, pairs: Indices) -> Mask:
    """Which pairs join two sets that are not one yet, each pair seen alone."""
    result = np.empty(len(pairs), np.bool_)
    for place in range(len(pairs)):
        result[place] = root(parents, pairs[place, 0]) != root(parents, pairs[place, 1])
    return result


@kernel
def spanning(parents: Indices, pairs: Indices, chosen: Mask) -> None:
    """Choose, of the pairs not chosen yet, those that would connect as much as all do (Kruskal 1956).

    parents is used up: it ends as if every chosen pair had been joined.
    """
    for place in range(len(pairs)):
        if chosen[place]:
            continue
        one, other = root(parents, pairs[place, 0]), root(parents, pairs[place, 1])
        if one != other:
            chosen[place] = True
            parents[max(one, other)] = min(one, other)


@kernel
def flatten(parents: Indices) -> None:
    """Let every member point at its root."""
    for member in range(len(parents)):
        parents[member] = parents[parents[member]]  # parents are smaller, so theirs are flat already
