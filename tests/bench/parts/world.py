"""Everything around a gateway under test in one cheap process: an engine that answers at once and a centre.

The engine speaks as llama.cpp does (timings in every event) or, for the rivals' sake, as plain OpenAI. The centre
hands out a snapshot with a key that has limits and a budget, grants slices of it, takes usage and load reports.
`python -m bench.parts.world PORT`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any, ClassVar

import httptools
import uvloop

KEY, SYSTEM_KEY, MODEL = "sk-bench", "system", "bench"
WHOLE_TOKENS, STREAM_EVENTS, GAP_S = 32, 64, 0.01
PROMPT_TOKENS = 36
BUDGET = 1 << 50
PRICE = {"input_per_million": 1.0, "cached_input_per_million": 0.5, "output_per_million": 2.0, "currency": "EUR"}


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


def usage(count: int) -> dict[str, Any]:
    return {"completion_tokens": count, "prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS + count}


def event(choices: list[Any], **more: Any) -> bytes:
    value = {
        "choices": choices,
        "created": 1,
        "id": "chatcmpl-bench",
        "model": MODEL,
        "object": "chat.completion.chunk",
    }
    return b"data: " + json.dumps(value | more, separators=(",", ":")).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(*, is_llama_cpp: bool) -> list[bytes]:
    """The chunks of a streamed answer; the last holds the end, the usage and [DONE]."""
    pieces = [{"index": 0, "finish_reason": None, "delta": {"content": " lorem"}}]
    extra = [{"timings": timings(n)} if is_llama_cpp else {} for n in range(1, STREAM_EVENTS + 1)]
    events = [chunk(event(pieces, **more)) for more in extra]
    end = event([{"index": 0, "finish_reason": "stop", "delta": {}}])
    last = event([], usage=usage(STREAM_EVENTS), **extra[-1])
    return [*events, chunk(end + last) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def whole() -> bytes:
    message = {"role": "assistant", "content": " lorem" * WHOLE_TOKENS}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    value = {"choices": choices, "created": 1, "id": "chatcmpl-bench", "model": MODEL, "object": "chat.completion"}
    return json.dumps(value | {"usage": usage(WHOLE_TOKENS), "timings": timings(WHOLE_TOKENS)}).encode()


def snapshot(port: int) -> dict[str, Any]:
    """One key with limits, a budget of its own and one above it, one model with one replica."""
    limits = {"requests_per_minute": 1 << 40, "tokens_per_minute": 1 << 50, "parallel": 1 << 20}
    key = {
        "id": "key-1",
        "project": "default",
        "projects": ["default"],
        "name": "bench",
        "role": "member",
        "expires_at": None,
        "models": [MODEL],
        "addresses": None,
        "limits": limits,
        "priority": "normal",
        "budgets": {"default": ["b-1", "b-2"]},
    }
    replica = {"id": "r-1", "url": f"http://127.0.0.1:{port}", "api_key": "engine", "weight": 1, "slots": 4096}
    target = {
        "id": "d-1",
        "name": MODEL,
        "weight": 1.0,
        "engine": "llamacpp",
        "model": None,
        "adapter": None,
        "version": "1",
        "context": 4096,
        "capabilities": ["chat", "completion", "timings", "prefill"],
        "price": PRICE,
        "progress": None,
        "parallel": None,
        "replicas": [replica],
    }
    model = {
        "kind": "chat",
        "created": 1,
        "version": "1",
        "context": 4096,
        "reason": "",
        "affinity": "prefix",
        "hold": {"queue_max": 4096, "wait_s": 60.0},
        "fallback": [],
        "hedge_s": None,
        "owner": "default",
        "targets": [target],
    }
    return {
        "seen": 1,
        "keys": {hashlib.sha256(KEY.encode()).hexdigest(): key},
        "projects": {"default": {"limits": limits, "weight": 1.0}},
        "budgets": {
            "b-1": {"name": "mine", "project": "default", "units": ["tokens", "money"], "currency": "EUR"},
            "b-2": {"name": "all", "project": "default", "units": ["tokens"], "currency": "EUR"},
        },
        "models": {"default": {MODEL: model}},
        "gateways": 1,
        "limits": {},
    }


class World(asyncio.Protocol):
    """One connection to either."""

    port = 0
    requests = 0
    records = 0
    tokens = 0
    slices: ClassVar[dict[tuple[str, str], dict[str, Any]]] = {}
    frames_rich = frames(is_llama_cpp=True)
    frames_plain = frames(is_llama_cpp=False)
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
        if url.startswith(b"/api/v1/gateway/"):
            self.centre(url, body)
        elif url == b"/figures":
            figures = {"requests": World.requests, "records": World.records, "tokens": World.tokens}
            self.reply(json.dumps(figures).encode())
        else:
            World.requests += 1
            self.engine(body)

    def engine(self, body: bytes) -> None:
        if b'"stream": true' not in body and b'"stream":true' not in body:
            self.reply(self.whole)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(head)
        pieces = self.frames_rich if b"timings_per_token" in body else self.frames_plain
        asyncio.get_running_loop().call_later(GAP_S, self.step, pieces, 0)

    def step(self, pieces: list[bytes], count: int) -> None:
        self.transport.write(pieces[count])
        if count + 1 < len(pieces):
            asyncio.get_running_loop().call_later(GAP_S, self.step, pieces, count + 1)

    def centre(self, url: bytes, body: bytes) -> None:
        if url.startswith(b"/api/v1/gateway/snapshot"):
            wait_s = 0.0 if b"seen=0" in url else 20.0
            answer = json.dumps(snapshot(World.port)).encode()
            asyncio.get_running_loop().call_later(wait_s, self.reply, answer)
            return
        value = json.loads(body)
        answers: dict[str, Any] = {}
        if url.endswith(b"/usage"):
            World.records += len(value["records"])
            World.tokens += sum(r["prompt_tokens"] + r["completion_tokens"] for r in value["records"])
            answers = {"acknowledged": value["records"][-1]["seq"]}
        elif url.endswith(b"/slices"):
            answers = {"slices": [grant(one) for one in value["slices"]]}
        self.reply(json.dumps(answers).encode())

    def reply(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


def grant(asked: dict[str, Any]) -> dict[str, Any]:
    """Whatever is wanted, of a budget without end."""
    identity = (asked["budget"], asked["unit"])
    known = World.slices.setdefault(identity, {"slice": len(World.slices) + 1, "granted": 0})
    known["granted"] = max(known["granted"], asked["granted_seen"]) + max(0, asked["want"])
    return {
        **known,
        "budget": asked["budget"],
        "unit": asked["unit"],
        "released": asked["released"],
        "expires_at": None,
        "available": BUDGET,
        "scarce": False,
    }


async def run(port: int) -> None:
    """Serve until killed."""
    World.port = port
    server = await asyncio.get_running_loop().create_server(World, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1])))
