"""A pooled HTTP/1.1 client for engines and the server, built for many streams at once.

Promises to receivers: after `open`, exactly one of `on_complete` and `on_failure` comes, unless the call is aborted
first; then nothing comes any more and the upstream connection is closed, which is how an engine learns to stop. A kept
connection that turns out to be dead before one byte of the answer came is replaced once, unseen, when the whole request
is at hand. Knows nothing of routing, retries on other addresses, or what bodies mean.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from atoll.core.errors import AtollError, Invalid

log = logging.getLogger(__name__)

NEVER = float("inf")
IDLE_PER_ORIGIN_MAX = 256
KEPT_S = 4.0  # llama.cpp closes idle connections after 5 s, uvicorn too


class UpstreamError(AtollError):
    """The answer did not come, or not whole."""

    code = "bad_gateway"
    http_status = 502


class ConnectFailed(UpstreamError):
    """No connection: nothing of the request was seen by anybody."""

    code = "connect_failed"
    http_status = 503


class Stalled(UpstreamError):
    """No byte within the time allowed."""

    code = "gateway_timeout"
    http_status = 504


class Broken(UpstreamError):
    """The connection ended or spoke nonsense before the answer was whole."""

    code = "upstream_broken"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds."""

    connect_s: float = 2.0
    first_byte_s: float = 600.0
    idle_s: float = 120.0


Headers = list[tuple[bytes, bytes]]


class Receiver(Protocol):
    """Who gets the answer. Calls come on the event loop."""

    def on_response(self, status: int, headers: Headers) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_complete(self) -> None: ...

    def on_failure(self, error: UpstreamError) -> None: ...

    def on_upload_pause(self) -> None:
        """The upstream reads slower than it is written to; stop until on_upload_resume."""

    def on_upload_resume(self) -> None: ...


class Origin:
    """One address and the idle connections to it."""

    __slots__ = ("authority", "host", "idle", "port", "tls")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"{url!r} is no http:// or https:// address", field="url")
        self.host = parts.hostname
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.idle: list[Link] = []

    def take_idle(self) -> Link | None:
        """The most recently used connection that still looks alive."""
        while self.idle:
            link = self.idle.pop()
            if not link.transport.is_closing():
                return link
        return None

    def close(self) -> None:
        """Close the idle connections."""
        while self.idle:
            self.idle.pop().transport.close()


class Call:
    """One request under way; what its owner holds to stop, slow or feed it."""

    __slots__ = (
        "_client",
        "_connecting",
        "deadline",
        "is_head",
        "is_sent",
        "link",
        "origin",
        "patience",
        "receiver",
        "request",
    )

    def __init__(
        self, client: Client, origin: Origin, request: bytes, receiver: Receiver, patience: Patience, is_head: bool
    ) -> None:
        self._client = client
        self.origin = origin
        self.request = request
        self.receiver: Receiver | None = receiver
        self.patience = patience
        self.is_head = is_head
        self.is_sent = True  # False while the body is still being written
        self.link: Link | None = None
        self.deadline = NEVER
        self._connecting: asyncio.Task[None] | None = None

    def abort(self) -> None:
        """Forget the answer and close the connection, at once."""
        self.receiver = None
        self._client.calls.discard(self)
        if self.link is not None:
            self.link.drop()

    def pause(self) -> None:
        """Let the upstream wait; the time allowed stands still."""
        self.deadline = NEVER
        if self.link is not None and not self.link.transport.is_closing():
            self.link.transport.pause_reading()

    def resume(self) -> None:
        self.deadline = self._client.now + self.patience.idle_s
        if self.link is not None and not self.link.transport.is_closing():
            self.link.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """A further piece of the request's body."""
        if self.link is not None:
            self.link.transport.write(data)
            self.deadline = self._client.now + self.patience.first_byte_s
        else:
            self.request += data

    def connect(self) -> None:
        """Open a connection of its own and send the request there."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """Never cancelled: a loop that is cancelled between making a connection and returning it tells nobody of it."""
        loop, origin = asyncio.get_running_loop(), self.origin
        link = Link(self._client, origin)
        try:
            async with asyncio.timeout(self.patience.connect_s):
                await loop.create_connection(lambda: link, origin.host, origin.port, ssl=origin.tls)
        except (OSError, TimeoutError) as error:
            self._client.links.discard(link)
            reason = str(error) or f"no answer within {self.patience.connect_s} s"
            self.fail(ConnectFailed(f"cannot connect to {origin.authority.decode()}: {reason}"))
        else:
            if self.receiver is None:
                link.transport.abort()
            else:
                self.send_on(link)
                self.receiver.on_upload_resume()
        finally:
            self._connecting = None

    def send_on(self, link: Link) -> None:
        """Give the request to a connection."""
        self.link, link.call = link, self
        self.deadline = self._client.now + self.patience.first_byte_s
        link.transport.write(self.request)

    def fail(self, error: UpstreamError) -> None:
        """End the call with an error."""
        receiver, self.receiver = self.receiver, None
        self._client.calls.discard(self)
        if self.link is not None:
            self.link.drop()
        if receiver is not None:
            receiver.on_failure(error)


class Link(asyncio.Protocol):
    """One connection to an origin; carries one call at a time."""

    __slots__ = (
        "_client",
        "_headers",
        "_is_done",
        "_is_interim",
        "_keeps_alive",
        "_origin",
        "_parser",
        "_parts",
        "_status",
        "_was_announced",
        "call",
        "is_reused",
        "keep_until",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, client: Client, origin: Origin) -> None:
        self._client = client
        self._origin = origin
        self._parser = HttpResponseParser(self)
        self.call: Call | None = None
        self.is_reused = False
        self.keep_until = NEVER
        self._reset()

    def _reset(self) -> None:
        self._status = 0
        self._headers: Headers = []
        self._parts: list[bytes] = []
        self._is_done = False
        self._is_interim = False
        self._keeps_alive = False
        self._was_announced = False

    # the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._client.links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.links.discard(self)
        if self in self._origin.idle:
            self._origin.idle.remove(self)
        call = self.call
        if call is None:
            return
        self.call = None
        call.link = None
        if self._was_announced and self._ends_with_connection():
            self._complete(call)
        elif self.is_reused:
            call.connect()
        else:
            when = "in the middle of" if self._was_announced else "before"
            call.fail(Broken(f"{self._origin.authority.decode()} closed the connection {when} its answer"))

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.transport.abort()
            return
        self.is_reused = False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._is_done = False
            call.fail(Broken(f"{self._origin.authority.decode()} sent no proper HTTP: {error}"))
            return
        call.deadline = self._client.now + call.patience.idle_s
        receiver = call.receiver
        try:
            self._pass_on(call)
        except Exception:
            log.exception("answer could not be passed on")
            call.receiver = receiver  # it may have been parted from just before it failed
            call.fail(Broken("the gateway failed while passing on an answer"))

    def pause_writing(self) -> None:
        if self.call is not None and self.call.receiver is not None:
            self.call.receiver.on_upload_pause()

    def resume_writing(self) -> None:
        if self.call is not None and self.call.receiver is not None:
            self.call.receiver.on_upload_resume()

    # the parser calls; these only take notes

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._is_interim = True
        else:
            self._status = status
            self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            self._headers = []
        else:
            self._is_done = True

    # passing on

    def _pass_on(self, call: Call) -> None:
        """Hand what was read to the receiver, in order; it may abort the call at any step."""
        if not self._status:
            return
        receiver = call.receiver
        if receiver is None:
            return
        if not self._was_announced:
            self._was_announced = True
            call.request = b""
            receiver.on_response(self._status, self._headers)
            self._is_done = self._is_done or call.is_head
        if self._parts and call.receiver is not None:
            parts = self._parts
            self._parts = []
            receiver.on_data(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._is_done and call.receiver is not None:
            self._release(call)
            self._complete(call)

    def _complete(self, call: Call) -> None:
        receiver, call.receiver = call.receiver, None
        self._client.calls.discard(call)
        if receiver is not None:
            receiver.on_complete()

    def _release(self, call: Call) -> None:
        """Part from the call; stay for the next one if both sides can."""
        self.call = call.link = None
        stays = self._keeps_alive and call.is_sent and not call.is_head
        if not stays or not self._client.keep(self, self._origin):
            self.transport.close()
            return
        self.is_reused = True
        self._reset()

    def _ends_with_connection(self) -> bool:
        """Whether the answer had no length of its own (RFC 9112, 6.3)."""
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def drop(self) -> None:
        """Close without waiting; the other side sees the connection end."""
        if self.call is not None:
            self.call.link = None
            self.call = None
        self.transport.abort()


class Client:
    """All upstream calls of this process; `tick` about twice a second enforces their times."""

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        self.links: set[Link] = set()
        self.now = time.monotonic()

    def open(
        self,
        origin: Origin,
        request: bytes,
        receiver: Receiver,
        patience: Patience,
        *,
        is_head: bool = False,
        is_pooled: bool = True,
    ) -> Call:
        """Send `request` (head and what is there of the body); answers go to `receiver`, never before this returns.

        `is_pooled` False takes a fresh connection: for requests whose body could not be sent a second time.
        """
        call = Call(self, origin, request, receiver, patience, is_head)
        self.calls.add(call)
        link = origin.take_idle() if is_pooled else None
        if link is not None:
            call.send_on(link)
        else:
            call.connect()
        return call

    def keep(self, link: Link, origin: Origin) -> bool:
        """Take a connection back into the pool, if there is room."""
        if len(origin.idle) >= IDLE_PER_ORIGIN_MAX or link.transport.is_closing():
            return False
        link.keep_until = self.now + KEPT_S
        origin.idle.append(link)
        return True

    def tick(self) -> None:
        """Move the clock; fail what waited too long; close what idled too long."""
        self.now = time.monotonic()
        for call in [c for c in self.calls if c.deadline < self.now]:
            call.fail(Stalled(f"{call.origin.authority.decode()} sent nothing within the time allowed"))
        for link in [k for k in self.links if k.call is None and k.keep_until < self.now]:
            link.transport.close()

    def close(self) -> None:
        """Abort everything."""
        for call in list(self.calls):
            call.abort()
        for link in list(self.links):
            link.transport.abort()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer to `fetch`."""

    status: int
    body: bytes


class _Collector:
    """Gathers a whole answer for somebody who awaits it; its requests are small, so uploads never pause."""

    def __init__(self, body_bytes_max: int) -> None:
        self.whole: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._body_bytes_max = body_bytes_max
        self._status = 0
        self._body = bytearray()

    def on_response(self, status: int, headers: Headers) -> None:
        self._status = status

    def on_data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._body_bytes_max:
            raise ValueError(f"answer over {self._body_bytes_max} bytes")

    def on_complete(self) -> None:
        if not self.whole.done():
            self.whole.set_result(Answer(self._status, bytes(self._body)))

    def on_failure(self, error: UpstreamError) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)

    def on_upload_pause(self) -> None:
        pass

    def on_upload_resume(self) -> None:
        pass


async def fetch(
    client: Client, origin: Origin, request: bytes, patience: Patience, *, body_bytes_max: int = 256 * 1024 * 1024
) -> Answer:
    """The whole answer to `request`; raises UpstreamError. Cancelling it aborts the call."""
    collector = _Collector(body_bytes_max)
    call = client.open(origin, request, collector, patience)
    try:
        return await collector.whole
    finally:
        call.abort()
