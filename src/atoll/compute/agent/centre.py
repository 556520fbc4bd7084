"""One kept-alive HTTP connection to the centre, outbound only: JSON in, JSON out.

Every failure comes out as an AtollError: Unavailable when the next try may do better, Fenced when a newer agent has
this node, NotFound when the centre does not know the node, the plain error otherwise. It does not try again by
itself, but for a kept-alive connection the centre had closed meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from atoll.core.errors import AtollError, Invalid, Unavailable, error_from_dict

CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 256 << 20
_CODES = {400: "invalid", 401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict", 413: "too_large"}
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Centre:
    """Posts to `url`/api/v1/…; `key` is asked for at each connection, so that a changed key file takes effect."""

    def __init__(self, url: str, key: Callable[[], str]) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(f"{url!r} is not the address of a centre", field="join", hint="http://host:port")
        self._host, self._port, self._is_tls = parts.hostname, parts.port, parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._key = key
        self._connection: http.client.HTTPConnection | None = None
        self._headers: dict[str, str] = {}
        self._has_ended = False

    def post(self, path: str, body: Mapping[str, Any], answer_timeout_s: float = 20.0) -> dict[str, Any]:
        """The centre's answer to `body` at /api/v1/`path`."""
        data = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
        for may_be_stale in (self._connection is not None, False):
            try:
                return self._exchange(path, data, answer_timeout_s)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not (may_be_stale and isinstance(error, _STALE)):
                    words = f"the centre at {self._host} cannot be reached: {error!r}"
                    raise Unavailable(words, retry_after_s=0.0) from error
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close the connection; the next post opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def end(self) -> None:
        """Close for good, from any thread: a post that waits fails at once, and so does every later one."""
        self._has_ended = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _exchange(self, path: str, data: bytes, answer_timeout_s: float) -> dict[str, Any]:
        connection = self._connected()
        connection.sock.settimeout(answer_timeout_s)
        connection.request("POST", f"{self._prefix}/api/v1/{path}", data, self._headers)
        answer = connection.getresponse()
        content = answer.read(ANSWER_BYTES_MAX + 1)
        if len(content) > ANSWER_BYTES_MAX:
            raise http.client.HTTPException(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        if answer.will_close:
            self.close()
        return _value(path, answer.status, content, answer.getheader("Retry-After"))

    def _connected(self) -> http.client.HTTPConnection:
        if self._has_ended:
            raise http.client.NotConnected("this connection has ended")
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
            connection.connect()
            self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key()}"}
            self._connection = connection
        return self._connection


def _value(path: str, status: int, content: bytes, retry_after: str | None) -> dict[str, Any]:
    """The object in an answer, or the error it is, raised."""
    try:
        value = orjson.loads(content or b"{}")
    except orjson.JSONDecodeError:
        value = None
    if 200 <= status < 300 and isinstance(value, dict):
        return value
    if status >= 500 or status in (408, 429) or 200 <= status < 300:
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        raise Unavailable(f"the centre answered {path} with {status}: {_excerpt(content)}", retry_after_s=wait_s)
    raise _error(path, status, value, content)


def _error(path: str, status: int, value: Any, content: bytes) -> AtollError:
    details = value.get("error", value) if isinstance(value, dict) else {}
    details = details if isinstance(details, dict) else {}
    message = details.get("message") or f"the centre answered {path} with {status}: {_excerpt(content)}"
    error = error_from_dict({**details, "message": message})
    return error if type(error) is not AtollError else error_from_dict({"code": _CODES.get(status), "message": message})


def _excerpt(content: bytes) -> str:
    return content[:200].decode(errors="replace")
