"""Waiting for the change feed inside an event loop, for thousands of watchers at the price of one."""

from __future__ import annotations

import asyncio

from atoll.core.feed import Feed


class Waiter:
    """Wakes coroutines when the feed advances or when somebody nudges."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._stopping = False
        feed.on_advance(lambda _: self.nudge())

    @property
    def head(self) -> int:
        return self._feed.head

    @property
    def is_stopping(self) -> bool:
        return self._stopping

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop the watchers live in."""
        self._loop = loop

    def stop(self) -> None:
        """Wake everybody for the last time."""
        self._stopping = True
        self.nudge()

    def nudge(self) -> None:
        """Wake everybody; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def ticket(self) -> asyncio.Event:
        """Take one before looking, hand it to `wait`: what happens in between is then not slept through."""
        return self._event

    async def wait(self, ticket: asyncio.Event, timeout_s: float) -> None:
        """Until the first advance or nudge since `ticket` was taken, at most `timeout_s`."""
        try:
            await asyncio.wait_for(ticket.wait(), timeout_s)
        except TimeoutError:
            return

    def _wake(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()
