"""Who gets which replica, and who waits for one: the places of all models of this gateway.

A request that finds a free slot gets it at once and never sees a queue. Otherwise it waits at the desk of its model,
fairly among projects and by priority (see `fairness`), bounded in number and time by the model's `hold`; so does one
that finds no replica at all, which is how a sleeping deployment is woken. Slots are counted per gateway: several
gateways may together send a replica more than it serves at a time, and the rest waits in the engine. A desk knows its
model as it is now: a request that asks a second time finds the replicas that came since the first.
Knows nothing of what requests say or of connections.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from atoll.core.errors import AtollError, NotFound, RateLimited, Unavailable
from atoll.serving.fairness import BATCH, FairQueue
from atoll.serving.gateway.loads import Loads
from atoll.serving.gateway.snapshot import Model, Replica, Snapshot, Target
from atoll.serving.router import (
    Beginning,
    PrefixTable,
    beginnings,
    choose,
    least_outstanding,
    reopens_in_s,
    spread,
    stick,
    usable,
)

TELL_EVERY_S = 1.0


class Place(NamedTuple):
    """Where a request is sent, and in words why there."""

    target: Target
    replica: Replica
    why: str


class Claim(NamedTuple):
    """By what right a request waits."""

    project: str
    weight: float
    tokens: int
    priority: int


class Wish(Protocol):
    """What the choice of a place looks at."""

    @property
    def affinity_key(self) -> bytes: ...

    @property
    def session(self) -> str | None: ...


class Waiter(Protocol):
    """Who waits. After `wait`, exactly one of `on_place` and `on_wait_failed` comes, unless `leave` is called."""

    def on_place(self, place: Place) -> None: ...

    def on_wait_failed(self, error: AtollError) -> None: ...

    def on_wait(self, told: str) -> None:
        """About every second: what it waits for, in words for people."""


class Ticket:
    """One request that waits. `is_load` unless it only waits for what others leave idle: that asks for no replicas."""

    __slots__ = ("desk", "is_load", "since_s", "target_id", "told_s", "until_s", "waiter", "wish")

    def __init__(self, desk: Desk, waiter: Waiter, wish: Wish, target_id: str, now: float, until_s: float) -> None:
        self.desk = desk
        self.waiter = waiter
        self.wish = wish
        self.target_id = target_id
        self.since_s = self.told_s = now
        self.until_s = until_s
        self.is_load = True


class Desk:
    """The places of one model: its queue, its turn and what its replicas computed last."""

    __slots__ = ("is_pumping", "model", "queue", "table", "turn")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.queue: FairQueue[Ticket] = FairQueue()
        self.table: PrefixTable[Replica] = PrefixTable()
        self.turn = 0
        self.is_pumping = False

    def has_free(self, now: float) -> bool:
        """Whether `find` would find something for a request that has tried nothing yet."""
        return any(
            r.outstanding < r.slots and r.broken_until <= now
            for target in self.model.targets
            if target.weight > 0
            for r in target.replicas
        )

    def find(self, wish: Wish, now: float, tried: Collection[Replica] = ()) -> Place | None:
        """A free slot of an untried replica, or None."""
        self.turn += 1
        model = self.model
        targets = model.targets
        if len(targets) == 1:
            target = targets[0]
            if len(target.replicas) == 1:
                replica = target.replicas[0]
                is_free = replica.outstanding < replica.slots and replica.broken_until <= now and target.weight > 0
                return Place(target, replica, "the only one") if is_free and replica not in tried else None
            found = usable(target.replicas, now, tried) if target.weight > 0 else []
        else:
            options = [usable(t.replicas, now, tried) for t in targets]
            weights = [
                t.weight if any(r.outstanding < r.slots for r in free) else 0.0
                for t, free in zip(targets, options, strict=True)
            ]
            if not any(weights):
                return None
            session = self._session(model, wish)
            index = stick(weights, session) if session else spread(weights, self.turn)
            target, found = targets[index], options[index]
        return self._within(model, target, found, wish) if found else None

    def crowd(self, now: float, tried: Collection[Replica]) -> Place | None:
        """See Dispatch."""
        options = [(t, usable(t.replicas, now, tried)) for t in self.model.targets if t.weight > 0]
        replicas = [r for _, found in options for r in found]
        if not replicas:
            return None
        best = least_outstanding(replicas, self.turn)
        target = next(t for t, found in options if best in found)
        return Place(target, best, "least outstanding of those left")

    def _within(self, model: Model, target: Target, found: list[Replica], wish: Wish) -> Place | None:
        """A replica of the target, by the model's affinity."""
        if len(target.replicas) == 1 or model.affinity == "none":
            choice = choose(found, self.turn)
            return None if choice is None else Place(target, *choice)
        prompt: list[Beginning] = []
        holders: list[Replica] = []
        share, session = 0.0, self._session(model, wish)
        if model.affinity == "prefix":
            key = wish.affinity_key
            prompt = beginnings(key, hash((target.id, target.adapter)) & 0xFFFFFFFF)
            holders, size = self.table.find(prompt, found)
            share = size / len(key) if size else 0.0
        choice = choose(found, self.turn, holders=holders, share=share, session=session)
        if choice is None:
            return None
        self.table.note(prompt, choice.replica)
        return Place(target, *choice)

    def _session(self, model: Model, wish: Wish) -> bytes:
        session = wish.session if model.affinity != "none" else None
        return session.encode() if session else b""


class Dispatch:
    """All desks. `leave` a place when a request is over; `tick` about twice a second; `adopt` each new snapshot."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._desks: dict[tuple[str, str], Desk] = {}
        self._waiting: set[Desk] = set()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(desk.queue) for desk in self._waiting)

    def desk(self, model: Model) -> Desk:
        identity = (model.owner, model.name)
        desk = self._desks.get(identity)
        if desk is None:
            desk = self._desks[identity] = Desk(model)
        return desk

    def find(self, model: Model, wish: Wish, tried: Collection[Replica] = ()) -> Place | None:
        """A free slot now, unless others wait for it already."""
        desk = self._desks.get((model.owner, model.name)) or self.desk(model)
        return None if desk.queue else desk.find(wish, time.monotonic(), tried)

    def find_among(
        self, models: Iterable[Model], wish: Wish, tried: Collection[Replica] = ()
    ) -> tuple[Model, Place] | None:
        """The first of `models` that has a place now, and the place."""
        for model in models:
            place = self.find(model, wish, tried)
            if place is not None:
                return model, place
        return None

    def is_alive(self, model: Model, tried: Collection[Replica] = ()) -> bool:
        """Whether there is an untried replica that accepts connections, busy or not."""
        now = time.monotonic()
        return any(r.broken_until <= now and r not in tried for r in _replicas(self.desk(model).model))

    def crowd(self, model: Model, tried: Collection[Replica]) -> Place | None:
        """An untried replica even if its slots are taken: for requests that have lost theirs."""
        return self.desk(model).crowd(time.monotonic(), tried)

    def wait(self, model: Model, waiter: Waiter, wish: Wish, claim: Claim, until_s: float) -> Ticket:
        """Wait for a place until the monotonic time `until_s`. Raises why nobody can wait."""
        desk, now = self.desk(model), time.monotonic()
        model = desk.model
        hold = model.hold
        if hold is None or not model.targets:
            raise nobody(model, now)
        if len(desk.queue) >= hold.queue_max:
            raise RateLimited(
                f"{len(desk.queue)} requests wait for the model {model.name!r}, as many as may.",
                hint="try again later, or raise hold.queue_max of its deployment",
                code="queue_full",
                retry_after_s=1.0,
            )
        ticket = Ticket(desk, waiter, wish, _likely(model, desk.turn).id, now, until_s)
        ticket.is_load = claim.priority != BATCH or not _replicas(model)
        desk.queue.push(ticket, claim.project, claim.tokens, priority=claim.priority, weight=claim.weight)
        self._waiting.add(desk)
        if ticket.is_load:
            self._loads.queued(ticket.target_id, 1)
        return ticket

    def leave_queue(self, ticket: Ticket) -> None:
        """One that waits no more."""
        ticket.desk.queue.remove(ticket)
        self._left(ticket)

    def leave(self, replica: Replica) -> None:
        """A request is over; whoever waits longest by right gets the slot."""
        replica.outstanding -= 1
        if self._waiting:
            self._pump_all()

    def adopt(self, snapshot: Snapshot) -> None:
        """Let all desks know of replicas that came or went."""
        models = {model.identity: model for entries in snapshot.models.values() for model in entries.values()}
        for identity, desk in list(self._desks.items()):
            model = models.get(identity)
            if model is not None:
                desk.model = model
                continue
            del self._desks[identity]
            gone = NotFound(f"The model {desk.model.name!r} does not exist any more.", code="model_not_found")
            for ticket in desk.queue.order():
                self._fail(ticket, gone)
        self._pump_all()

    def tick(self) -> None:
        """Find places among circuits that closed; end what waited too long; tell the others how it stands."""
        if not self._waiting:
            return
        self._pump_all()
        now = time.monotonic()
        for desk in list(self._waiting):
            for place, ticket in enumerate(desk.queue.order(), 1):
                if ticket.until_s <= now:
                    self._fail(ticket, _too_late(desk.model, now - ticket.since_s, place, now))
                elif now - ticket.told_s >= TELL_EVERY_S:
                    ticket.told_s = now
                    ticket.waiter.on_wait(_standing(desk.model, place))

    def _pump_all(self) -> None:
        for desk in sorted(self._waiting, key=lambda d: d.queue.best_class):
            self._pump(desk)

    def _pump(self, desk: Desk) -> None:
        """Give free slots to those who wait. One that gives its place back at once is seen by the loop itself."""
        if desk.is_pumping:
            return
        desk.is_pumping = True
        try:
            while desk.queue and desk.has_free(now := time.monotonic()):
                ticket = desk.queue.pop()
                assert ticket is not None
                self._left(ticket)
                place = desk.find(ticket.wish, now)
                assert place is not None, "a desk with a free slot found none"
                ticket.waiter.on_place(place)
        finally:
            desk.is_pumping = False

    def _fail(self, ticket: Ticket, error: AtollError) -> None:
        self.leave_queue(ticket)
        ticket.waiter.on_wait_failed(error)

    def _left(self, ticket: Ticket) -> None:
        if ticket.is_load:
            self._loads.queued(ticket.target_id, -1)
        if not ticket.desk.queue:
            self._waiting.discard(ticket.desk)


def _likely(model: Model, turn: int) -> Target:
    """The target a waiting request will probably go to; autoscaling counts it there."""
    weights = [target.weight for target in model.targets]
    return model.targets[spread(weights, turn) if any(weights) else 0]


def _replicas(model: Model) -> Iterator[Replica]:
    return (replica for target in model.targets for replica in target.replicas)


def nobody(model: Model, now: float) -> Unavailable:
    """Why there is no place for a request now."""
    replicas = list(_replicas(model))
    alive = usable(replicas, now)
    if alive:
        slots, busy = sum(r.slots for r in alive), sum(r.outstanding for r in alive)
        message = f"The model {model.name!r} is busy: {busy} requests in flight on {slots} slots."
        return Unavailable(message, code="model_busy", retry_after_s=1.0)
    reason = "none accepts connections now" if replicas else model.reason or "it has none"
    wait_s = max(1.0, reopens_in_s(replicas, now))
    return Unavailable(
        f"The model {model.name!r} has no ready replica: {reason}.", code="no_replica", retry_after_s=wait_s
    )


def _too_late(model: Model, waited_s: float, place: int, now: float) -> Unavailable:
    why = nobody(model, now)
    return Unavailable(
        f"{why.message} The request waited {waited_s:.0f} s, place {place}.",
        code="queue_timeout",
        retry_after_s=why.retry_after_s,
    )


def _standing(model: Model, place: int) -> str:
    """What a request waits for, in words."""
    if any(_replicas(model)):
        return f"queued, place {place}"
    starting = next((told for t in model.targets if t.progress and (told := _progress(t.progress))), "")
    return f"starting{starting}, place {place}"


def _progress(progress: dict[str, Any]) -> str:
    """How far a replica's start is: ", loading the weights 45 %"."""
    told = str(progress.get("message") or progress.get("stage") or "")
    done, total = progress.get("done"), progress.get("total")
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        told = f"{told} {100 * min(done / total, 1.0):.0f} %".strip()
    clean = "".join(c if c.isprintable() else " " for c in told[:120])
    return f", {clean}" if clean else ""
