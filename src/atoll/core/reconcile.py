"""The reconcile loop: changes name keys, controllers make each key's world right, errors back off.

Level-based: a request is only a key; a controller reads the present, decides, writes guarded, and may be
killed anywhere. Each kind's status is written by one controller, which `Writer` enforces. The loop itself
is a state machine driven by `step`, the same live (threads around it) and in simulation (a virtual clock).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from atoll.core.clock import Clock
from atoll.core.errors import AtollError, Conflict, Fenced
from atoll.core.feed import Feed
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Fence, Scope, SetStatus, Store, Write
from atoll.core.telemetry import RECONCILE_ERRORS, RECONCILE_SECONDS

log = logging.getLogger(__name__)

RESYNC_S = 60.0
CONFLICTS_FREE = 5
"""Conflicts of one key in a row that are retried at once; after that they back off like failures."""

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 60.0


class Overtaken(Exception):
    """What a reconcile had read was changed by another before it wrote: it starts over.

    Not an AtollError, so that no controller takes it for a failure of the work it looks after.
    """


class Controller(ABC):
    """Makes one kind of thing true.

    `owns` is the kind whose status it writes; `watches` are further kinds whose changes concern it ("*": all).
    """

    name: str
    owns: str
    watches: tuple[str, ...] = ()

    def all_keys(self, world: Writer) -> Iterable[Key]:
        """Everything to look at when starting and at each resync."""
        return [r.key for r in world.scope.find_all(self.owns)]

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        """Which of my keys a change of a watched kind concerns; by default its owner, when that is mine."""
        resource = world.read(change.key)
        owner = world.scope.by_uid(resource.owner) if resource is not None and resource.owner else None
        return [owner.key] if owner is not None and owner.kind == self.owns else []

    @abstractmethod
    def reconcile(self, key: Key, world: Writer) -> float | None:
        """Make `key` right; return seconds until another look, or None to wait for a change."""


class Writer:
    """A controller's view of the store: everything readable, only its own kind's status writable."""

    def __init__(self, store: Store, clock: Clock, owns: str, actor: str, fence: Fence | None) -> None:
        self.scope: Scope = store.everything(actor)
        self.clock = clock
        self._owns = owns
        self._fence = fence

    def read(self, key: Key) -> Resource | None:
        return self.scope.read(key)

    def write(self, *batch: Write) -> int:
        """Commit the batch under this controller's fence; Overtaken when something of it changed meanwhile."""
        for op in batch:
            if isinstance(op, SetStatus):
                assert op.resource.kind == self._owns, f"{self.scope.actor} wrote the status of a {op.resource.kind}"
        try:
            return self.scope.write(batch, self._fence)
        except Fenced:
            raise
        except Conflict as error:
            raise Overtaken(str(error)) from error


@dataclass
class _Queue:
    """Keys of one controller: due now, due later (`timers` holds the number of each key's one timer), failures."""

    controller: Controller
    due: dict[Key, None] = field(default_factory=dict)
    later: list[tuple[float, int, Key]] = field(default_factory=list)
    timers: dict[Key, int] = field(default_factory=dict)
    failures: dict[Key, int] = field(default_factory=dict)
    running: set[Key] = field(default_factory=set)


class Loop:
    """All controllers of one process over one store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        controllers: Sequence[Controller],
        rng: random.Random,
        fence: Fence | None = None,
    ) -> None:
        owners = [c.owns for c in controllers]
        assert len(set(owners)) == len(owners), f"two controllers own one kind: {sorted(owners)}"
        self._store = store
        self._clock = clock
        self._rng = rng
        self._queues = tuple(_Queue(c) for c in controllers)
        self._turn = 0
        self._writers = {c.name: Writer(store, clock, c.owns, c.name, fence) for c in controllers}
        self._seen = 0
        self._next_resync = 0.0
        self._count = itertools.count()
        self._lock = threading.Lock()

    def resync(self) -> None:
        """Queue every key of every owned kind."""
        self._seen = max(self._seen, self._store.head())
        for queue in self._queues:
            self._make_due(queue, queue.controller.all_keys(self._writers[queue.controller.name]))
        self._next_resync = self._clock.monotonic() + RESYNC_S

    def take_changes(self) -> None:
        """Queue the keys that changes since the last call concern; resync when it is time. One thread calls this."""
        if self._clock.monotonic() >= self._next_resync:
            self.resync()
        while found := self._store.everything().changes(self._seen):
            news = {(change.key, change.action): change for change in found}.values()
            for queue, change in itertools.product(self._queues, news):
                self._make_due(queue, self._concerned(queue.controller, change))
            self._seen = found[-1].seq

    def next_due_s(self) -> float:
        """Seconds until something is due by time alone; 0 when something is due now."""
        now = self._clock.monotonic()
        with self._lock:
            if any(set(q.due) - q.running for q in self._queues):
                return 0.0
            times = [q.later[0][0] for q in self._queues if q.later]
        return max(0.0, min([*times, self._next_resync]) - now)

    def step(self) -> bool:
        """Reconcile one due key; False when none is due."""
        taken = self._take()
        if taken is None:
            return False
        queue, key = taken
        controller = queue.controller
        again_s = None
        started = time.perf_counter()
        try:
            again_s = controller.reconcile(key, self._writers[controller.name])
            queue.failures.pop(key, None)
        except Fenced:
            raise
        except (Overtaken, Conflict):
            again_s = self._conflicted(queue, key)
        except Exception as error:  # noqa: BLE001 - the reconcile boundary: log, back off, go on
            again_s = self._failed(queue, key, error)
        finally:
            RECONCILE_SECONDS.labels(controller.name).observe(time.perf_counter() - started)
            self._release(queue, key, again_s)
        return True

    def _concerned(self, controller: Controller, change: Change) -> list[Key]:
        keys = [change.key] if change.kind == controller.owns else []
        if change.kind not in controller.watches and "*" not in controller.watches:
            return keys
        try:
            return [*keys, *controller.keys_for(change, self._writers[controller.name])]
        except AtollError:
            raise  # the store does not answer: the change is read again
        except Exception:
            RECONCILE_ERRORS.labels(controller.name).inc()
            log.exception("%s cannot tell whom change %d of %s concerns", controller.name, change.seq, change.key)
            return keys

    def _make_due(self, queue: _Queue, keys: Iterable[Key]) -> None:
        found = dict.fromkeys(keys)
        with self._lock:
            queue.due.update(found)

    def _take(self) -> tuple[_Queue, Key] | None:
        now = self._clock.monotonic()
        with self._lock:
            self._turn = (self._turn + 1) % len(self._queues)
            for queue in (*self._queues[self._turn :], *self._queues[: self._turn]):
                while queue.later and queue.later[0][0] <= now:
                    _, number, key = heapq.heappop(queue.later)
                    if queue.timers.get(key) == number:
                        del queue.timers[key]
                        queue.due[key] = None
                taken = next((k for k in queue.due if k not in queue.running), None)
                if taken is not None:
                    del queue.due[taken]
                    queue.running.add(taken)
                    return queue, taken
        return None

    def _release(self, queue: _Queue, key: Key, again_s: float | None) -> None:
        """Let go of `key`; its last look alone says when the next is, so that timers never pile up."""
        with self._lock:
            queue.running.discard(key)
            queue.timers.pop(key, None)
            if again_s is not None:
                number = queue.timers[key] = next(self._count)
                heapq.heappush(queue.later, (self._clock.monotonic() + again_s, number, key))

    def _conflicted(self, queue: _Queue, key: Key) -> float:
        conflicts = queue.failures[key] = queue.failures.get(key, 0) + 1
        return 0.0 if conflicts <= CONFLICTS_FREE else backoff_s(conflicts - CONFLICTS_FREE, self._rng)

    def _failed(self, queue: _Queue, key: Key, error: Exception) -> float:
        failures = queue.failures[key] = queue.failures.get(key, 0) + 1
        RECONCILE_ERRORS.labels(queue.controller.name).inc()
        log.warning(
            "reconcile of %s by %s failed: %s",
            key,
            queue.controller.name,
            error,
            exc_info=None if isinstance(error, AtollError) else error,
        )
        return backoff_s(failures, self._rng)


def backoff_s(failures: int, rng: random.Random, min_s: float = BACKOFF_MIN_S, max_s: float = BACKOFF_MAX_S) -> float:
    """Exponential back-off with jitter in [half, whole] of the nominal delay."""
    nominal = min(max_s, min_s * 2.0 ** min(failures - 1, 30))
    return nominal * (0.5 + rng.random() / 2)


class LoopRunner:
    """Runs a loop live: one thread reads the feed, `workers` threads reconcile."""

    def __init__(self, loop: Loop, feed: Feed, workers: int = 2) -> None:
        self._loop = loop
        self._feed = feed
        self._stopping = threading.Event()
        self._work = threading.Condition()
        self.fenced = threading.Event()
        self._threads = [threading.Thread(target=self._read, name="reconcile-feed", daemon=True)]
        self._threads += [
            threading.Thread(target=self._reconcile, name=f"reconcile-{n}", daemon=True) for n in range(workers)
        ]

    def start(self) -> None:
        """Begin with everything that exists."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the reconciles under way and stop."""
        self._stopping.set()
        with self._work:
            self._work.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def _read(self) -> None:
        seen = -1
        while not self._stopping.is_set():
            try:
                self._loop.take_changes()
                with self._work:
                    self._work.notify_all()
                seen = self._feed.wait(max(seen, self._loop._seen), min(1.0, max(0.01, self._loop.next_due_s())))
            except Exception as error:  # without this thread nothing would ever be reconciled again
                log.warning("reading the change feed failed: %s", error, exc_info=not isinstance(error, AtollError))
                self._stopping.wait(1.0)

    def _reconcile(self) -> None:
        while not self._stopping.is_set():
            try:
                worked = self._loop.step()
            except Fenced as error:
                log.error("controllers stop: %s", error)
                self.fenced.set()
                return
            if not worked:
                with self._work:
                    self._work.wait(min(1.0, max(0.005, self._loop.next_due_s())))
