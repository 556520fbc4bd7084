"""A closed loop of HTTP requests on raw connections: as little of its own cost as Python allows."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import httptools


@dataclass(frozen=True, slots=True)
class Door:
    """Where to ask: port, path and key."""

    port: int
    key: str
    path: str = "/v1/chat/completions"

    def request(self, body: dict[str, Any]) -> bytes:
        """The bytes of one POST."""
        data = json.dumps(body).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self.key}\r\naccept: */*\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


@dataclass
class Tally:
    """What a round of load saw; times in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    first_bytes_s: list[float] = field(default_factory=list)
    events: int = 0
    failures: int = 0
    wall_s: float = 0.0

    @property
    def median_s(self) -> float:
        return statistics.median(self.latencies_s)


class Asker(asyncio.Protocol):
    """Asks again as soon as it is answered, while there is something left to ask; on a new connection where the
    answer says that this one ends, or it was closed unused. Lost in the middle of an answer is a failure."""

    def __init__(self, port: int, request: bytes, tally: Tally, more: Any, done: asyncio.Future[None]) -> None:
        self.port, self.request, self.tally, self.more, self.done = port, request, tally, more, done
        self.is_asking, self.is_reused = False, False

    async def connect(self) -> None:
        """Open a connection and ask on it."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parser = httptools.HttpResponseParser(self)
        self.ask()

    def ask(self) -> None:
        self.asked_s = time.perf_counter()
        self.first_s = 0.0
        self.is_asking = True
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.tally.events += data.count(b"data: {")
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        self.is_asking = False
        self.tally.latencies_s.append(now_s - self.asked_s)
        self.tally.first_bytes_s.append((self.first_s or now_s) - self.asked_s)
        self.tally.failures += self.parser.get_status_code() != 200
        if not self.more():
            self.done.set_result(None)
            self.transport.close()
        elif self.parser.should_keep_alive():
            self.is_reused = True
            self.ask()
        else:
            self.transport.close()
            self._go_on()

    def _go_on(self) -> None:
        successor = Asker(self.port, self.request, self.tally, self.more, self.done)
        self.connecting = asyncio.get_running_loop().create_task(successor.connect())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_asking:
            return
        if self.is_reused and not self.first_s:
            self._go_on()  # closed while the request was on its way: as every client does
        else:
            self.tally.failures += 1
            self.done.set_result(None)


async def _run(door: Door, bodies: list[dict[str, Any]], more: Any) -> Tally:
    loop, tally, began_s = asyncio.get_running_loop(), Tally(), time.perf_counter()
    waiting = []
    for body in bodies:
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await Asker(door.port, door.request(body), tally, more, done).connect()
    await asyncio.gather(*waiting)
    tally.wall_s = time.perf_counter() - began_s
    return tally


async def load_for(door: Door, body: dict[str, Any], connections: int, seconds: float) -> Tally:
    """As many requests as fit into `seconds`, one under way on each connection."""
    ends_s = time.perf_counter() + seconds
    return await _run(door, [body] * connections, lambda: time.perf_counter() < ends_s)


async def load_count(door: Door, bodies: list[dict[str, Any]], requests: int) -> Tally:
    """Exactly `requests` (at least one for each body), each body on a connection of its own."""
    left = [requests - len(bodies)]

    def more() -> bool:
        left[0] -= 1
        return left[0] >= 0

    return await _run(door, bodies, more)
