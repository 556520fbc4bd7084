"""Bench `gateway`: what one request costs the gateway. `python tests/bench/gateway.py`; JSON on the last line.

Three processes: the gateway under test; a world around it (an engine that answers at once, with events as llama.cpp
sends them, and a server that hands out the snapshot and takes usage); and this one, which sends the load. Everything
counts: authentication, routing, the usage journal with its fsyncs, shipping. CPU time is the gateway process' own
(/proc/PID/stat, all threads), the median over rounds, so a busy machine shifts it little; `added_ms_p50_c1` is a
difference of two medians of wall times and shifts more. The other two processes share one core where there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import uvloop

KEY, SYSTEM_KEY, MODEL = "sk-bench", "system", "bench"
WHOLE_TOKENS, STREAM_EVENTS, GAP_S = 32, 64, 0.01
ROUNDS, ROUND_S = 5, 2.0


def timings(count: int) -> dict[str, Any]:
    return {
        "cache_n": 24,
        "prompt_n": 12,
        "prompt_ms": 81.78,
        "prompt_per_token_ms": 6.815,
        "prompt_per_second": 146.73514306676446,
        "predicted_n": count,
        "predicted_ms": 25.3 * count,
        "predicted_per_token_ms": 25.3,
        "predicted_per_second": 39.525691699604744,
    }


def event(choices: list[Any], **more: Any) -> bytes:
    value = {
        "choices": choices,
        "created": 1,
        "id": "chatcmpl-bench",
        "model": MODEL,
        "object": "chat.completion.chunk",
    }
    data = b"data: " + json.dumps(value | more, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def usage(count: int) -> dict[str, Any]:
    return {"completion_tokens": count, "prompt_tokens": 36, "total_tokens": 36 + count}


def frames() -> list[bytes]:
    """The chunks of a streamed answer."""
    pieces = [{"index": 0, "finish_reason": None, "delta": {"content": " lorem"}}]
    events = [event(pieces, timings=timings(count)) for count in range(1, STREAM_EVENTS + 1)]
    end = event([{"index": 0, "finish_reason": "stop", "delta": {}}])
    last = event([], usage=usage(STREAM_EVENTS), timings=timings(STREAM_EVENTS))
    return [*events, end + last + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]


def whole() -> bytes:
    message = {"role": "assistant", "content": " lorem" * WHOLE_TOKENS}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    value = {"choices": choices, "id": "chatcmpl-bench", "model": MODEL, "object": "chat.completion"}
    return json.dumps(value | {"usage": usage(WHOLE_TOKENS), "timings": timings(WHOLE_TOKENS)}).encode()


class World(asyncio.Protocol):
    """Engine and server in one."""

    port = 0
    records = 0
    frames = frames()
    whole = whole()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body = b"", b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        url, body, self.url, self.body = self.url, self.body, b"", b""
        if url.startswith(b"/api/v1/gateway/snapshot"):
            wait_s = 0.0 if b"seen=0" in url else 20.0
            asyncio.get_running_loop().call_later(wait_s, self.reply, json.dumps(self.snapshot()).encode())
        elif url.startswith(b"/api/v1/gateway/usage"):
            records = json.loads(body)["records"]
            World.records += len(records)
            self.reply(json.dumps({"acknowledged": records[-1]["seq"]}).encode())
        elif url == b"/records":
            self.reply(b"%d" % World.records)
        elif b'"stream": true' in body:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            self.transport.write(head)
            asyncio.get_running_loop().call_later(GAP_S, self.step, 0)
        else:
            self.reply(self.whole)

    def reply(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)

    def step(self, count: int) -> None:
        self.transport.write(self.frames[count])
        if count + 1 < len(self.frames):
            asyncio.get_running_loop().call_later(GAP_S, self.step, count + 1)

    def snapshot(self) -> dict[str, Any]:
        key = {"id": "key-1", "project": "default", "expires_at": None, "models": None}
        replica = {"id": "r-1", "url": f"http://127.0.0.1:{World.port}", "api_key": "engine", "weight": 1}
        model = {"deployment": "d-1", "kind": "chat", "replicas": [replica], "reason": ""}
        keys = {hashlib.sha256(KEY.encode()).hexdigest(): key}
        return {"seen": 1, "keys": keys, "models": {"default": {MODEL: model}}, "limits": {}}


async def run_world(port: int) -> None:
    World.port = port
    server = await asyncio.get_running_loop().create_server(World, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


@dataclass
class Tally:
    """What a round of load saw."""

    latencies_s: list[float] = field(default_factory=list)
    events: int = 0
    failures: int = 0


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until told to stop."""

    def __init__(self, request: bytes, tally: Tally, ends_s: float, done: asyncio.Future[None]) -> None:
        self.request, self.tally, self.ends_s, self.done = request, tally, ends_s, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.parser = httptools.HttpResponseParser(self)
        self.ask()

    def ask(self) -> None:
        self.asked_s = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.tally.events += data.count(b"data: {")
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        self.tally.latencies_s.append(now_s - self.asked_s)
        self.tally.failures += self.parser.get_status_code() != 200
        if now_s < self.ends_s:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, connections: int, seconds: float, *, is_stream: bool = False) -> Tally:
    """Closed loop: each connection has one request under way."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 200}], "stream": is_stream}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\naccept: */*\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data
    loop, tally, ends_s = asyncio.get_running_loop(), Tally(), time.perf_counter() + seconds
    waiting = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(lambda done=done: Asker(request, tally, ends_s, done), "127.0.0.1", port)
    await asyncio.gather(*waiting)
    return tally


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


async def measure(world_port: int, port: int, pid: int) -> dict[str, float]:
    """All figures, from rounds that take turns."""
    figures = {"idle_memory_mb": memory_mb(pid)}
    costs: dict[str, list[float]] = {"json": [], "event": [], "added": []}
    asked, failures = len((await load(port, 8, 0.3)).latencies_s), 0
    for _ in range(ROUNDS):
        before = cpu_s(pid)
        tally = await load(port, 64, ROUND_S)
        costs["json"].append((cpu_s(pid) - before) / len(tally.latencies_s) * 1e6)
        before = cpu_s(pid)
        streams = await load(port, 100, ROUND_S, is_stream=True)
        costs["event"].append((cpu_s(pid) - before) / streams.events * 1e6)
        direct, through = await load(world_port, 1, ROUND_S / 4), await load(port, 1, ROUND_S / 4)
        added_s = statistics.median(through.latencies_s) - statistics.median(direct.latencies_s)
        costs["added"].append(added_s * 1e3)
        asked += sum(len(t.latencies_s) for t in (tally, streams, through))
        failures += sum(t.failures for t in (tally, streams, through))
    figures |= {
        "cpu_us_per_json_request": round(statistics.median(costs["json"]), 1),
        "cpu_us_per_stream_event": round(statistics.median(costs["event"]), 1),
        "added_ms_p50_c1": round(statistics.median(costs["added"]), 3),
        "memory_mb_after": memory_mb(pid),
        "requests": asked,
        "failures": failures,
    }
    return figures


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def answers(port: int, path: str) -> bytes:
    """The body at `path`, asked for until it is answered with 200."""
    for _ in range(500):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        request = f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        if head.startswith(b"HTTP/1.1 200"):
            return body
        await asyncio.sleep(0.02)
    raise TimeoutError(f"nobody answers {path} on port {port}")


async def bench(folder: str) -> dict[str, float]:
    world_port, port = free_port(), free_port()
    module = "atoll.serving.gateway.main"
    command = [sys.executable, "-m", module, "--home", folder, "--server", f"http://127.0.0.1:{world_port}"]
    environment = os.environ | {"ATOLL_SYSTEM_KEY": SYSTEM_KEY}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    world = subprocess.Popen([sys.executable, __file__, "--world", str(world_port)])
    try:
        await answers(world_port, "/records")
        gateway = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}"], env=environment)
        os.sched_setaffinity(gateway.pid, {cores[0]})
        try:
            await answers(port, f"/v1/models/{MODEL}")
            figures = await measure(world_port, port, gateway.pid)
            await asyncio.sleep(1.0)
            figures["records_lost"] = figures["requests"] - int(await answers(world_port, "/records"))
        finally:
            gateway.terminate()
            gateway.wait()
    finally:
        world.kill()
        world.wait()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", type=int, help=argparse.SUPPRESS)
    world_port = parser.parse_args().world
    if world_port:
        uvloop.run(run_world(world_port))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(bench(folder))
    line = {
        "bench": "gateway",
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()},
        "figures": figures,
        "rivals": {},
        "command": "python tests/bench/gateway.py",
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
