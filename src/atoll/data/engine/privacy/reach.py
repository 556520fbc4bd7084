"""Reach: how far around a candidate its verification sees, and so which candidates a change of the text touches.

What a candidate comes to depends on the bytes within its reach, and where findings overlap on those they overlap with.
So what was found stays found wherever no reach, nor one that overlaps it, has changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atoll.data.engine.privacy import anchors as a

REACH = {
    **{a.NUMBER: (64, 24), a.AT: (160, 128), a.ASSIGN: (64, 280), a.LABEL: (40, 72), a.BLOCK: (0, 20_000)},
    **{a.TOKEN: (0, 2_000), a.PLATE: (0, 24), a.ZONE: (0, 64), a.STREET: (8, 160), a.ROAD: (128, 160)},
    **{a.PERSON: (24, 120), a.TITLE: (0, 80), a.PASSPORT: (96, 8), a.CODE: (8, 8), a.ADDRESS6: (8, 8)},
}
"""Bytes before and behind a candidate that its verification sees."""

_MARGIN = 256
"""Bytes beyond it that the scan may have seen, or that tell a mark of ours."""

_BEFORE, _BEHIND = (np.array([0, *(REACH[kind][side] for kind in sorted(REACH))], np.int64) for side in (0, 1))


def touched(rows: NDArray[np.int64], starts: NDArray[np.int64], changed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the candidates `rows` that may come to something else since the bytes `changed` did, in their order.

    rows: as `Candidates` has them. starts: where the texts start. changed: int64 (n, 2), from and to, n > 0, in order
    and disjoint; an empty one is a place where something went.
    """
    kinds, texts = rows[:, 0], rows[:, 1]
    lows = np.maximum(rows[:, 2] - _BEFORE[kinds] - _MARGIN, starts[texts])
    highs = np.minimum(rows[:, 3] + _BEHIND[kinds] + _MARGIN, starts[texts + 1])
    order = np.lexsort((lows, texts))
    farthest = np.maximum.accumulate(highs[order])
    begins = np.ones(len(rows), bool)
    begins[1:] = lows[order][1:] >= farthest[:-1]  # of reaches that overlap, one by one or in a chain
    first = np.minimum(np.searchsorted(changed[:, 1], lows), len(changed) - 1)
    meets = (changed[first, 1] >= lows) & (changed[first, 0] <= highs) | (kinds == a.TOKEN)
    groups = np.cumsum(begins) - 1
    is_touched = np.zeros(len(rows), bool)
    is_touched[np.unique(groups[meets[order]])] = True
    found: NDArray[np.int64] = rows[np.sort(order[is_touched[groups]])]
    return found
