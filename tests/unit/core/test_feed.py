"""The feed wakes at once for commits of this process, and sees those of others by polling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import postgres
from atoll.core.clock import VirtualClock
from atoll.core.database import Database
from atoll.core.errors import Unavailable
from atoll.core.feed import Feed
from atoll.core.store import Create, Store


def write(store: Store, name: str) -> None:
    store.everything().write([Create("Thing", "red", name, {})])


class FlakyStore(Store):
    """A store whose database is away now and then."""

    is_down = False

    def head(self) -> int:
        if self.is_down:
            raise Unavailable("the database is away")
        return super().head()


@pytest.fixture
def feed(store: Store) -> Iterator[Feed]:
    feed = Feed(store, poll_s=0.02)
    yield feed
    feed.stop()


def test_a_commit_of_this_process_wakes_a_waiter_at_once(store: Store, feed: Feed) -> None:
    woken: list[int] = []
    waiter = threading.Thread(target=lambda: woken.append(feed.wait(feed.head, 30)))
    waiter.start()
    write(store, "one")
    waiter.join(30)
    assert woken == [1]
    assert feed.head == 1


def test_waiting_for_what_was_already_seen_does_not_wait(store: Store, feed: Feed) -> None:
    write(store, "one")
    assert feed.wait(0, 30) == 1
    assert feed.wait(1, 0.01) == 1


def test_wakers_hear_each_advance(store: Store, feed: Feed) -> None:
    heard: list[int] = []
    feed.on_advance(heard.append)
    write(store, "one")
    write(store, "two")
    assert heard == [1, 2]


def test_a_poll_sees_the_commits_of_another_process(
    url: str, opened: Callable[[str], Database], clock: VirtualClock, feed: Feed
) -> None:
    feed.poll()
    assert not feed.poll()
    write(Store(opened(url), clock), "one")
    assert feed.head == 0
    assert feed.poll()
    assert feed.head == 1
    assert not feed.poll()


def test_the_started_feed_wakes_for_another_process(
    url: str, opened: Callable[[str], Database], clock: VirtualClock, feed: Feed
) -> None:
    feed.start()
    write(Store(opened(url), clock), "one")
    assert feed.wait(0, 30) == 1


def test_stopping_wakes_every_waiter(feed: Feed) -> None:
    waiter = threading.Thread(target=feed.wait, args=(0, 300))
    waiter.start()
    feed.stop()
    waiter.join(30)
    assert not waiter.is_alive()


def test_a_feed_outlives_a_restart_of_the_database(
    postgres_cluster: postgres.Cluster, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    url = postgres_cluster.make()
    store = Store(opened(url), clock)
    feed = Feed(store, poll_s=0.02)
    feed.start()
    postgres_cluster.hang_up(url)
    write(Store(opened(url), clock), "one")
    assert feed.wait(0, 30) == 1
    feed.stop()


def test_a_change_is_not_missed_when_the_head_cannot_be_read(
    url: str, opened: Callable[[str], Database], clock: VirtualClock
) -> None:
    store = FlakyStore(opened(url), clock)
    feed = Feed(store)
    feed.poll()
    write(Store(opened(url), clock), "one")
    store.is_down = True
    with pytest.raises(Unavailable):
        feed.poll()
    store.is_down = False
    assert feed.poll()
    assert feed.head == 1
    feed.stop()
