"""Tells the server how busy each target is, as this gateway sees it, for autoscaling.

A report goes out a second after something changed, every QUIET_S when nothing does, and at once when a request begins
to be held. Reports are states, not events: a lost one is replaced by the next. Knows nothing of replicas or routing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Any

import orjson

from atoll.core.errors import AtollError
from atoll.serving.gateway.centre import post
from atoll.serving.gateway.upstream import Client, Origin, Patience

log = logging.getLogger(__name__)

AT_ONCE_S = 0.05
BUSY_S = 1.0
QUIET_S = 5.0
BACK_OFF_LONGEST_S = 10.0
SAMPLES_MAX = 256
SAMPLE_LIFE_S = 60.0
FORGOTTEN_S = 600.0
_PATIENCE = Patience(first_byte_s=5.0, idle_s=5.0)


class _Target:
    """What is under way at one deployment or provider."""

    __slots__ = ("changed_s", "first_tokens", "outstanding", "queued", "started", "tokens")

    def __init__(self) -> None:
        self.outstanding = 0
        self.queued = 0
        self.started = 0
        self.tokens = 0
        self.first_tokens: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)  # when, after how long
        self.changed_s = 0.0

    def ttft_p95_s(self, now: float) -> float | None:
        """95th percentile (nearest rank) of the last minute's times to the first token; None without any."""
        samples = self.first_tokens
        while samples and samples[0][0] < now - SAMPLE_LIFE_S:
            samples.popleft()
        if not samples:
            return None
        ordered = sorted(ttft_s for _, ttft_s in samples)
        return ordered[ceil(0.95 * len(ordered)) - 1]


class Loads:
    """Told by the exchanges what begins and ends; `run` for ever as a task. `source` is the journal's identity."""

    def __init__(self, source: str, *, host: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._host = host or socket.gethostname()
        self._now = now
        self._targets: dict[str, _Target] = {}
        self._has_changed = True
        self._wake = asyncio.Event()

    def began(self, target_id: str) -> None:
        """A request was sent to a replica of the target."""
        target = self._of(target_id)
        target.outstanding += 1
        target.started += 1

    def queued(self, target_id: str, change: int) -> None:
        """`change` (+1 or -1) requests wait for a free or a first replica of the target."""
        target = self._of(target_id)
        was_waited_for = target.queued > 0
        target.queued = max(0, target.queued + change)
        if not was_waited_for and target.queued:
            self._wake.set()

    def first_token(self, target_id: str, ttft_s: float) -> None:
        """The first token of a request came `ttft_s` seconds after the request."""
        self._of(target_id).first_tokens.append((self._now(), ttft_s))

    def ended(self, target_id: str, tokens: int) -> None:
        """A request that began has ended, with `tokens` used."""
        target = self._of(target_id)
        target.outstanding = max(0, target.outstanding - 1)
        target.tokens += tokens

    def _of(self, target_id: str) -> _Target:
        target = self._targets.get(target_id)
        if target is None:
            target = self._targets[target_id] = _Target()
        self._has_changed = True
        target.changed_s = self._now()
        return target

    def report(self) -> dict[str, Any]:
        """The state of all targets, as the server wants it; forgets targets long idle."""
        now = self._now()
        for target_id, target in list(self._targets.items()):
            if not target.outstanding and not target.queued and target.changed_s < now - FORGOTTEN_S:
                del self._targets[target_id]
        targets = {
            target_id: {
                "outstanding": target.outstanding,
                "queued": target.queued,
                "started_total": target.started,
                "tokens_total": target.tokens,
                "ttft_p95_s": target.ttft_p95_s(now),
            }
            for target_id, target in self._targets.items()
        }
        return {"source": self._source, "host": self._host, "at": time.time(), "targets": targets}

    async def run(self, client: Client, server: Origin, secret: str) -> None:
        """Report for ever."""
        wait_s = 0.0
        while True:
            try:
                self._has_changed = False
                self._wake.clear()
                await post(client, server, secret, "/api/v1/gateway/load", orjson.dumps(self.report()), _PATIENCE)
                wait_s = 0.0
            except AtollError as error:
                log.log(logging.DEBUG if wait_s else logging.WARNING, "load was not reported: %s", error)
                wait_s = min(max(BUSY_S, 2 * wait_s), BACK_OFF_LONGEST_S)
                await asyncio.sleep(wait_s)
            await self._pause()

    async def _pause(self) -> None:
        """Until the next report is due."""
        await asyncio.sleep(AT_ONCE_S)
        for _ in range(round(QUIET_S / BUSY_S)):
            try:
                async with asyncio.timeout(BUSY_S):
                    await self._wake.wait()
                return
            except TimeoutError:
                if self._has_changed:
                    return
