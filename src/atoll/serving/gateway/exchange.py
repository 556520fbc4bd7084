"""One inference request, from its first body byte to its usage record.

1 the body is gathered and checked; 2 the model is found and room is made; 3 a replica is chosen and asked;
4 until a byte went to the client, a failed replica is replaced by another; 5 the answer passes, whole or as a stream;
6 the usage record is written; 7 only then the last byte goes out. Whatever happens instead (the client leaves, the
engine dies, time runs out), the exchange settles exactly once: the engine is stopped, its slot and the client's place
are free again, and what was used so far is on record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from atoll.core.errors import AtollError, IntegrityError, TooLarge, Unavailable
from atoll.serving.gateway.connection import Connection
from atoll.serving.gateway.events import EventFilter
from atoll.serving.gateway.http import Request
from atoll.serving.gateway.openai import Endpoint, Order, engine_body, error_body, read_engine_error, read_order
from atoll.serving.gateway.snapshot import Key, Model, Replica
from atoll.serving.gateway.upstream import Call, ConnectFailed, Headers, Stalled, UpstreamError
from atoll.serving.gateway.usage import Tokens, find_usage
from atoll.serving.gateway.whole import assemble
from atoll.serving.router import choose, circuit_break_s, reopens_in_s

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

ATTEMPTS_MAX = 3
ANSWER_BYTES_MAX = 64 * 1024 * 1024
CLIENT_GONE = 499  # what proxies log for it; no client ever sees it
_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Exchange:
    """Handler of the client's request and receiver of the engine's answer."""

    __slots__ = (
        "_answer_bytes",
        "_begun_s",
        "_body",
        "_body_bytes",
        "_call",
        "_connection",
        "_endpoint",
        "_events",
        "_first_s",
        "_gateway",
        "_is_stream",
        "_key",
        "_model",
        "_parts",
        "_replica",
        "_request",
        "_status",
        "_tried",
    )

    def __init__(
        self, gateway: Gateway, connection: Connection, request: Request, endpoint: Endpoint, key: Key
    ) -> None:
        self._gateway = gateway
        self._connection = connection
        self._request = request
        self._endpoint = endpoint
        self._key = key
        self._begun_s = time.monotonic()
        self._first_s: float | None = None
        self._parts: list[bytes] = []
        self._answer_bytes = 0
        self._body = b""
        self._body_bytes = 0
        self._model: Model | None = None
        self._events: EventFilter | None = None
        self._is_stream = False
        self._replica: Replica | None = None
        self._tried: list[Replica] = []
        self._call: Call | None = None
        self._status = 0

    # the client's side

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        self._gateway.body_bytes += len(data)
        self._parts.append(data)
        limit = self._gateway.directory.snapshot.bounds.body_bytes_max
        if self._body_bytes > limit:
            self._refuse(TooLarge(f"The body is over {limit} bytes."))
        elif self._gateway.is_full_of_bodies:
            self._refuse(Unavailable("The gateway holds as many request bodies as it can.", retry_after_s=1.0))

    def on_end(self) -> None:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        try:
            order = read_order(self._endpoint, body)
            self._model = self._gateway.admit(self._key, self._endpoint, order.model)
        except AtollError as error:
            self._refuse(error)
            return
        self._body = engine_body(order, body)
        self._prepare(order)
        if not self._attempt():
            self._fail(self._nobody())

    def on_disconnect(self) -> None:
        if self._call is not None:
            self._call.abort()
        if self._model is None:
            self._forget_body()
        else:
            self._settle("cancelled", CLIENT_GONE, self._tokens())

    def on_pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def on_resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    def _prepare(self, order: Order) -> None:
        """Remember of the order what the answer needs."""
        self._is_stream = order.is_stream
        if order.is_stream or order.choices > 1:
            self._events = EventFilter(
                keeps_usage=order.is_stream and order.wants_usage,
                keeps_timings=order.is_stream and order.wants("timings_per_token"),
                keeps_progress=order.is_stream and order.wants("return_progress"),
                choices=order.choices,
                choices_per_prompt=order.choices_per_prompt,
            )

    def _refuse(self, error: AtollError) -> None:
        """Answer without having asked an engine."""
        self._forget_body()
        self._gateway.refuse_request(self._connection, self._endpoint.name, error)

    # the engine's side

    def _attempt(self) -> bool:
        """Ask the replica that is best now; False when there is none."""
        assert self._model is not None
        gateway = self._gateway
        gateway.turn += 1
        replica = choose(self._model.replicas, time.monotonic(), gateway.turn, self._tried)
        if replica is None or len(self._tried) >= ATTEMPTS_MAX:
            return False
        self._tried.append(replica)
        self._replica = replica
        replica.outstanding += 1
        self._status = 0
        head = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
            replica.head(self._endpoint.path),
            self._request.request_id,
            len(self._body),
        )
        self._call = gateway.client.open(replica.origin, head + self._body, self, gateway.patience)
        return True

    def on_response(self, status: int, headers: Headers) -> None:
        assert self._replica is not None
        self._replica.failures = 0
        self._status = status

    def on_data(self, data: bytes) -> None:
        events = self._events
        if events is None or self._status != 200:
            self._gather(data)
            return
        passed = events.feed(data)
        if not passed:
            return
        if self._first_s is None:
            self._first_s = time.monotonic()
        if not self._is_stream:
            self._gather(passed)
            return
        if not self._connection.is_started:
            self._forget_body()
            self._connection.start(200, self._connection.date + _STREAM)
        self._connection.send(passed)

    def on_complete(self) -> None:
        if self._status != 200:
            self._take_refusal()
        elif self._is_stream:
            self._finish_stream()
        else:
            self._finish_whole()

    def on_failure(self, error: UpstreamError) -> None:
        if self._model is None:
            self._connection.abort()  # settled, and failed while answering
            return
        assert self._replica is not None
        self._gateway.metrics.upstream_errors[self._model.name, error.code] += 1
        if isinstance(error, ConnectFailed):
            replica = self._replica
            replica.failures += 1
            replica.broken_until = time.monotonic() + circuit_break_s(replica.failures)
        if self._connection.is_started:
            self._break_off(error)
        else:
            self._retry(error, is_final=isinstance(error, Stalled))

    def on_upload_pause(self) -> None:
        pass  # the whole body is in memory already

    def on_upload_resume(self) -> None:
        pass

    def _gather(self, data: bytes) -> None:
        self._parts.append(data)
        self._answer_bytes += len(data)
        if self._answer_bytes > ANSWER_BYTES_MAX:
            raise IntegrityError(f"the engine's answer is over {ANSWER_BYTES_MAX} bytes")

    # endings

    def _take_refusal(self) -> None:
        """The engine answered with an error."""
        error = read_engine_error(self._endpoint, self._status, b"".join(self._parts))
        self._retry(error, is_final=error.http_status < 500)

    def _retry(self, error: AtollError, *, is_final: bool) -> None:
        """Another replica, or tell the client."""
        self._leave_replica()
        self._parts, self._answer_bytes, self._first_s = [], 0, None
        if self._events is not None:
            self._events = self._events.renewed()
        if is_final or not self._attempt():
            self._fail(error)

    def _fail(self, error: AtollError) -> None:
        if isinstance(error, ConnectFailed):
            error = self._nobody()
        self._settle("error", error.http_status, Tokens())
        self._gateway.answer_error(self._connection, error)

    def _break_off(self, error: AtollError) -> None:
        """The stream cannot go on: say so in the stream, and do not end it properly."""
        self._settle("error", 200, self._tokens())
        body = error_body(error.http_status, f"The answer broke off: {error.message}.", code=error.code)
        self._connection.break_off(b"data: %b\n\n" % body)

    def _finish_stream(self) -> None:
        assert self._events is not None
        rest = self._events.finish()
        connection = self._connection
        if not connection.is_started:
            connection.start(200, connection.date + _STREAM)
        self._settle("ok" if self._events.is_ended else "error", 200, self._events.tokens())
        connection.finish(rest)

    def _finish_whole(self) -> None:
        body = b"".join(self._parts)
        if self._events is None:
            tokens = find_usage(body)
        else:
            tokens = self._events.tokens()
            try:
                body = assemble(body + self._events.finish(), tokens)
            except IntegrityError as error:
                self._settle("error", error.http_status, tokens)
                self._gateway.answer_error(self._connection, error)
                return
        self._settle("ok", 200, tokens)
        self._connection.reply(200, body)

    def _nobody(self) -> Unavailable:
        """Why there is no replica to ask."""
        assert self._model is not None
        model = self._model
        reason = model.reason or "it has none"
        if model.replicas:
            reason = "none accepts connections now"
        wait_s = max(1.0, reopens_in_s(model.replicas, time.monotonic()))
        return Unavailable(
            f"The model {model.name!r} has no ready replica: {reason}.", code="no_replica", retry_after_s=wait_s
        )

    def _tokens(self) -> Tokens:
        """What is known to be used so far."""
        return self._events.tokens() if self._events is not None else Tokens()

    def _settle(self, outcome: str, http_status: int, tokens: Tokens | None) -> None:
        """Free everything and write the record; comes before the last byte of any answer."""
        gateway, model, replica, key = self._gateway, self._model, self._replica, self._key
        assert model is not None
        self._model = None
        self._leave_replica()
        self._forget_body()
        gateway.release(key)
        used = tokens or Tokens()
        duration_s = time.monotonic() - self._begun_s
        ttft_s = None if self._first_s is None else self._first_s - self._begun_s
        gateway.metrics.observe(self._endpoint.name, model.name, http_status, duration_s, ttft_s)
        if not self._tried:
            return
        gateway.metrics.use(model.name, tokens)
        gateway.journal.append(
            {
                "ts": time.time(),
                "request_id": self._request.request_id.decode(),
                "project": key.project,
                "key_id": key.id,
                "model": model.name,
                "deployment": model.deployment,
                "replica": (replica or self._tried[-1]).id,
                "endpoint": self._endpoint.name,
                "prompt_tokens": used.prompt,
                "completion_tokens": used.completion,
                "cached_tokens": used.cached,
                "status": outcome,
                "http_status": http_status,
                "stream": self._is_stream,
                "price": model.price,
                "ttft_s": ttft_s,
                "duration_s": duration_s,
            }
        )

    def _leave_replica(self) -> None:
        replica, self._replica, self._call = self._replica, None, None
        if replica is not None:
            replica.outstanding -= 1

    def _forget_body(self) -> None:
        self._gateway.body_bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = b""
