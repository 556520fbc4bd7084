"""An answer on its way to the client: events and bodies as they come, the head that tells the way, the last bytes.

On the way the flight recorder notes how far it came and, where another replica may have to go on, what was sent is
kept. Decides nothing: the exchange says when. Knows nothing of places, reservations or records.
"""

from __future__ import annotations

import time

from atoll.core.errors import AtollError
from atoll.serving.gateway.attempt import Attempt
from atoll.serving.gateway.connection import Connection
from atoll.serving.gateway.continuation import Transcript, ending
from atoll.serving.gateway.dialects.order import Endpoint, Order, Translation
from atoll.serving.gateway.dispatch import Place
from atoll.serving.gateway.events import EventFilter
from atoll.serving.gateway.http import JSON
from atoll.serving.gateway.recorder import Entry
from atoll.serving.gateway.records import Told
from atoll.serving.gateway.usage import NO_TOKENS, Tokens, find_usage
from atoll.serving.gateway.whole import assemble

_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
_COUNTED = b'data: {"usage":{"prompt_tokens":0,"completion_tokens":%d}}'  # for an engine that tells no running count
_DONE = b"data: [DONE]\n\n"


class Relay:
    """The client's end of one exchange."""

    __slots__ = ("_connection", "_endpoint", "_told", "before", "entry", "place", "transcript", "translation")

    def __init__(self, connection: Connection, endpoint: Endpoint, told: Told) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._told = told
        self.place: Place | None = None  # the last one that was asked, or the one that answers
        self.entry: Entry | None = None
        self.transcript: Transcript | None = None
        self.translation: Translation | None = None  # of the stream under way
        self.before = NO_TOKENS  # used for the part of the stream that dead replicas brought

    @property
    def is_started(self) -> bool:
        return self._connection.is_started

    # streams

    def pass_on(self, attempt: Attempt, events: bytes) -> None:
        """Metered events of the replica that answers. The hot path of streams."""
        if attempt.splice is not None:
            events = attempt.splice.feed(events)
        if self.transcript is not None:
            self.transcript.add(events)
        if self.entry is not None:
            assert attempt.filter is not None
            self.entry.note(attempt.filter.last_told or _COUNTED % attempt.filter.tokens().completion)
        if self.translation is not None:
            events = self.translation.events(events)
        if events:
            connection = self._connection
            if not connection.is_started:
                self.start()
            connection.send(events)

    def start(self) -> None:
        """Say that a stream comes."""
        self._connection.start(200, self._connection.date + _STREAM + self._headers())

    def comment(self, told: str) -> None:
        """Tell a person who looks at the stream; clients pass over it."""
        if not self.is_started:
            self.start()
        self._connection.send(b": %b\n\n" % told.encode())

    def last_of_stream(self, filter: EventFilter) -> bytes:
        """The last bytes of a stream that the engine ended."""
        rest = filter.finish()
        return self.translation.finish(rest) if self.translation is not None else rest

    def last_for_the_dead(self, order: Order) -> bytes:
        """The last bytes of a stream whose replica died when it had said everything."""
        assert self.transcript is not None
        rest = ending(self.transcript, self.before, wants_usage=order.wants_usage)
        if self.translation is None:
            return rest
        return self.translation.events(rest.removesuffix(_DONE)) + self.translation.finish(_DONE)

    def break_off(self, error: AtollError) -> None:
        """The stream cannot go on: say so in it, and do not end it properly."""
        told = self.translation.break_off(error) if self.translation is not None else self._endpoint.break_off(error)
        self._connection.break_off(told)

    # ends

    def whole(self, attempt: Attempt) -> tuple[bytes, Tokens | None]:
        """The body for the client, and what was used if the engine said. Raises IntegrityError."""
        body, filter = attempt.body, attempt.filter
        tokens = find_usage(body) if filter is None else filter.tokens()
        if filter is not None:
            body = assemble(body + filter.finish(), tokens or NO_TOKENS)
        if attempt.translation is not None:
            body = attempt.translation.whole(body)
            tokens = tokens or find_usage(body)  # an engine's own form may tell it in other words
        return body, tokens

    def send_last(self, rest: bytes) -> None:
        """The end of a stream, or the whole answer."""
        if not self._told.is_stream:
            self._connection.reply(200, rest, JSON + self._headers(is_whole=True))
            return
        if not self.is_started:
            self.start()
        self._connection.finish(rest)

    def _headers(self, *, is_whole: bool = False) -> bytes:
        """Where the request went and what that took."""
        told, place = self._told, self.place
        if place is None or told.asked_s is None:
            return b""
        overhead_s = told.asked_s - told.read_s - told.queue_s
        if is_whole and told.engine_s is not None:
            overhead_s = time.monotonic() - told.read_s - told.queue_s - told.engine_s
        return b"%bx-atoll-replica: %b\r\nx-atoll-queue-ms: %.1f\r\nx-atoll-overhead-ms: %.2f\r\n" % (
            place.target.route,
            place.replica.header,
            told.queue_s * 1e3,
            max(0.0, overhead_s) * 1e3,
        )


def meter(order: Order) -> EventFilter | None:
    """What meters the answers to an order; None for one that comes whole and tells its usage itself."""
    if order.is_stream:
        return EventFilter(
            keeps_usage=order.wants_usage,
            keeps_timings=order.wants("timings_per_token"),
            keeps_progress=order.wants("return_progress"),
            choices=order.choices,
            choices_per_prompt=order.choices_per_prompt,
        )
    if order.choices == 1:
        return None
    return EventFilter(
        keeps_usage=False,
        keeps_timings=False,
        keeps_progress=False,
        choices=order.choices,
        choices_per_prompt=order.choices_per_prompt,
    )
