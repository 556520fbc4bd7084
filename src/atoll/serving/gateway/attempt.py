"""One asking of one replica: its call, its slot, and its answer as metered so far.

An exchange makes one, or several one after another, or two at a time (a hedge): its `Race`. An attempt tells its owner
what comes, and gives its slot back exactly once, in `end`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway.continuation import Splice
from atoll.serving.gateway.dialects.order import Translation
from atoll.serving.gateway.dispatch import Place
from atoll.serving.gateway.events import EventFilter
from atoll.serving.gateway.upstream import Call, ConnectFailed, Headers, UpstreamError
from atoll.serving.gateway.usage import NO_TOKENS, Tokens
from atoll.serving.router import circuit_break_s

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

ANSWER_BYTES_MAX = 64 * 1024 * 1024


class Owner(Protocol):
    """Who asked."""

    def on_events(self, attempt: Attempt, events: bytes) -> None:
        """Metered events of a stream with status 200."""

    def on_answer(self, attempt: Attempt) -> None:
        """The answer, or the engine's refusal, is whole."""

    def on_attempt_failed(self, attempt: Attempt, error: AtollError) -> None: ...


class Attempt:
    """Receiver of one engine's answer. `filter` is None for an answer that passes as it is."""

    __slots__ = (
        "_answer_bytes",
        "_call",
        "_gateway",
        "_is_ended",
        "_owner",
        "_parts",
        "_passes",
        "asked_s",
        "filter",
        "place",
        "splice",
        "status",
        "translation",
    )

    def __init__(
        self,
        gateway: Gateway,
        owner: Owner,
        place: Place,
        filter: EventFilter | None,
        translation: Translation | None,
        splice: Splice | None,
        *,
        passes: bool,
    ) -> None:
        self._gateway = gateway
        self._owner = owner
        self._passes = passes
        self._parts: list[bytes] = []
        self._answer_bytes = 0
        self._is_ended = False
        self._call: Call | None = None
        self.place = place
        self.filter = filter
        self.translation = translation
        self.splice = splice
        self.status = 0
        self.asked_s = time.monotonic()

    def ask(self, request: bytes) -> None:
        """Take a slot and send."""
        place, gateway = self.place, self._gateway
        place.replica.outstanding += 1
        gateway.loads.began(place.target.id)
        self._call = gateway.client.open(place.replica.origin, request, self, gateway.patience)

    @property
    def tokens(self) -> Tokens:
        """What is known to be used so far."""
        return self.filter.tokens() if self.filter is not None else NO_TOKENS

    @property
    def body(self) -> bytes:
        """What has come of an answer that does not pass as a stream."""
        return b"".join(self._parts)

    def end(self, tokens: Tokens) -> None:
        """Give the slot back, once; stop the engine if it still works. `tokens` are counted as this replica's."""
        if self._is_ended:
            return
        self._is_ended = True
        call, self._call = self._call, None
        if call is not None:
            call.abort()
        target, replica, _ = self.place
        self._gateway.loads.ended(target.id, tokens.prompt + tokens.completion)
        self._gateway.dispatch.leave(replica)

    def pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    # the client's connection to the engine calls

    def on_response(self, status: int, headers: Headers) -> None:
        self.place.replica.failures = 0
        self.status = status

    def on_data(self, data: bytes) -> None:
        if self.filter is None or self.status != 200:
            self._gather(data)
            return
        events = self.filter.feed(data)
        if not events:
            return
        if self._passes:
            self._owner.on_events(self, events)
        else:
            self._gather(events)

    def on_complete(self) -> None:
        self._call = None
        self._owner.on_answer(self)

    def on_failure(self, error: UpstreamError) -> None:
        self._call = None
        if isinstance(error, ConnectFailed):
            replica = self.place.replica
            replica.failures += 1
            replica.broken_until = time.monotonic() + circuit_break_s(replica.failures)
        self._owner.on_attempt_failed(self, error)

    def on_upload_pause(self) -> None:
        pass  # the whole body is in memory already

    def on_upload_resume(self) -> None:
        pass

    def _gather(self, data: bytes) -> None:
        self._parts.append(data)
        self._answer_bytes += len(data)
        if self._answer_bytes > ANSWER_BYTES_MAX:
            raise IntegrityError(f"the engine's answer is over {ANSWER_BYTES_MAX} bytes")


class Race:
    """The attempts of one exchange that are under way: one, or two until the first token of either."""

    __slots__ = ("_hedge", "leader", "running")

    def __init__(self) -> None:
        self.running: list[Attempt] = []
        self.leader: Attempt | None = None  # whose answer the client gets; stays after it died
        self._hedge: asyncio.TimerHandle | None = None

    def hedge(self, after_s: float, ask_another: Callable[[], None]) -> None:
        """Have another asked when nobody leads in time."""
        self._hedge = asyncio.get_running_loop().call_later(after_s, ask_another)

    def lead(self, attempt: Attempt) -> None:
        """This one is the answer; others lose."""
        self.leader = attempt
        self._cancel_hedge()
        if len(self.running) > 1:
            for other in self.running:
                if other is not attempt:
                    other.end(NO_TOKENS)
            self.running = [attempt]

    def tokens(self, before: Tokens) -> Tokens:
        """What is known to be used so far; `before` by replicas that died."""
        if self.leader is not None and self.leader in self.running:
            return self.leader.tokens
        if before is NO_TOKENS and self.running:
            return self.running[0].tokens
        return before

    def pause(self) -> None:
        for attempt in self.running:
            attempt.pause()

    def resume(self) -> None:
        for attempt in self.running:
            attempt.resume()

    def end(self, used: Tokens) -> None:
        """Stop all; give the slots back."""
        self._cancel_hedge()
        running, self.running = self.running, []
        leader, self.leader = (
            self.leader,
            None,
        )  # owner and attempt know each other: a cycle would wait for the collector
        for attempt in running:
            attempt.end(used if attempt is leader or len(running) == 1 else NO_TOKENS)

    def _cancel_hedge(self) -> None:
        if self._hedge is not None:
            self._hedge.cancel()
            self._hedge = None
