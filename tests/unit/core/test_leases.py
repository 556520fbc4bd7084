"""Leases are judged by standing still on the observer's own clock, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Fenced
from atoll.core.leases import Lease, Leases

TTL_S = 10.0


@pytest.fixture
def leases(database: Database, clock: VirtualClock) -> Leases:
    return Leases(database, clock)


def test_a_free_lease_is_acquired_and_renewed(leases: Leases) -> None:
    lease = leases.acquire("lead", "a", TTL_S)
    assert lease == Lease("lead", "a", 1, 0) == leases.read("lead")
    assert leases.renew(lease) == Lease("lead", "a", 1, 1)
    assert leases.acquire("lead", "a", TTL_S) == Lease("lead", "a", 1, 2)
    assert leases.read("other") is None


def test_a_lease_is_taken_over_only_after_it_stood_still(leases: Leases, clock: VirtualClock) -> None:
    lease = leases.take("lead", "a")
    assert leases.acquire("lead", "b", TTL_S) is None
    clock.advance(TTL_S - 0.1)
    assert leases.acquire("lead", "b", TTL_S) is None
    leases.renew(lease)
    clock.advance(1)
    assert leases.acquire("lead", "b", TTL_S) is None
    clock.advance(TTL_S - 0.1)
    assert leases.acquire("lead", "b", TTL_S) is None
    clock.advance(0.1)
    assert leases.acquire("lead", "b", TTL_S) == Lease("lead", "b", 2, 0)


def test_the_former_holder_is_fenced(leases: Leases) -> None:
    old = leases.take("lead", "a")
    new = leases.take("lead", "b")
    assert new.epoch == old.epoch + 1
    with pytest.raises(Fenced, match="'lead' is no longer held by 'a'"):
        leases.renew(old)
    assert leases.renew(new).renewals == 1


def test_a_wall_clock_that_jumps_changes_nothing(leases: Leases, clock: VirtualClock) -> None:
    leases.take("lead", "a")
    assert leases.acquire("lead", "b", TTL_S) is None
    clock.jump(1e6)
    assert leases.acquire("lead", "b", TTL_S) is None
    clock.advance(TTL_S)
    clock.jump(-2e6)
    assert leases.acquire("lead", "b", TTL_S) is not None


def test_a_new_observer_watches_for_a_whole_time_to_live(
    leases: Leases, database: Database, clock: VirtualClock
) -> None:
    leases.take("lead", "a")
    assert leases.stale_s("lead") is None
    clock.advance(3 * TTL_S)
    assert leases.stale_s("lead") == 3 * TTL_S
    observer = Leases(database, clock)
    assert observer.stale_s("lead") is None
    assert observer.acquire("lead", "b", TTL_S) is None
    clock.advance(TTL_S)
    assert observer.acquire("lead", "b", TTL_S) is not None


def test_staleness_starts_anew_when_the_lease_moves(leases: Leases, clock: VirtualClock) -> None:
    lease = leases.take("lead", "a")
    leases.stale_s("lead")
    clock.advance(4)
    assert leases.stale_s("lead") == 4
    leases.renew(lease)
    clock.advance(4)
    assert leases.stale_s("lead") == 0
    leases.take("lead", "b")
    assert leases.stale_s("lead") == 0


def test_a_lease_nobody_took_stands_still(leases: Leases, clock: VirtualClock) -> None:
    assert leases.stale_s("lead") is None
    clock.advance(7)
    assert leases.stale_s("lead") == 7
    leases.take("lead", "a")
    assert leases.stale_s("lead") == 0


@pytest.mark.parametrize("is_new", [True, False])
def test_of_many_observers_at_once_one_acquires(
    url: str, opened: Callable[[str], Database], clock: VirtualClock, is_new: bool
) -> None:
    observers = [Leases(opened(url), clock) for _ in range(6)]
    if not is_new:
        observers[0].take("lead", "dead")
        assert [o.acquire("lead", f"n{i}", TTL_S) for i, o in enumerate(observers)] == [None] * 6
        clock.advance(TTL_S)
    won: list[Lease | None] = []
    ready = threading.Barrier(6)

    def acquire(number: int) -> None:
        ready.wait(60)
        won.append(observers[number].acquire("lead", f"n{number}", TTL_S))

    threads = [threading.Thread(target=acquire, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    holders = [lease for lease in won if lease is not None]
    assert len(won) == 6
    assert holders == [observers[0].read("lead")]


def test_many_can_take_at_once_and_the_last_one_holds(
    url: str, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    """As two agents registering one node do."""
    observers = [Leases(opened(url), clock) for _ in range(6)]
    taken: list[Lease] = []
    ready = threading.Barrier(6)

    def take(number: int) -> None:
        ready.wait(60)
        taken.append(observers[number].take("node/n", f"a{number}"))

    threads = [threading.Thread(target=take, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(lease.epoch for lease in taken) == [1, 2, 3, 4, 5, 6]
    assert observers[0].read("node/n") == max(taken, key=lambda lease: lease.epoch)
