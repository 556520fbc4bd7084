"""Retention: which versions of a dataset no rule keeps any more.

`expire` is pure. Blobs are not touched here: what no version refers to is collected later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.core.resources import Resource
from atoll.core.store import Scope
from atoll.data.holding import holders_of
from atoll.data.versions import by_branch

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Due:
    """Versions that go now, and the Unix time at which the next one is due (0: none by time)."""

    versions: list[Resource] = field(default_factory=list)
    next_at: float = 0.0


def expire(versions: Sequence[Resource], rules: Mapping[str, Any], kept: Collection[str], now: float) -> Due:
    """What goes of `versions` (oldest first) by `rules`; names in `kept` and heads of branches always stay.

    A version goes when neither rule keeps it: it is not among the newest `keep_last` of its branch, and it is older
    than `keep_days`. A rule that is not set keeps nothing, unless neither is.
    """
    last, days = rules.get("keep_last"), rules.get("keep_days")
    if last is None and days is None:
        return Due()
    gone, moments = [], []
    for branch in by_branch(versions).values():
        for version in branch[: -(last or 1)]:
            ends_at = version.created_at + days * DAY_S if days is not None else 0.0
            if version.name in kept:
                continue
            if ends_at <= now:
                gone.append(version)
            else:
                moments.append(ends_at)
    return Due(gone, min(moments, default=0.0))


def kept_by(versions: Sequence[Resource], dataset: Resource, scope: Scope) -> set[str]:
    """Names of versions that stay whatever the rules say: tagged, learned from, or read by a run that goes on."""
    return set(holders_of(versions, dataset, scope))
