"""Delivers the usage journal to the server: in order, in batches, again and again until it is confirmed.

Sending a batch twice is harmless (the server knows it by source and number). Holds one batch in memory at a time.
A batch that the server refuses as malformed, time after time, is halved until the record it cannot take is alone; that
one goes to `refused.jsonl` beside the journal, for people, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.centre import Refused, post
from atoll.serving.gateway.journal import Journal
from atoll.serving.gateway.upstream import Client, Origin

log = logging.getLogger(__name__)

GATHER_S = 0.25
BACK_OFF_FIRST_S = 0.5
BACK_OFF_LONGEST_S = 15.0
RECORDS_PER_BATCH = 1000
REFUSALS_MAX = 3
_MALFORMED = frozenset((400, 413, 422))  # what sending the same again cannot mend


class Shipper:
    """`run` for ever as a task."""

    def __init__(self, journal: Journal, client: Client, server: Origin, secret: str) -> None:
        self._journal = journal
        self._client = client
        self._server = server
        self._secret = secret
        self._records_max = RECORDS_PER_BATCH
        self._refusals = 0
        self.refused_path = journal.folder / "refused.jsonl"
        self.refused = _count_lines(self.refused_path)  # records put aside, ever
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
        batch = self._journal.read(self._records_max)
        if not batch:
            return False
        body = b'{"source":"%b","records":[%b]}' % (self._journal.source.encode(), b",".join(batch))
        try:
            answer = await post(self._client, self._server, self._secret, "/api/v1/gateway/usage", body)
        except Refused as error:
            if error.status not in _MALFORMED or self._is_worth_a_try():
                raise
            self._narrow(batch, error)
            return True
        self._confirm(answer)
        return True

    def _confirm(self, answer: dict[str, object]) -> None:
        told = answer.get("acknowledged")
        if not isinstance(told, int):
            raise Invalid(f"the server's confirmation cannot be read: {answer!r:.200}")
        before, confirmed = self._journal.acknowledged, min(told, self._journal.durable)
        if confirmed <= before:
            raise Invalid(f"the server confirmed {confirmed}, which it had confirmed before")
        self._journal.acknowledge(confirmed)
        self._records_max = min(2 * self._records_max, RECORDS_PER_BATCH)
        if self._records_max == RECORDS_PER_BATCH:
            self._refusals = 0

    def _is_worth_a_try(self) -> bool:
        """Whether the whole batch may be sent as it is once more: the server may be the one that errs."""
        self._refusals += 1
        return self._refusals < REFUSALS_MAX

    def _narrow(self, batch: list[bytes], error: Refused) -> None:
        """Come nearer to the record the server cannot take; once it is alone, put it aside."""
        if len(batch) > 1:
            self._records_max = len(batch) // 2
            return
        line = {"at": time.time(), "reason": error.message, "record": orjson.loads(batch[0])}
        log.error("usage record %d is refused and kept in %s: %s", line["record"]["seq"], self.refused_path, error)
        _append_durably(self.refused_path, orjson.dumps(line) + b"\n")
        self.refused += 1
        self._journal.acknowledge(line["record"]["seq"])


def _append_durably(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
