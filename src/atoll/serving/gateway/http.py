"""What HTTP/1.1 means to the gateway: requests, handlers, and how much one client may take. Opens no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from atoll.serving.gateway.connection import Connection

JSON = b"content-type: application/json\r\n"
BODILESS = frozenset((204, 304))
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take; times in seconds, sizes in bytes."""

    head_bytes_max: int = 64 * 1024
    head_s: float = 10.0
    body_idle_s: float = 30.0
    idle_s: float = 75.0
    write_stall_s: float = 60.0
    linger_s: float = 2.0
    discard_bytes_max: int = 64 * 1024 * 1024
    connections_max: int = 10_000


class Request:
    """One request as it came. `target` and `headers` are the client's own bytes; `fields` has lower-case names."""

    __slots__ = (
        "complete",
        "ended",
        "fields",
        "headers",
        "is_http10",
        "keep_alive",
        "method",
        "parts",
        "path",
        "request_id",
        "target",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.keep_alive = False
        self.is_http10 = False
        self.request_id = b""
        self.parts: list[bytes] = []
        self.complete = False
        self.ended = False

    @property
    def content_length(self) -> int | None:
        """The announced size of the body; None when chunked or absent."""
        value = self.fields.get(b"content-length")
        return int(value) if value else None

    @property
    def has_body(self) -> bool:
        return b"transfer-encoding" in self.fields or bool(self.content_length)


class Handler(Protocol):
    """What serves one request. Calls come on the event loop; on_disconnect is the last one, if it comes."""

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_disconnect(self) -> None: ...

    def on_pause(self) -> None:
        """The client reads slower than it is written to; stop until on_resume."""

    def on_resume(self) -> None: ...


class Service(Protocol):
    """What the connections serve."""

    def open(self, request: Request, connection: Connection) -> Handler:
        """The handler of a request whose head has been read; it may answer at once."""

    def refuse(self, status: int, message: str) -> bytes:
        """The body of an answer to something that is no proper request."""


def origin_form(target: bytes) -> bytes:
    """The path and query of a request target; the absolute form is only for proxies, but must be understood."""
    if target.startswith(b"/") or b"://" not in target:
        return target
    _, _, rest = target.partition(b"://")
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
