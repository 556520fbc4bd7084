"""Waiting for changes: woken at once by commits of this process, within `poll_s` by those of others.

The feed knows numbers only; readers fetch what changed from the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from atoll.core.errors import AtollError
from atoll.core.store import Store

log = logging.getLogger(__name__)


class Feed:
    """The number of the newest change, and a way to wait for the next."""

    def __init__(self, store: Store, poll_s: float = 0.5) -> None:
        self._store = store
        self._poll_s = poll_s
        self._condition = threading.Condition()
        self._head = store.head()
        self._poll = store.database.data_version_poll()
        self._is_behind = False
        self._stopping = threading.Event()
        self._wakers: list[Callable[[int], None]] = []
        store.on_commit(self._advance)
        self._thread = threading.Thread(target=self._watch_others, name="feed", daemon=True)

    def start(self) -> None:
        """Begin watching for commits of other processes."""
        self._thread.start()

    def stop(self) -> None:
        """Wake every waiter and stop."""
        self._stopping.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._poll.close()

    @property
    def head(self) -> int:
        return self._head

    def on_advance(self, waker: Callable[[int], None]) -> None:
        """Call `waker(head)` whenever there is something new, from the committing thread: be quick."""
        self._wakers.append(waker)

    def wait(self, seen: int, timeout_s: float) -> int:
        """Block until the head is beyond `seen`, at most `timeout_s`; returns the head."""
        with self._condition:
            self._condition.wait_for(lambda: self._head > seen or self._stopping.is_set(), timeout_s)
            return self._head

    def poll(self) -> bool:
        """True when another process committed; the head is then read anew. Cheap when nothing happened."""
        self._is_behind = self._poll.changed() or self._is_behind
        if not self._is_behind:
            return False
        self._advance(self._store.head())
        self._is_behind = False
        return True

    def _watch_others(self) -> None:
        while not self._stopping.wait(self._poll_s):
            try:
                self.poll()
            except AtollError as error:
                log.warning("cannot see the commits of other processes: %s", error)

    def _advance(self, head: int) -> None:
        with self._condition:
            if head <= self._head:
                return
            self._head = head
            self._condition.notify_all()
        for waker in self._wakers:
            waker(head)
