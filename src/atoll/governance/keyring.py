"""Which key is whom, answered from memory and read anew when anything was committed."""

from __future__ import annotations

import threading

from atoll.core.errors import Unauthorized
from atoll.core.feed import Feed
from atoll.core.resources import SYSTEM_PROJECT, Resource
from atoll.core.store import Store
from atoll.governance.keys import Identity, hash_of, is_valid


class KeyRing:
    """The keys of one store, and the platform's own key that its parts share through a file."""

    def __init__(self, store: Store, feed: Feed, system_key: str) -> None:
        self._store = store
        self._feed = feed
        self._system = {hash_of(system_key): Identity("system", SYSTEM_PROJECT, "system")}
        self._lock = threading.Lock()
        self._seen = -1
        self._known: dict[str, tuple[Resource, Identity]] = {}

    def identify(self, key: str) -> Identity:
        """Who holds `key`; Unauthorized when nobody may."""
        digest = hash_of(key)
        if digest in self._system:
            return self._system[digest]
        found = self._current().get(digest)
        if found is None or not is_valid(found[0], self._store.clock.now()):
            raise Unauthorized("this API key is unknown, expired or revoked", hint="make one: atoll keys create")
        return found[1]

    def _current(self) -> dict[str, tuple[Resource, Identity]]:
        head = self._feed.head
        with self._lock:
            if head != self._seen or not self._known:
                keys = self._store.everything().find_all("ApiKey")
                self._known = {k.spec["sha256"]: (k, Identity(k.name, k.project, k.spec["role"])) for k in keys}
                self._seen = head
            return self._known
