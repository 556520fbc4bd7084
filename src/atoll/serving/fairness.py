"""Who is next when requests wait: a pure queue with priority classes and fair shares between projects.

Inside a class, projects share by weight what is counted in tokens: deficit round robin (Shreedhar, Varghese: Efficient
Fair Queuing using Deficit Round Robin, SIGCOMM 1995), so over any stretch in which two projects both wait, what they
got per weight differs by at most one quantum and one request of each. `high` goes before `normal`, but never more than
HIGH_RUN_MAX times in a row past a waiting normal one, so neither starves. `batch` has only what nobody else wants.
Knows no clocks, slots or requests.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

HIGH, NORMAL, BATCH = 0, 1, 2
PRIORITIES = {"high": HIGH, "normal": NORMAL, "batch": BATCH}
QUANTUM_TOKENS = 1024
HIGH_RUN_MAX = 8

T = TypeVar("T", bound=Hashable)


class _Share(Generic[T]):
    """What one project has waiting in one class."""

    __slots__ = ("deficit", "waiting", "weight")

    def __init__(self) -> None:
        self.waiting: OrderedDict[T, int] = OrderedDict()
        self.deficit = 0.0
        self.weight = 1.0


class _Class(Generic[T]):
    """One priority class: a ring of projects; the front one is being served."""

    __slots__ = ("_is_front_fed", "_ring", "size")

    def __init__(self) -> None:
        self._ring: OrderedDict[str, _Share[T]] = OrderedDict()
        self._is_front_fed = False
        self.size = 0

    def push(self, item: T, project: str, weight: float, tokens: int) -> None:
        share = self._ring.get(project)
        if share is None:
            share = self._ring[project] = _Share()
        share.weight = max(weight, 1e-3)
        share.waiting[item] = max(tokens, 1)
        self.size += 1

    def remove(self, item: T, project: str) -> None:
        del self._ring[project].waiting[item]
        self.size -= 1
        if not self._ring[project].waiting:
            self._drop(project)

    def pop(self) -> T:
        """The next one. There must be one."""
        assert self.size
        passed = 0
        while True:
            project, share = next(iter(self._ring.items()))
            if not self._is_front_fed:
                share.deficit += QUANTUM_TOKENS * share.weight
                self._is_front_fed = True
            item, tokens = next(iter(share.waiting.items()))
            if tokens <= share.deficit:
                share.deficit -= tokens
                self.remove(item, project)
                return item
            self._ring.move_to_end(project)
            self._is_front_fed = False
            passed += 1
            if passed % len(self._ring) == 0:
                self._skip_rounds()

    def _skip_rounds(self) -> None:
        """Everybody got nothing in a whole round: give at once what the rounds up to the first success would."""
        rounds = min(
            math.ceil((next(iter(s.waiting.values())) - s.deficit) / (QUANTUM_TOKENS * s.weight))
            for s in self._ring.values()
        )
        for share in self._ring.values():
            share.deficit += max(rounds - 1, 0) * QUANTUM_TOKENS * share.weight

    def _drop(self, project: str) -> None:
        """A project with nothing waiting keeps no credit."""
        if next(iter(self._ring)) == project:
            self._is_front_fed = False
        del self._ring[project]

    def order(self) -> list[T]:
        """About the order they will be served in: everybody's first, everybody's second, ..."""
        places = [(i, item) for share in self._ring.values() for i, item in enumerate(share.waiting)]
        return [item for _, item in sorted(places, key=lambda place: place[0])]


class FairQueue(Generic[T]):
    """Waiting requests; `push`, `pop` the next, `remove` one that left."""

    __slots__ = ("_classes", "_high_run", "_places")

    def __init__(self) -> None:
        self._classes: tuple[_Class[T], ...] = (_Class(), _Class(), _Class())
        self._places: dict[T, tuple[int, str]] = {}
        self._high_run = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: object) -> bool:
        return item in self._places

    def push(self, item: T, project: str, tokens: int, *, priority: int = NORMAL, weight: float = 1.0) -> None:
        """Let `item` wait; `tokens` is what it will cost its project's share."""
        assert item not in self._places
        self._places[item] = (priority, project)
        self._classes[priority].push(item, project, weight, tokens)

    def pop(self) -> T | None:
        """The next one, or None when nobody waits."""
        high, normal, batch = self._classes
        if high.size and not (normal.size and self._high_run >= HIGH_RUN_MAX):
            self._high_run += 1
            item = high.pop()
        elif normal.size:
            self._high_run = 0
            item = normal.pop()
        elif batch.size:
            item = batch.pop()
        else:
            return None
        del self._places[item]
        return item

    def remove(self, item: T) -> None:
        """One that leaves without having been served."""
        priority, project = self._places.pop(item)
        self._classes[priority].remove(item, project)

    def order(self) -> list[T]:
        """All that wait, about in the order they will be served."""
        return [item for waiting in self._classes for item in waiting.order()]

    @property
    def best_class(self) -> int:
        """The best class anybody waits in; BATCH + 1 when nobody waits."""
        return next((number for number, waiting in enumerate(self._classes) if waiting.size), BATCH + 1)
