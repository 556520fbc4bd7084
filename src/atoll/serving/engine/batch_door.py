"""The door as a batch sees it: one request at a time on a kept connection, and what its answer means.

An answer is done (good or bad), or to be asked again later. Nothing is retried here.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

ANSWER_S = 900.0
ANSWER_BYTES_MAX = 64 << 20
AGAIN_S = 2.0
AGAIN_S_MAX = 15.0
"""A longer wait is cut to this: what was in the way may be gone sooner, and asking once costs little."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door said. `status` 0: it was not reached, `words` say why."""

    status: int
    body: Any
    retry_after_s: float
    request_id: str
    words: str

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_push_back(self) -> bool:
        """Whether the same request may be answered later: the door is away, busy, or has no replica now."""
        return self.status in (0, 429, 503)


class Door:
    """A kept connection to `url` with `key`; for one thread."""

    def __init__(self, url: str, key: str, timeout_s: float = ANSWER_S) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}

    def ask(self, path: str, body: bytes, request_id: str, project: str) -> Answer:
        """POST a request of the batch."""
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id, "X-Atoll-Priority": "batch"}
        return self._call("POST", path, body, headers | {"OpenAI-Project": project})

    def read(self, path: str) -> Answer:
        """GET something."""
        return self._call("GET", path, None, {})

    def find_model(self, model: str, project: str) -> Answer:
        """Whether the door knows `model`."""
        return self._call("GET", f"/v1/models/{quote(model, safe='')}", None, {"OpenAI-Project": project})

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        try:
            self._connection.request(method, self._prefix + path, body, self._headers | headers)
            response = self._connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, None, AGAIN_S, "", f"the door was not reached: {error or type(error).__name__}")
        if len(data) > ANSWER_BYTES_MAX:
            self._connection.close()
            return Answer(502, None, AGAIN_S, "", f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        value = _decoded(data)
        request_id = response.headers.get("x-request-id") or ""
        return Answer(response.status, value, _wait_s(response.headers), request_id, _words(response.status, value))


def _decoded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return {"error": {"message": data[:500].decode(errors="replace"), "type": "invalid_answer"}}


def _wait_s(headers: http.client.HTTPMessage) -> float:
    text = headers.get("retry-after") or ""
    return min(AGAIN_S_MAX, float(text)) if text.isdigit() else AGAIN_S


def _words(status: int, value: Any) -> str:
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return f"{status}: {message}" if message else str(status)
