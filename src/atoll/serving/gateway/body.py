"""A request's body as it gathers, counted among all the bodies the gateway holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.core.errors import TooLarge, Unavailable

if TYPE_CHECKING:
    from atoll.serving.gateway.app import Gateway

BODIES_BYTES_MAX = 256 * 1024 * 1024


class Body:
    """`add` what comes, `take` it when it is whole, `forget` it when nobody needs it any more."""

    __slots__ = ("_gateway", "_parts", "size_bytes")

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def add(self, data: bytes) -> None:
        """A further piece; raises TooLarge or Unavailable."""
        self.size_bytes += len(data)
        self._gateway.body_bytes += len(data)
        self._parts.append(data)
        limit = self._gateway.directory.snapshot.bounds.body_bytes_max
        if self.size_bytes > limit:
            raise TooLarge(f"The body is over {limit} bytes.")
        if self._gateway.body_bytes > BODIES_BYTES_MAX:
            raise Unavailable("The gateway holds as many request bodies as it can.", retry_after_s=1.0)

    def take(self) -> bytes:
        """The whole body, once. It stays counted: what is made of it is at least as large."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def forget(self) -> None:
        self._gateway.body_bytes -= self.size_bytes
        self.size_bytes = 0
        self._parts = []
