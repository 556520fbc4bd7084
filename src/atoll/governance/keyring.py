"""Which key is whom, answered from memory and read anew when keys, users, memberships or projects changed."""

from __future__ import annotations

import threading

from atoll.core.errors import Unauthorized
from atoll.core.feed import Feed
from atoll.core.resources import SYSTEM_PROJECT
from atoll.core.store import Change, Store
from atoll.governance.keys import Identity, hash_of
from atoll.governance.members import read_keys

SPEAKING = frozenset({"ApiKey", "User", "Membership", "Project"})
"""Kinds that say who may do what."""

CHANGES_MAX = 500
"""After more changes than this at once the keys are read anew without looking at what changed."""


class KeyRing:
    """The keys of one store, and the platform's own key that its parts share through a file."""

    def __init__(self, store: Store, feed: Feed, system_key: str) -> None:
        self._store = store
        self._feed = feed
        self._system = {hash_of(system_key): Identity("system", SYSTEM_PROJECT, "system")}
        self._lock = threading.Lock()
        self._seen = -1
        self._known: dict[str, tuple[float, Identity]] = {}

    def identify(self, key: str) -> Identity:
        """Who holds `key`; Unauthorized when nobody may."""
        digest = hash_of(key)
        if digest in self._system:
            return self._system[digest]
        found = self._current().get(digest)
        if found is None or found[0] <= self._store.clock.now():
            raise Unauthorized("this API key is unknown, expired or revoked", hint="make one: atoll keys create")
        return found[1]

    def _current(self) -> dict[str, tuple[float, Identity]]:
        head = self._feed.head
        with self._lock:
            if head > self._seen:
                scope = self._store.everything()
                found = scope.changes(self._seen, CHANGES_MAX) if self._seen >= 0 else []
                if not _tells_all(found, self._seen) or any(map(_matters, found)):
                    self._seen = head
                    keys = read_keys(scope)
                    self._known = {key.spec["sha256"]: (keys.ends_at(key), keys.identity(key)) for key in keys}
                else:
                    self._seen = found[-1].seq
            return self._known


def _tells_all(found: list[Change], seen: int) -> bool:
    """Whether these are all changes after `seen`: none was dropped from the history, none is still to be read."""
    return 0 < len(found) < CHANGES_MAX and found[0].seq == seen + 1


def _matters(change: Change) -> bool:
    return change.kind in SPEAKING and change.action not in ("note", "status")
