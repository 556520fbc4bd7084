"""The loop, stepped by hand under a virtual clock: what is due, when, how often, and by whom."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from atoll.core.clock import SystemClock, VirtualClock
from atoll.core.errors import Conflict, Fenced, Unavailable
from atoll.core.feed import Feed
from atoll.core.leases import Leases
from atoll.core.reconcile import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    CONFLICTS_FREE,
    RESYNC_S,
    Controller,
    Loop,
    LoopRunner,
    Writer,
    backoff_s,
)
from atoll.core.resources import Key
from atoll.core.store import Change, Create, Fence, MarkDeleting, SetSpec, SetStatus, Store

Answer = Callable[[Key, Writer], float | None]


@dataclass
class Recorder(Controller):
    """Answers as told and remembers what it was asked."""

    answer: Answer = lambda key, world: None
    owns: str = "Thing"
    watches: tuple[str, ...] = ()
    name: str = "recorder"
    asked: list[str] = field(default_factory=list)

    def reconcile(self, key: Key, world: Writer) -> float | None:
        self.asked.append(key.name)
        return self.answer(key, world)


def loop_of(store: Store, *controllers: Controller, fence: Fence | None = None) -> Loop:
    return Loop(store, store.clock, controllers, random.Random(1), fence)


def make(store: Store, name: str = "one", kind: str = "Thing", **fields: object) -> None:
    store.everything().write([Create(kind, "red", name, {}, **fields)])  # type: ignore[arg-type]


def run(loop: Loop) -> int:
    """Take what changed and reconcile all that is due; how many that was."""
    loop.take_changes()
    steps = 0
    while loop.step():
        steps += 1
        assert steps < 1000
    return steps


def test_everything_there_is_looked_at_first(sqlite_store: Store) -> None:
    make(sqlite_store, "one")
    make(sqlite_store, "two")
    controller = Recorder()
    loop = loop_of(sqlite_store, controller)
    run(loop)
    assert sorted(controller.asked) == ["one", "two"]
    assert run(loop) == 0


def test_a_change_of_an_owned_kind_is_looked_at_once_however_often_it_changed(sqlite_store: Store) -> None:
    controller = Recorder()
    loop = loop_of(sqlite_store, controller)
    run(loop)
    make(sqlite_store)
    for n in range(5):
        one = sqlite_store.everything().get("Thing", "one", "red")
        sqlite_store.everything().write([SetSpec(one, {"n": n})])
    make(sqlite_store, "other", kind="Unrelated")
    run(loop)
    assert controller.asked == ["one"]


def test_a_change_of_a_child_wakes_its_owner(sqlite_store: Store) -> None:
    controller = Recorder(watches=("Part",))
    loop = loop_of(sqlite_store, controller)
    make(sqlite_store)
    run(loop)
    one = sqlite_store.everything().get("Thing", "one", "red")
    make(sqlite_store, "part", kind="Part", owner=one.uid)
    make(sqlite_store, "stray", kind="Part")
    run(loop)
    assert controller.asked == ["one", "one"]


def test_a_later_look_comes_when_asked_for(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    controller = Recorder(lambda key, world: 10.0)
    loop = loop_of(sqlite_store, controller)
    run(loop)
    assert loop.next_due_s() == 10.0
    clock.advance(9.9)
    assert run(loop) == 0
    clock.advance(0.1)
    assert loop.next_due_s() == 0.0
    assert run(loop) == 1


def test_timers_of_one_key_do_not_pile_up(sqlite_store: Store, clock: VirtualClock) -> None:
    """A controller that always asks for another look, woken a hundred times in between, still looks once a time."""
    make(sqlite_store)
    controller = Recorder(lambda key, world: 10.0)
    loop = loop_of(sqlite_store, controller)
    for n in range(100):
        one = sqlite_store.everything().get("Thing", "one", "red")
        sqlite_store.everything().write([SetSpec(one, {"n": n})])
        run(loop)
        clock.advance(0.1)
    controller.asked.clear()
    for _ in range(400):
        clock.advance(0.1)
        run(loop)
    assert len(controller.asked) in (4, 5)


def test_the_last_look_alone_says_when_the_next_is(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    answers = iter([5.0, None])
    controller = Recorder(lambda key, world: next(answers))
    loop = loop_of(sqlite_store, controller)
    run(loop)
    one = sqlite_store.everything().get("Thing", "one", "red")
    sqlite_store.everything().write([SetSpec(one, {"n": 1})])
    run(loop)
    clock.advance(6)
    assert run(loop) == 0


def test_resync_looks_at_everything_again(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    controller = Recorder()
    loop = loop_of(sqlite_store, controller)
    run(loop)
    clock.advance(RESYNC_S - 1)
    assert run(loop) == 0
    clock.advance(1)
    assert run(loop) == 1


def test_a_failure_backs_off_and_a_success_forgets_it(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    is_broken = True

    def answer(key: Key, world: Writer) -> None:
        if is_broken:
            raise ValueError("broken")

    controller = Recorder(answer)
    loop = loop_of(sqlite_store, controller)
    run(loop)
    waits = []
    for _ in range(6):
        waits.append(loop.next_due_s())
        clock.advance(waits[-1])
        run(loop)
    for number, wait_s in enumerate(waits):
        assert BACKOFF_MIN_S * 2**number / 2 <= wait_s <= BACKOFF_MIN_S * 2**number
    is_broken = False
    clock.advance(loop.next_due_s())
    run(loop)
    is_broken = True
    one = sqlite_store.everything().get("Thing", "one", "red")
    sqlite_store.everything().write([SetSpec(one, {"n": 1})])
    run(loop)
    assert loop.next_due_s() <= BACKOFF_MIN_S


def test_one_broken_key_does_not_hold_up_the_others(sqlite_store: Store) -> None:
    for name in ("a", "b", "c"):
        make(sqlite_store, name)

    def answer(key: Key, world: Writer) -> None:
        if key.name == "a":
            raise Unavailable("not now")

    controller = Recorder(answer)
    run(loop_of(sqlite_store, controller))
    assert sorted(controller.asked) == ["a", "b", "c"]


def test_a_conflict_is_retried_at_once_then_backs_off(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)

    def answer(key: Key, world: Writer) -> None:
        raise Conflict("it moved")

    controller = Recorder(answer)
    loop = loop_of(sqlite_store, controller)
    assert run(loop) == CONFLICTS_FREE + 1
    assert loop.next_due_s() >= BACKOFF_MIN_S / 2


def test_a_conflict_reads_anew_and_succeeds(sqlite_store: Store) -> None:
    make(sqlite_store)
    scope = sqlite_store.everything()

    def answer(key: Key, world: Writer) -> None:
        one = world.read(key)
        assert one is not None
        if not one.spec:  # somebody else changes it between our read and our write
            scope.write([SetSpec(one, {"n": 1})])
        world.write(SetStatus(one, {"phase": "ready"}))

    run(loop_of(sqlite_store, Recorder(answer)))
    one = scope.get("Thing", "one", "red")
    assert (one.spec, one.phase) == ({"n": 1}, "ready")


def test_two_controllers_cannot_own_one_kind(sqlite_store: Store) -> None:
    with pytest.raises(AssertionError, match="two controllers own one kind"):
        loop_of(sqlite_store, Recorder(), Recorder(name="second"))


def test_a_controller_cannot_write_anothers_status(sqlite_store: Store) -> None:
    make(sqlite_store)
    make(sqlite_store, "part", kind="Part")

    def answer(key: Key, world: Writer) -> None:
        part = world.scope.get("Part", "part", "red")
        world.write(SetSpec(part, {"n": 1}))
        part = world.scope.get("Part", "part", "red")
        world.write(SetStatus(part, {"phase": "stolen"}))

    run(loop_of(sqlite_store, Recorder(answer)))
    part = sqlite_store.everything().get("Part", "part", "red")
    assert (part.spec, part.status) == ({"n": 1}, {})


def test_a_controllers_name_is_on_what_it_writes(sqlite_store: Store) -> None:
    make(sqlite_store)
    controller = Recorder(lambda key, world: _finish(key, world))
    run(loop_of(sqlite_store, controller))
    assert sqlite_store.everything().changes(1)[0].actor == "recorder"


def _finish(key: Key, world: Writer) -> None:
    one = world.read(key)
    if one is not None and one.phase != "ready":
        world.write(SetStatus(one, {"phase": "ready"}))


def test_a_fenced_loop_stops(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    leases = Leases(sqlite_store.database, clock)
    fence = leases.take("controllers", "old").fence
    leases.take("controllers", "new")
    loop = loop_of(sqlite_store, Recorder(_finish), fence=fence)
    loop.take_changes()
    with pytest.raises(Fenced):
        loop.step()
    assert sqlite_store.everything().get("Thing", "one", "red").phase == "pending"


def test_a_controller_that_cannot_say_whom_a_change_concerns_does_not_blind_the_others(sqlite_store: Store) -> None:
    class Confused(Recorder):
        def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
            raise KeyError("node")

    confused = Confused(owns="Other", watches=("Thing",), name="confused")
    controller = Recorder()
    loop = loop_of(sqlite_store, confused, controller)
    run(loop)
    make(sqlite_store)
    run(loop)
    assert controller.asked == ["one"]


def test_changes_that_could_not_be_read_are_read_again(sqlite_store: Store) -> None:
    class Away(Recorder):
        tries = 0

        def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
            self.tries += 1
            if self.tries == 1:
                raise Unavailable("the database is away")
            return [change.key]

    controller = Away(owns="Other", watches=("Thing",))
    loop = loop_of(sqlite_store, controller)
    run(loop)
    make(sqlite_store)
    with pytest.raises(Unavailable):
        loop.take_changes()
    run(loop)
    assert controller.asked == ["one"]


def test_a_removed_resource_is_looked_at_for_the_last_time(sqlite_store: Store) -> None:
    make(sqlite_store)
    controller = Recorder()
    loop = loop_of(sqlite_store, controller)
    run(loop)
    one = sqlite_store.everything().get("Thing", "one", "red")
    sqlite_store.everything().write([MarkDeleting(one)])
    run(loop)
    assert controller.asked == ["one", "one"]


def test_backoff_is_bounded() -> None:
    rng = random.Random(3)
    assert all(BACKOFF_MAX_S / 2 <= backoff_s(n, rng) <= BACKOFF_MAX_S for n in (20, 100, 10_000))


def test_live_threads_never_reconcile_one_key_at_the_same_time(sqlite_store: Store) -> None:
    """Four workers, a few keys that keep changing: at most one is inside a key at any moment."""
    names = ["a", "b", "c"]
    for name in names:
        make(sqlite_store, name)
    inside: set[str] = set()
    overlaps: list[str] = []
    lock = threading.Lock()
    done = threading.Event()
    count = 0

    def answer(key: Key, world: Writer) -> float:
        nonlocal count
        with lock:
            if key.name in inside:
                overlaps.append(key.name)
            inside.add(key.name)
        world.read(key)
        with lock:
            inside.discard(key.name)
            count += 1
            if count > 300:
                done.set()
        return 0.0

    clock = SystemClock()
    store = Store(sqlite_store.database, clock)
    feed = Feed(store)
    runner = LoopRunner(loop_of(store, Recorder(answer)), feed, workers=4)
    runner.start()
    assert done.wait(60)
    runner.stop()
    feed.stop()
    assert overlaps == []


def test_a_live_loop_reacts_to_a_change_without_waiting_for_the_resync(sqlite_store: Store) -> None:
    store = Store(sqlite_store.database, SystemClock())
    seen = threading.Event()
    controller = Recorder(lambda key, world: seen.set())
    feed = Feed(store)
    runner = LoopRunner(loop_of(store, controller), feed)
    runner.start()
    make(store)
    assert seen.wait(60)
    runner.stop()
    feed.stop()


def test_a_live_loop_that_is_fenced_says_so(sqlite_store: Store, clock: VirtualClock) -> None:
    make(sqlite_store)
    leases = Leases(sqlite_store.database, clock)
    fence = leases.take("controllers", "old").fence
    leases.take("controllers", "new")
    store = Store(sqlite_store.database, SystemClock())
    feed = Feed(store)
    runner = LoopRunner(Loop(store, SystemClock(), [Recorder(_finish)], random.Random(1), fence), feed)
    runner.start()
    assert runner.fenced.wait(60)
    runner.stop()
    feed.stop()


def test_the_feed_reader_survives_an_unexpected_error(sqlite_store: Store) -> None:
    class Broken(Recorder):
        tries = 0

        def all_keys(self, world: Writer) -> Iterable[Key]:
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("a bug")
            return super().all_keys(world)

    seen = threading.Event()
    make(sqlite_store)
    store = Store(sqlite_store.database, SystemClock())
    feed = Feed(store)
    runner = LoopRunner(loop_of(store, Broken(lambda key, world: seen.set())), feed)
    runner.start()
    assert seen.wait(60)
    runner.stop()
    feed.stop()
