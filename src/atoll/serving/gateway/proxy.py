"""Everything that is not the gateway's own passes to the server: both ways at once, byte for byte, as it comes.

Only what HTTP says belongs to one connection is changed (RFC 9110, 7.6.1), and the usual x-forwarded lines are added.
Nothing is buffered beyond what is on its way, so event streams and uploads of any size pass. A server that is down
or silent is a 503 with Retry-After.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.core.errors import Unavailable
from atoll.serving.gateway.connection import Connection
from atoll.serving.gateway.http import Request
from atoll.serving.gateway.upstream import Call, Headers, Patience, UpstreamError

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

PATIENCE = Patience(connect_s=2.0, first_byte_s=90.0, idle_s=300.0)
_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS")
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)


def passed_on(headers: Headers) -> Headers:
    """The end-to-end headers, in order: without hop-by-hop ones and those that Connection names."""
    named = {
        name.strip().lower()
        for header, value in headers
        if header.lower() == b"connection"
        for name in value.split(b",")
    }
    dropped = _HOP_BY_HOP | named
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Passage:
    """Handler of the client's request and receiver of the server's answer."""

    __slots__ = ("_call", "_connection", "_gateway", "_is_chunked", "_request")

    def __init__(self, gateway: Gateway, connection: Connection, request: Request) -> None:
        self._gateway = gateway
        self._connection = connection
        self._request = request
        self._is_chunked = b"transfer-encoding" in request.fields
        self._call: Call | None
        self._call = gateway.client.open(
            gateway.server,
            self._head(),
            self,
            PATIENCE,
            is_head=request.method == b"HEAD",
            is_pooled=request.method in _REPEATABLE and not request.has_body,
        )
        self._call.is_sent = not request.has_body

    def _head(self) -> bytes:
        request = self._request
        fields = request.fields
        peer = self._connection.peer.encode()
        forwarded = fields.get(b"x-forwarded-for")
        headers = [h for h in passed_on(request.headers) if h[0].lower() not in (b"x-forwarded-for", b"x-request-id")]
        headers.append((b"x-forwarded-for", b"%b, %b" % (forwarded, peer) if forwarded else peer))
        headers.append((b"x-request-id", request.request_id))
        if b"x-forwarded-proto" not in fields:
            headers.append((b"x-forwarded-proto", b"http"))
        if self._is_chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, request.target, lines(headers))

    # the client's side

    def on_body(self, data: bytes) -> None:
        if self._call is None:
            return
        self._call.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        if self._call.link is None:
            self.on_upload_pause()  # not connected yet

    def on_end(self) -> None:
        if self._call is None:
            return
        if self._is_chunked:
            self._call.write(b"0\r\n\r\n")
        self._call.is_sent = True

    def on_disconnect(self) -> None:
        if self._call is not None:
            self._call.abort()
            self._call = None
            self._gateway.metrics.count("proxy", "", 499)

    def on_pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def on_resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    # the server's side

    def on_upload_pause(self) -> None:
        self._connection.pause_reading()

    def on_upload_resume(self) -> None:
        self._connection.resume_reading()

    def on_response(self, status: int, headers: Headers) -> None:
        length = None
        kept: Headers = []
        for name, value in passed_on(headers):
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower != b"x-request-id":
                kept.append((name, value))
        self._gateway.metrics.count("proxy", "", status)
        self._connection.start(status, lines(kept), length=length)

    def on_data(self, data: bytes) -> None:
        self._connection.send(data)

    def on_complete(self) -> None:
        self._call = None
        self._connection.finish()

    def on_failure(self, error: UpstreamError) -> None:
        self._call = None
        if self._connection.is_started:
            self._connection.break_off()
            return
        later = Unavailable(f"The server cannot answer: {error.message}.", retry_after_s=2.0, code="server_unavailable")
        self._gateway.refuse_request(self._connection, None, later)
