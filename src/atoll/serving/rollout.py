"""How replicas of one revision take the place of another's: a pure decision, made anew after every change.

Nothing ready goes before something ready is there for it (unless there is no room for surge), a revision that does not
start leaves the one before it serving, and a rollout that is over can be turned round while the previous replicas
still run. It knows counts and readiness, not where replicas are placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STUCK_RESTARTS = 2
"""A replica that was never ready and was started again this often does not start."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A replica as a rollout sees it; `was_ready` once in its life."""

    name: str
    revision: str
    index: int
    is_ready: bool = False
    was_ready: bool = False
    is_failing: bool = False
    is_deleting: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do now. `create` are (revision, index), `delete` names; `is_done`: the present revision serves alone;
    `is_stuck`: it does not start, and the one before it serves on."""

    create: tuple[tuple[str, int], ...] = ()
    delete: tuple[str, ...] = ()
    is_done: bool = False
    is_stuck: bool = False


def next_steps(
    copies: Sequence[Copy], current: str, wanted: int, surge: int, *, previous: str = "", kept: int = 0, is_done: bool
) -> Steps:
    """Steps towards `wanted` replicas of revision `current`, at most `surge` more than wanted on the way.

    `kept` replicas of revision `previous` stay although they are not needed any more; they are not counted.
    `is_done` says that the rollout of `current` was over before: its replicas alone serve, whatever befalls them.
    """
    alive = [copy for copy in copies if not copy.is_deleting]
    new = [copy for copy in alive if copy.revision == current]
    old = [copy for copy in alive if copy.revision != current]
    is_done = is_done or _ready(new) >= wanted
    is_stuck = not is_done and any(c.is_failing for c in new) and not _ready(new) and _ready(old) > 0
    reserve = _reserve(old, previous, min(kept, wanted))
    room = wanted + max(surge, min(kept, wanted)) - len(alive)
    if is_done:
        room = wanted - len(new)
    lead = _best(old, previous) if is_stuck else current
    mine = [copy for copy in alive if copy.revision == lead]
    count = max(0, min(wanted - len(mine), room))
    delete = _old_to_go(old, new, reserve, wanted, surge, is_done=is_done)
    delete += _too_many(new, old, wanted, is_done=is_done)
    if surge == 0 and not (is_done or kept or delete) and old and _may_replace(old, new, wanted):
        delete = [min(old, key=lambda c: (c.is_ready, -c.index))]
    used = {copy.index for copy in copies if copy.revision == lead}
    create = tuple((lead, index) for index in _free(used, count))
    return Steps(create, tuple(copy.name for copy in delete), is_done, is_stuck)


def _ready(copies: Iterable[Copy]) -> int:
    return sum(copy.is_ready for copy in copies)


def _best(old: Sequence[Copy], previous: str) -> str:
    """The old revision that holds the fort: the one before the present, if any of it is ready."""
    ready = [copy.revision for copy in old if copy.is_ready]
    return previous if previous in ready else max(set(ready), key=ready.count)


def _reserve(old: Sequence[Copy], previous: str, kept: int) -> set[str]:
    """Names of the previous revision's replicas that stay for a rollback."""
    stay = sorted((c for c in old if c.revision == previous), key=lambda c: (not c.is_ready, c.index))
    return {copy.name for copy in stay[:kept]}


def _old_to_go(
    old: list[Copy], new: list[Copy], reserve: set[str], wanted: int, surge: int, *, is_done: bool
) -> list[Copy]:
    leaving = sorted((c for c in old if c.name not in reserve), key=lambda c: (c.was_ready, c.is_ready, -c.index))
    if is_done:
        return leaving
    total, ready = len(old) + len(new), _ready(old) + _ready(new)
    going = []
    for copy in leaving:
        if copy.is_ready:
            may_go = ready > wanted
        elif copy.was_ready:  # it may well come back before its successor is there
            may_go = ready >= wanted or total > wanted + surge
        else:
            may_go = total > wanted
        if may_go:
            going.append(copy)
            total, ready = total - 1, ready - copy.is_ready
    return going


def _may_replace(old: list[Copy], new: list[Copy], wanted: int) -> bool:
    """Without surge: whether an old one may go for a new one, which waits for its room or is to be made."""
    total = len(old) + len(new)
    is_awaited = total > wanted and _ready(old) + _ready(new) >= wanted
    return is_awaited or (total == wanted and all(copy.is_ready for copy in new))


def _too_many(new: list[Copy], old: list[Copy], wanted: int, *, is_done: bool) -> list[Copy]:
    """Replicas of the present revision beyond the wanted number: those not ready first, then the youngest."""
    going = sorted(new, key=lambda c: (c.is_ready, c.was_ready, -c.index))[: max(0, len(new) - wanted)]
    if is_done:
        return going
    may_lose = max(0, _ready(new) + _ready(old) - wanted)
    ready = [copy for copy in going if copy.is_ready]
    return [copy for copy in going if not copy.is_ready] + ready[:may_lose]


def _free(used: set[int], count: int) -> list[int]:
    """The `count` smallest numbers not in `used`."""
    found: list[int] = []
    index = 0
    while len(found) < count:
        if index not in used:
            found.append(index)
        index += 1
    return found
