"""Delivers the usage journal to the server: in order, in batches, again and again until it is confirmed.

Sending a batch twice is harmless (the server knows it by source and number). Holds one batch in memory at a time.
"""

from __future__ import annotations

import asyncio
import logging

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.upstream import Client, Origin, Patience, fetch

log = logging.getLogger(__name__)

GATHER_S = 0.25
BACK_OFF_FIRST_S = 0.5
BACK_OFF_LONGEST_S = 15.0
RECORDS_PER_BATCH = 1000


class Shipper:
    """`run` for ever as a task."""

    def __init__(self, journal: Journal, client: Client, server: Origin, secret: str) -> None:
        self._journal = journal
        self._client = client
        self._server = server
        self._secret = secret
        self._is_due = asyncio.Event()
        journal.on_durable = self._is_due.set
        self._is_due.set()

    async def run(self) -> None:
        """Ship what becomes durable."""
        back_off_s = BACK_OFF_FIRST_S
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            try:
                while await self.ship():
                    back_off_s = BACK_OFF_FIRST_S
            except (AtollError, OSError) as error:
                log.warning("%d usage records wait: %s", self._journal.unacknowledged, error)
                self._is_due.set()
                await asyncio.sleep(back_off_s)
                back_off_s = min(back_off_s * 2, BACK_OFF_LONGEST_S)
            else:
                await asyncio.sleep(GATHER_S)

    async def ship(self) -> bool:
        """Send one batch; False when there was none. Raises when the server did not confirm it."""
        batch = self._journal.read(RECORDS_PER_BATCH)
        if not batch:
            return False
        body = b'{"source":"%b","records":[%b]}' % (self._journal.source.encode(), b",".join(batch))
        head = (
            f"POST /api/v1/gateway/usage HTTP/1.1\r\nhost: {self._server.authority.decode()}\r\n"
            f"authorization: Bearer {self._secret}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        answer = await fetch(self._client, self._server, head + body, Patience(first_byte_s=30.0, idle_s=30.0))
        if answer.status != 200:
            raise Invalid(f"the server answered {answer.status}: {answer.body[:200].decode(errors='replace')}")
        before, confirmed = self._journal.acknowledged, min(_acknowledged(answer.body), self._journal.durable)
        if confirmed <= before:
            raise Invalid(f"the server confirmed {confirmed}, which it had confirmed before")
        self._journal.acknowledge(confirmed)
        return True


def _acknowledged(body: bytes) -> int:
    try:
        return int(orjson.loads(body)["acknowledged"])
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"the server's confirmation cannot be read: {body[:200]!r}") from error
