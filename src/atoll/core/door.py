"""The platform's door over HTTP: one question at a time on a kept connection, and what became of it.

Nothing is asked twice here; a reply says whether the same question may be answered later. What the door is asked for is
not known. A good answer is a JSON object; a door that answers anything else is broken.
"""

from __future__ import annotations

import http.client
import selectors
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

AWAY, CUT_OFF, TOO_LONG, NOT_JSON = 0, 600, 601, 602
"""Statuses of our own, which HTTP has not (RFC 9110, section 15): the door was not reached; its answer ended before its
time; was longer than we read; was good by its status, yet no JSON object."""

ANSWER_S = 900.0
ANSWER_BYTES_MAX = 64 << 20
AGAIN_S_MAX = 15.0
"""A longer wait is cut to this: what was in the way may be gone sooner, and asking once costs little."""

QUOTA = "insufficient_quota"
SHOWN = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a question. `again_s`: for how long the door wants to be left alone; `words` are for people.

    `body` is the answer's JSON object; of what is none, and of our own statuses, an error with the words.
    """

    status: int
    body: dict[str, Any]
    again_s: float
    request_id: str
    words: str

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_push_back(self) -> bool:
        """Whether the same question may be answered later: the door is away or busy, or has nobody to answer now."""
        return self.status in (AWAY, 429, 503)

    @property
    def is_exhausted(self) -> bool:
        """Whether a budget is used up."""
        return self.status in (402, 429) and _error_of(self.body).get("code") == QUOTA

    @property
    def is_broken(self) -> bool:
        """Whether the door, or who answers behind it, failed, which another try may mend."""
        return self.status >= 500 and self.status != 503


class Door:
    """A kept connection to `url` with `key`; for one thread.

    headers: sent with every question. again_s: how long to leave the door alone where it says nothing of it.
    timeout_s: for each wait on the network, not for a whole answer.
    """

    def __init__(
        self,
        url: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        *,
        again_s: float = 0.0,
        timeout_s: float = ANSWER_S,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json", **(headers or {})}
        self._again_s = again_s
        self._bytes_max = answer_bytes_max

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask once. `body` is JSON. What goes wrong on the way is a reply, never an error."""
        sent = {**self._headers, **(headers or {})} | ({} if body is None else {"Content-Type": "application/json"})
        try:
            self._connect()
        except OSError as error:
            return self._failed(AWAY, f"the door was not reached: {_named(error)}")
        try:
            self._connection.request(method, self._prefix + path, body, sent)
            response = self._connection.getresponse()
            data = response.read(self._bytes_max + 1)
        except (OSError, http.client.HTTPException) as error:
            return self._failed(CUT_OFF, f"the answer was cut off: {_named(error)}")
        if len(data) > self._bytes_max:
            return self._failed(TOO_LONG, f"the answer is longer than {self._bytes_max} bytes")
        if response.length:
            return self._failed(CUT_OFF, f"the answer was cut off: {response.length} bytes of it are missing")
        return self._reply(response, data)

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> None:
        """Connect unless the kept connection still stands: one the door has hung up would lose the question."""
        if self._connection.sock is not None and _is_hung_up(self._connection.sock):
            self._connection.close()
        if self._connection.sock is None:
            self._connection.connect()

    def _reply(self, response: http.client.HTTPResponse, data: bytes) -> Reply:
        value, shown = _object(data), data[:SHOWN].decode(errors="replace")
        if value is None and 200 <= response.status < 300:
            return self._failed(NOT_JSON, f"the answer is not a JSON object: {shown}")
        body = _error(shown) if value is None else value
        words = f"{response.status}: {_error_of(body).get('message') or shown}"
        waiting = response.headers.get("retry-after") or ""
        again_s = min(AGAIN_S_MAX, float(waiting)) if waiting.isdecimal() else self._again_s
        return Reply(response.status, body, again_s, response.headers.get("x-request-id") or "", words)

    def _failed(self, status: int, words: str) -> Reply:
        self._connection.close()
        return Reply(status, _error(words), self._again_s, "", words)


def _is_hung_up(connection: socket.socket) -> bool:
    """Whether there is something to read before anything was asked, which is the end of the connection."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_answer"}}


def _error_of(body: Mapping[str, Any]) -> dict[str, Any]:
    error = body.get("error")
    return error if isinstance(error, dict) else {}


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
