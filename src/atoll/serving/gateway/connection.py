"""Client connections: HTTP/1.1 over asyncio transports that outlives rude clients. Knows nothing of what is answered.

Promises to handlers: requests of a connection are served one after another, in order (pipelined ones wait unread);
every begun request ends in exactly one of an answer or `on_disconnect`. Promises to the process: a client that is
slow to send, slow to read, half closed or malformed loses its connection within the times of `Limits`, and leaves
nothing behind. A closed sending side counts as gone, so that an engine never works for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import deque

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from atoll.serving.gateway.http import BODILESS, JSON, Handler, Limits, Request, Service, origin_form, status_line

log = logging.getLogger(__name__)

NEVER = float("inf")
PIPELINED_MAX = 64
BACKLOG_BYTES_MAX = 64 * 1024  # beyond this we stop reading during an answer, and no longer see the client leave
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Server:
    """All connections of one service, their common clock tick, and draining."""

    def __init__(self, service: Service, limits: Limits | None = None) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.is_draining = False
        self.date = b""
        self.now = time.monotonic()
        self._id_prefix = os.urandom(6).hex().encode()
        self._id_count = 0
        self.tick()

    def connect(self) -> Connection:
        """A protocol for a new connection (the factory asyncio wants)."""
        return Connection(self)

    def tick(self) -> None:
        """Move the clock and end what is overdue; to be called about twice a second."""
        self.now = time.monotonic()
        self.date = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime()).encode()
        for connection in [c for c in self.connections if c.deadline < self.now]:
            connection.expire()

    def drain(self) -> None:
        """Close idle connections now and the others after their present answer."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    def abort(self) -> None:
        """Close every connection; unfinished requests are told of the disconnect."""
        for connection in list(self.connections):
            connection.abort()

    def identify(self, given: bytes | None) -> bytes:
        """The client's own request id if it is harmless, else a new one."""
        if given is not None and _SANE_ID.fullmatch(given):
            return given
        self._id_count += 1
        return b"req-%b-%x" % (self._id_prefix, self._id_count)


class Connection(asyncio.Protocol):
    """One client connection; handlers answer through `reply`, or `start`, `send` and `finish`."""

    __slots__ = (
        "_advancing",
        "_backlog",
        "_chunked",
        "_discarded",
        "_in_head",
        "_is_paused",
        "_is_stalled",
        "_parser",
        "_parsing",
        "_queue",
        "_refusal",
        "_server",
        "_silent_bytes",
        "current",
        "deadline",
        "handler",
        "is_closing",
        "is_started",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = HttpRequestParser(self)
        self._parsing: Request | None = None
        self._in_head = False
        self._refusal: tuple[int, str] | None = None
        self._silent_bytes = 0
        self._queue: deque[Request] = deque()
        self._backlog = b""
        self._discarded = 0
        self._advancing = False
        self._chunked = False
        self._is_paused = False
        self._is_stalled = False
        self.current: Request | None = None
        self.handler: Handler | None = None
        self.is_started = False
        self.is_closing = False
        self.deadline = server.now + server.limits.head_s

    # the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        server = self._server
        server.connections.add(self)
        if len(server.connections) > server.limits.connections_max:
            self._refusal = (503, f"The gateway has {server.limits.connections_max} connections, as many as it may.")
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._server.connections.discard(self)
        self._leave()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        if self.current is not None and self.current.complete:
            self._backlog += data
            if len(self._backlog) > BACKLOG_BYTES_MAX:
                self.pause_reading()
            return
        self._parse(data)
        self._advance()

    def pause_writing(self) -> None:
        self._is_stalled = True
        self.deadline = self._server.now + self._server.limits.write_stall_s
        if self.handler is not None:
            self.handler.on_pause()

    def resume_writing(self) -> None:
        self._is_stalled = False
        if self.is_closing:
            return
        self._set_deadline()
        if self.handler is not None:
            self.handler.on_resume()
        else:
            self._advance()

    @property
    def date(self) -> bytes:
        """The header line with the present time."""
        return self._server.date

    @property
    def peer(self) -> str:
        """The address of the socket's other end; empty when it has none."""
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    # the parser calls; these only take notes

    def on_url(self, url: bytes) -> None:
        if self._parsing is None:
            self._parsing = Request()
            self._in_head = True
            self.deadline = self._server.now + self._server.limits.head_s
        self._parsing.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head and self._parsing is not None:
            self._parsing.headers.append((name, value))

    def on_headers_complete(self) -> None:
        request, parser = self._parsing, self._parser
        assert request is not None
        request.method = parser.get_method()
        if parser.should_upgrade():
            return
        self._in_head = False
        request.keep_alive = parser.should_keep_alive()
        if parser.get_http_version() != "1.1":
            request.is_http10, request.keep_alive = True, False
        request.fields = {name.lower(): value for name, value in request.headers}
        request.path = origin_form(request.target).partition(b"?")[0]
        if self._silent_bytes > self._server.limits.head_bytes_max and self._is_head_too_large(request):
            self._refusal = self._too_large()
            return
        self._silent_bytes = 0
        self._queue.append(request)

    def on_body(self, data: bytes) -> None:
        assert self._parsing is not None
        self._silent_bytes = 0
        self._parsing.parts.append(data)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        assert self._parsing is not None
        self._silent_bytes = 0
        self._parsing.complete = True
        self._parsing = None

    # reading

    def _parse(self, data: bytes) -> None:
        """Feed the parser; what is wrong with the bytes ends the connection with a refusal."""
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(data[upgrade.args[0] :])
            return
        except HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except HttpParserError as error:
            self._refusal = (400, f"Malformed HTTP: {error}.")
        if self._silent_bytes > self._server.limits.head_bytes_max and self._refusal is None:
            self._refusal = self._too_large()
        if len(self._queue) > PIPELINED_MAX:
            self._refusal = (400, f"More than {PIPELINED_MAX} requests sent without reading an answer.")

    def _too_large(self) -> tuple[int, str]:
        return 431, f"The head is over {self._server.limits.head_bytes_max} bytes."

    def _is_head_too_large(self, request: Request) -> bool:
        size_bytes = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        return size_bytes > self._server.limits.head_bytes_max

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Read the request once more as if it had not asked for another protocol (RFC 9110, 7.8 allows that)."""
        request, self._parsing = self._parsing, None
        assert request is not None
        if request.method == b"CONNECT":
            self._refusal = (501, "CONNECT is not supported.")
            return
        kept = [h for h in request.headers if h[0].lower() not in (b"upgrade", b"connection", b"http2-settings")]
        lines = [b"%b %b HTTP/1.1" % (request.method, request.target), *(b"%b: %b" % header for header in kept)]
        self._parser = HttpRequestParser(self)
        self._parse(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _advance(self) -> None:
        """Serve what has been read, in order, until an answer or more bytes must be waited for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.is_closing and self._step():
                pass
        except Exception:
            log.exception("request failed", extra={"request_id": self.current and self.current.request_id.decode()})
            self._fail()
        finally:
            self._advancing = False
        if not self.is_closing:
            self._set_deadline()
            if self._refusal is not None:
                self._refuse_in_turn()

    def _step(self) -> bool:
        """Serve one request as far as it goes; False when there is nothing more to do now."""
        request = self.current
        if request is None:
            if self._is_stalled:
                return False
            if not self._queue:
                return self._read_backlog()
            request = self._begin(self._queue.popleft())
        if request.parts:
            self._deliver(request)
        if request.complete and not request.ended:
            request.ended = True
            if self.handler is not None:
                self.handler.on_end()
        if self.handler is not None or not request.complete:
            return False
        self.current, self.is_started = None, False
        return True

    def _begin(self, request: Request) -> Request:
        server = self._server
        self.current, self.is_started, self._discarded = request, False, 0
        request.request_id = server.identify(request.fields.get(b"x-request-id"))
        if server.is_draining:
            request.keep_alive = False
        handler = server.service.open(request, self)
        if not self.is_started:
            self.handler = handler
            if not request.complete and request.fields.get(b"expect", b"").lower() == b"100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return request

    def _deliver(self, request: Request) -> None:
        parts, request.parts = request.parts, []
        for part in parts:
            if self.handler is not None:
                self.handler.on_body(part)
            else:
                self._discarded += len(part)
        if self._discarded > self._server.limits.discard_bytes_max:
            self.abort()

    def _read_backlog(self) -> bool:
        data, self._backlog = self._backlog, b""
        if not data or self._refusal is not None:
            return False
        self.resume_reading()
        self._parse(data)
        return bool(self._queue)

    def pause_reading(self) -> None:
        """Leave further bytes of the client in the kernel; also blinds us to its leaving."""
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # answering

    def reply(self, status: int, body: bytes, headers: bytes = JSON) -> None:
        """Answer at once and whole. `headers` are complete lines."""
        request = self.current
        assert request is not None and not self.is_started
        self.is_started = True
        head = b"%b%b%b%bcontent-length: %d\r\n\r\n" % (
            status_line(status),
            self._server.date,
            headers,
            self._common(request),
            len(body),
        )
        self.transport.write(head if request.method == b"HEAD" else head + body)
        self._answered(request)

    def start(self, status: int, headers: bytes, *, length: int | None = None) -> None:
        """Begin an answer of `length` bytes, or of unknown length (chunked; until closed for HTTP/1.0)."""
        request = self.current
        assert request is not None and not self.is_started
        self.is_started = True
        bare = request.method == b"HEAD" or status in BODILESS
        self._chunked = length is None and not bare and not request.is_http10
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        if length is not None and status not in BODILESS:
            framing = b"content-length: %d\r\n" % length
        self.transport.write(b"%b%b%b%b\r\n" % (status_line(status), headers, self._common(request), framing))

    def send(self, data: bytes) -> None:
        """A further piece of a started answer."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self, data: bytes = b"") -> None:
        """The last piece of a started answer."""
        request = self.current
        assert request is not None and self.is_started
        if self._chunked:
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n")
        elif data:
            self.transport.write(data)
        self._answered(request)

    def break_off(self, data: bytes = b"") -> None:
        """End a started answer so that the client sees it is not whole."""
        self.handler = None
        if data:
            self.send(data)
        self._close()

    def abort(self) -> None:
        """Drop the connection now."""
        self._leave()
        self.is_closing = True
        self.transport.abort()

    def _common(self, request: Request) -> bytes:
        line = b"x-request-id: %b\r\n" % request.request_id
        return line if request.keep_alive else line + b"connection: close\r\n"

    def _answered(self, request: Request) -> None:
        self.handler = None
        if not request.complete:
            self.resume_reading()
        if not request.keep_alive:
            self._close()
        elif not self._advancing:
            self._advance()

    # ending

    def close_if_idle(self) -> None:
        if self.current is None and self._parsing is None and not self._queue:
            self._close()
        elif self.current is not None:
            self.current.keep_alive = False

    def expire(self) -> None:
        """The deadline has passed: tell a slow sender once, drop everybody else."""
        is_slow = self._parsing is not None and not self.is_closing and not self.is_started
        if not is_slow:
            self.abort()
            return
        self._leave()
        self._refusal = (408, "The request did not arrive in time.")
        self._refuse()

    def _refuse_in_turn(self) -> None:
        """Refuse once everything before the offence is answered; a request whose own body offends never ends."""
        if self._queue or (self.current is not None and self.current.complete):
            return
        self._leave()
        if self.is_started:
            self.abort()
        else:
            self._refuse()

    def _refuse(self) -> None:
        assert self._refusal is not None
        status, message = self._refusal
        server = self._server
        body = server.service.refuse(status, message)
        head = b"%b%b%bx-request-id: %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        request_id = self.current.request_id if self.current is not None else server.identify(None)
        self.transport.write(head % (status_line(status), server.date, JSON, request_id, len(body)) + body)
        self._close()

    def _fail(self) -> None:
        """Our own fault: say so if nothing was said yet, and give the connection up."""
        self._leave()
        if self.current is None or self.is_started:
            self.abort()
            return
        self._refusal = (500, "The gateway failed; the log has the details under this request's id.")
        self._refuse()

    def _close(self) -> None:
        """Close when everything is written; while the client still sends, read it away so that it sees the answer."""
        if self.is_closing:
            return
        self.is_closing = True
        is_sending = self._parsing is not None or self._refusal is not None
        limits = self._server.limits
        self.deadline = self._server.now + (limits.linger_s if is_sending else limits.write_stall_s)
        if is_sending and self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _leave(self) -> None:
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.on_disconnect()

    def _set_deadline(self) -> None:
        now, limits = self._server.now, self._server.limits
        if self._is_stalled:
            return
        if self.handler is not None and (self.current is None or self.current.complete or self._is_paused):
            self.deadline = NEVER
        elif self._parsing is None:
            self.deadline = now + limits.idle_s
        elif not self._in_head:
            self.deadline = now + limits.body_idle_s
        elif self.deadline > now + limits.head_s:
            self.deadline = now + limits.head_s
