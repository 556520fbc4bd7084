"""The snapshot in force: kept in memory for every request and in a file for a restart.

The gateway long-polls the server for it. With the server gone it works on with what it has, for as long as it must;
keys still expire on time. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from atoll.core.errors import AtollError, Invalid
from atoll.core.files import write_bytes
from atoll.serving.gateway.snapshot import NOTHING, Key, Snapshot, read_snapshot
from atoll.serving.gateway.upstream import Client, Origin, Patience, fetch

log = logging.getLogger(__name__)

POLL_WAIT_S = 20
UNCHANGED_PAUSE_S = 0.02  # should a server not wait at all
BACK_OFF_FIRST_S = 0.2
BACK_OFF_LONGEST_S = 5.0
DIGESTS_MAX = 10_000
SECRET_BYTES_MAX = 256


class Directory:
    """The snapshot in force; `follow` keeps it fresh, `find_key` looks a key up, `on_change` is called after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: dict[bytes, str] = {}
        self.snapshot = NOTHING
        self.origin_of_snapshot = "none"
        self.is_server_reachable = False
        self.was_server_reached = False
        self.on_change: Callable[[Snapshot], None] = lambda snapshot: None
        self._newest = b""
        self._is_newer = asyncio.Event()

    def load(self) -> None:
        """Take the snapshot of an earlier run, if there is a good one."""
        try:
            self.snapshot = read_snapshot(self._path.read_bytes(), {})
        except FileNotFoundError:
            return
        except Invalid as error:
            log.error("%s is not used: %s", self._path, error)
            return
        self.origin_of_snapshot = "file"
        self.on_change(self.snapshot)

    def find_key(self, secret: bytes) -> Key | None:
        """The key with this secret, unless it has expired."""
        digest = self._digests.get(secret)
        if digest is None:
            if len(secret) > SECRET_BYTES_MAX:
                return None
            if len(self._digests) >= DIGESTS_MAX:
                self._digests.clear()
            digest = self._digests[secret] = hashlib.sha256(secret).hexdigest()
        key = self.snapshot.keys.get(digest)
        if key is None or (key.expires_at is not None and key.expires_at <= time.time()):
            return None
        return key

    async def follow(self, client: Client, server: Origin, secret: str) -> None:
        """Long-poll the server for ever, and keep what it says for a restart."""
        keeping = asyncio.create_task(self._keep())
        try:
            await self._poll_on(client, server, secret)
        finally:
            keeping.cancel()

    async def _poll_on(self, client: Client, server: Origin, secret: str) -> None:
        back_off_s = BACK_OFF_FIRST_S
        while True:
            try:
                await self._poll(client, server, secret)
                back_off_s = BACK_OFF_FIRST_S
            except AtollError as error:
                if self.is_server_reachable or not self.was_server_reached:
                    log.warning("no snapshot from the server: %s", error)
                self.is_server_reachable = False
                await asyncio.sleep(back_off_s)
                back_off_s = min(back_off_s * 2, BACK_OFF_LONGEST_S)

    async def _poll(self, client: Client, server: Origin, secret: str) -> None:
        """Ask once; whoever lost sight of the server asks for everything anew, whatever numbers it had."""
        seen = self.snapshot.seen if self.is_server_reachable else 0
        request = (
            f"GET /api/v1/gateway/snapshot?seen={seen}&wait_s={POLL_WAIT_S if seen else 0} HTTP/1.1\r\n"
            f"host: {server.authority.decode()}\r\nauthorization: Bearer {secret}\r\n\r\n"
        ).encode()
        answer = await fetch(client, server, request, Patience(first_byte_s=POLL_WAIT_S + 10.0, idle_s=30.0))
        self.was_server_reached = True
        if answer.status != 200:
            raise Invalid(f"the server answered {answer.status}: {answer.body[:200].decode(errors='replace')}")
        fresh = read_snapshot(answer.body, {(r.id, r.url, r.secret): r for r in self.snapshot.replicas})
        self.is_server_reachable = True
        if fresh.seen != seen:
            self._adopt(fresh, answer.body)
        else:
            await asyncio.sleep(UNCHANGED_PAUSE_S)

    def _adopt(self, fresh: Snapshot, data: bytes) -> None:
        gone = self.snapshot.replicas - fresh.replicas
        self.snapshot, self.origin_of_snapshot = fresh, "fresh"
        for replica in gone:
            replica.origin.close()
        self.on_change(fresh)
        self._newest = data
        self._is_newer.set()

    async def _keep(self) -> None:
        """Write the newest snapshot, beside the polling: a slow disk must not hold the next one back."""
        while True:
            await self._is_newer.wait()
            self._is_newer.clear()
            try:
                await asyncio.to_thread(write_bytes, self._path, self._newest, mode=0o600)
            except (OSError, AtollError) as error:
                log.error("the snapshot is in use but could not be kept for a restart: %s", error)
