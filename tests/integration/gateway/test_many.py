"""A thousand streams at once on one worker: held and running, none is lost, and little memory is used."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.gateway.conftest import Process
from integration.gateway.control import Control, wait_until
from integration.gateway.wire import chat

STREAMS = 1000
EVENTS = 20
MEMORY_MB_MAX = 400


def _event(**fields: object) -> bytes:
    value = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": "tiny"} | fields
    data = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _frames() -> list[bytes]:
    frames = []
    for count in range(1, EVENTS + 1):
        choice = {"index": 0, "delta": {"content": f" word{count}"}, "finish_reason": None}
        timings = {"cache_n": 0, "prompt_n": 7, "predicted_n": count}
        frames.append(_event(choices=[choice], timings=timings))
    usage = {"prompt_tokens": 7, "completion_tokens": EVENTS}
    return [*frames, _event(choices=[], usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]


class Crowd:
    """An engine for many streams: each waits at its second event until all are let go."""

    def __init__(self) -> None:
        self.frames = _frames()
        self.let_go = asyncio.Event()
        self.running = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                writer.write(self.frames[0])
                self.running += 1
                await self.let_go.wait()
                for frame in self.frames[1:]:
                    writer.write(frame)
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * STREAMS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} descriptors may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def one_stream(port: int, model: str) -> int:
    """How many words the client got; the stream must end properly."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(stream=True, model=model))
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        piece = await reader.read(65536)
        assert piece, f"ended early: {data[-200:]!r}"
        data += piece
    writer.close()
    assert b"[DONE]" in data
    return data.count(b" word")


async def crowd(process: Process, control: Control) -> float:
    """Memory with all streams under way, in MB; half of them wait for a replica first."""
    engine = Crowd()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=STREAMS)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    hold = {"queue_max": STREAMS, "wait_s": 100}
    control.add_model("tiny", [url])
    control.add_model("asleep", [], hold=hold)
    control.publish()
    streams = [
        asyncio.create_task(one_stream(process.port, model))
        for model in ("tiny", "asleep")
        for _ in range(STREAMS // 2)
    ]
    await until(lambda: engine.running == STREAMS // 2)
    await until(lambda: any(r["targets"].get("dep-asleep", {}).get("queued") == STREAMS // 2 for r in control.loads))
    control.add_model("asleep", [url], hold=hold)
    control.publish()
    await until(lambda: engine.running == STREAMS)
    used_mb = memory_mb(process.process.pid)
    engine.let_go.set()
    words = await asyncio.gather(*streams)
    assert words == [EVENTS] * STREAMS
    server.close()
    await server.wait_closed()
    return used_mb


async def until(claim: object, within_s: float = 100.0) -> None:
    """Return once the claim holds."""
    assert callable(claim)
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(0.02)


def test_a_thousand_streams_take_little_memory_and_none_is_lost(
    many_descriptors: None, control: Control, tmp_path: Path
) -> None:
    process = Process(tmp_path, control.url)
    process.wait_until_listening()
    try:
        used_mb = asyncio.run(crowd(process, control))
        assert used_mb < MEMORY_MB_MAX
        records = control.wait_for_usage(STREAMS)
        assert {(r["status"], r["completion_tokens"]) for r in records} == {("ok", EVENTS)}
        wait_until(lambda: len(list(Path(f"/proc/{process.process.pid}/fd").iterdir())) < 60, "connections are closed")
    finally:
        process.kill()
