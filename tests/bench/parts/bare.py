"""The least a gateway in Python can be: requests are parsed, passed to one engine on a kept connection, answers passed
back byte for byte. No key, no limit, no count, no choice. What it costs in the same rounds is the machine's own part.
`python -m bench.parts.bare PORT ENGINE_PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httptools
import uvloop

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: %d\r\n\r\n"


class Upstream(asyncio.Protocol):
    """A connection to the engine, for one client at a time."""

    idle: list[Upstream] = []  # noqa: RUF012 - shared by all on purpose
    port = 0

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.client: Client | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        client = self.client
        self.parser.feed_data(data)
        if client is not None:
            client.transport.write(data)

    def on_message_complete(self) -> None:
        self.client = None
        self.parser = httptools.HttpResponseParser(self)
        self.idle.append(self)


class Client(asyncio.Protocol):
    """A client's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        request = HEAD % len(body) + body
        if Upstream.idle:
            self.ask(Upstream.idle.pop(), request)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self.connect(request))

    async def connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(Upstream, "127.0.0.1", Upstream.port)
        self.ask(upstream, request)

    def ask(self, upstream: Upstream, request: bytes) -> None:
        upstream.client = self
        upstream.transport.write(request)


async def run(port: int, engine_port: int) -> None:
    """Serve until killed."""
    Upstream.port = engine_port
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), int(sys.argv[2])))
