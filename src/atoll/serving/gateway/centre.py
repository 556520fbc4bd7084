"""How a gateway's own messages reach the server: one JSON POST with the system key. Retries are the caller's."""

from __future__ import annotations

from typing import Any

import orjson

from atoll.core.errors import Invalid
from atoll.serving.gateway.upstream import Client, Origin, Patience, fetch

PATIENCE = Patience(first_byte_s=30.0, idle_s=30.0)


class Refused(Invalid):
    """The server answered, but not with 200; `status` says how."""

    code = "server_refused"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the server answered {status}: {body[:200].decode(errors='replace')}")
        self.status = status


async def post(
    client: Client, server: Origin, secret: str, path: str, body: bytes, patience: Patience = PATIENCE
) -> dict[str, Any]:
    """The server's JSON answer; raises Refused, or UpstreamError when none came."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {server.authority.decode()}\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    answer = await fetch(client, server, head + body, patience)
    if answer.status != 200:
        raise Refused(answer.status, answer.body)
    try:
        value = orjson.loads(answer.body)
    except ValueError as error:
        raise Invalid(f"the server's answer to {path} is no JSON: {answer.body[:200]!r}") from error
    if not isinstance(value, dict):
        raise Invalid(f"the server's answer to {path} is no object: {answer.body[:200]!r}")
    return value
