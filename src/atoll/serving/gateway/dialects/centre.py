"""Asking the server on behalf of a request, for the dialects whose conversations are kept there."""

from __future__ import annotations

from typing import Any

import orjson

from atoll.core.errors import AtollError, Unavailable, error_from_dict
from atoll.serving.gateway.upstream import Client, Origin, Patience, fetch

PATIENCE = Patience(connect_s=2.0, first_byte_s=10.0, idle_s=10.0)


class Centre:
    """The server as a gateway asks it, with the system key."""

    __slots__ = ("_client", "_secret", "_server")

    def __init__(self, client: Client, server: Origin, secret: str) -> None:
        self._client = client
        self._server = server
        self._secret = secret

    async def ask(self, method: str, path: str, value: object = None) -> dict[str, Any]:
        """The JSON object the server answers. Raises the server's own error, or Unavailable without a server."""
        body = b"" if value is None else orjson.dumps(value)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._server.authority.decode()}\r\n"
            f"authorization: Bearer {self._secret}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        answer = await fetch(self._client, self._server, head.encode() + body, PATIENCE)
        told = _object(answer.body)
        if answer.status != 200:
            raise _error(answer.status, told)
        return told


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _error(status: int, answer: dict[str, Any]) -> AtollError:
    told = answer.get("error")
    if not isinstance(told, dict):
        told = answer
    if status >= 500 or "message" not in told:
        return Unavailable(f"The server answered {status}.", retry_after_s=2.0)
    error = error_from_dict(told)
    error.http_status = status
    return error
