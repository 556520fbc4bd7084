"""A small inference engine for the gateway's tests: speaks HTTP as llama.cpp's server was seen to speak.

Its answer to anything is the same text, one token an event; asked to go on after a part of it, it says the rest.
Requests can be held at a token until released, so that a test decides when a client leaves; an engine notices a client
that left, as llama.cpp does, and counts it.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ports import free_port

PROMPT_TOKENS = 7
CACHED_TOKENS = 3
WORDS = ("Islands", " in", " a", " ring", ".")


class Engine:
    """Start it, point a replica at `url`, look at `requests`."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.words: tuple[str, ...] = WORDS
        self.event_s = 0.0  # between two words
        self.tokens_per_word = 1
        self.hold_at: int | None = None  # words passed before waiting for `release`; -1 holds before the head
        self.released = threading.Event()
        self.refusals: list[tuple[int, bytes]] = []
        self.drops = 0  # connections to close without an answer
        self.dies_after: int | None = None  # words after which the connection breaks
        self.chunks_split = False
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.sizes: list[int] = []
        self.paths: list[str] = []
        self.connections = 0
        self.disconnects = 0
        self.active = self.active_most = 0
        self.changed = threading.Condition()
        self._http: ThreadingHTTPServer | None = None
        self._sockets: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Engine:
        engine = self

        class Handler(_Handler):
            owner = engine

        class Http(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self.port = self.port or free_port()
        self._http = Http(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Gone, as after kill -9."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
        self.close_connections()
        self.released.set()

    def close_connections(self) -> None:
        """Close every connection, idle ones too."""
        for connection in list(self._sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def note(self, **changes: int) -> None:
        with self.changed:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)
            self.active_most = max(self.active_most, self.active)
            self.changed.notify_all()

    def wait_for(self, name: str, value: int, within_s: float = 60.0) -> None:
        """Return once the counter `name` has reached `value`."""
        with self.changed:
            reached = self.changed.wait_for(lambda: getattr(self, name) >= value, within_s)
        assert reached, f"{name} is {getattr(self, name)}, not {value}"


class _ClientGone(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Engine
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner._sockets.add(self.connection)
        self.owner.note(connections=1)

    def finish(self) -> None:
        self.owner._sockets.discard(self.connection)
        try:
            super().finish()
        except OSError:
            return

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        owner = self.owner
        data = self.rfile.read(int(self.headers["content-length"]))
        owner.sizes.append(len(data))
        owner.paths.append(self.path)
        owner.headers.append({name.lower(): value for name, value in self.headers.items()})
        owner.requests.append(json.loads(data))
        owner.note(active=1)
        try:
            self._answer(owner.requests[-1])
        except (_ClientGone, OSError):
            self.close_connection = True
            owner.note(disconnects=1)
        finally:
            owner.note(active=-1)

    def _answer(self, request: dict[str, Any]) -> None:
        owner = self.owner
        if owner.drops > 0:
            owner.drops -= 1
            self.close_connection = True
            return
        if owner.refusals:
            self._reply(*owner.refusals.pop(0))
            return
        if self.path.endswith("/embeddings"):
            self._embed(request)
        elif request.get("stream"):
            self._stream(request)
        else:
            self._hold(0)
            self._reply(200, json.dumps(self._whole(request)).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        if status >= 400:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _embed(self, request: dict[str, Any]) -> None:
        inputs = request["input"] if isinstance(request["input"], list) else [request["input"]]
        usage = {"prompt_tokens": 2 * len(inputs), "total_tokens": 2 * len(inputs)}
        data = [{"embedding": [0.25] * 384, "index": i, "object": "embedding"} for i in range(len(inputs))]
        answer = {"model": "m", "object": "list", "usage": usage, "data": data}
        self._reply(200, json.dumps(answer, separators=(",", ":")).encode())

    def _whole(self, request: dict[str, Any]) -> dict[str, Any]:
        text = "".join(self.owner.words)
        count = request.get("n") or 1
        if "messages" in request:
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        else:
            choice = {"text": text, "logprobs": None}
        choices = [{"finish_reason": "stop", "index": i} | choice for i in range(count)]
        usage = _usage(len(self.owner.words) * self.owner.tokens_per_word)  # of one choice only, as llama.cpp does
        return self._frame(request, choices, whole=True) | {"usage": usage, "timings": _timings(1)}

    def _frame(self, request: dict[str, Any], choices: list[Any], *, whole: bool = False) -> dict[str, Any]:
        kind = "text_completion" if "prompt" in request else "chat.completion" if whole else "chat.completion.chunk"
        head = {"choices": choices, "created": 1, "id": "chatcmpl-x", "model": request["model"]}
        return head | {"system_fingerprint": "b0", "object": kind}

    def _stream(self, request: dict[str, Any]) -> None:
        self._hold(-1)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if request.get("return_progress"):
            progress = {"total": PROMPT_TOKENS, "cache": CACHED_TOKENS, "processed": PROMPT_TOKENS, "time_ms": 1}
            self._event(
                self._piece(request, 0, {"role": "assistant", "content": None}, 0) | {"prompt_progress": progress}
            )
        prompts = request["prompt"] if isinstance(request.get("prompt"), list) else [""]
        for index in range((request.get("n") or 1) * len(prompts)):
            self._choice(request, index)
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _choice(self, request: dict[str, Any], index: int) -> None:
        owner, is_chat = self.owner, "messages" in request
        words = _rest(owner.words, request)
        self._hold(0)
        if is_chat:
            self._event(self._piece(request, index, {"role": "assistant", "content": None}, None))
        tokens = 0
        for count, word in enumerate(words, 1):
            if owner.event_s:
                time.sleep(owner.event_s)  # the engine's own pace, not a wait for anything
            tokens += owner.tokens_per_word
            self._event(self._piece(request, index, {"content": word}, tokens))
            if owner.dies_after == count:
                self.connection.shutdown(socket.SHUT_RDWR)
                raise _ClientGone
            self._hold(count)
        end = self._piece(request, index, {}, None, finish="stop")
        usage = {"usage": _usage(tokens), "timings": _timings(tokens)}
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        if is_chat:
            self._event(end)
            if wants_usage:
                self._event(self._frame(request, []) | usage)
        else:
            self._event(end | usage)

    def _piece(
        self, request: dict[str, Any], index: int, delta: dict[str, Any], tokens: int | None, finish: str | None = None
    ) -> dict[str, Any]:
        if "messages" in request:
            choice: dict[str, Any] = {"finish_reason": finish, "index": index, "delta": delta}
        else:
            choice = {"text": delta.get("content") or "", "index": index, "logprobs": None, "finish_reason": finish}
        timed = tokens is not None and request.get("timings_per_token")
        return self._frame(request, [choice]) | ({"timings": _timings(tokens)} if timed else {})

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        middle = len(data) // 2
        for piece in (data[:middle], data[middle:]) if self.owner.chunks_split else (data,):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _hold(self, count: int) -> None:
        """Wait at the chosen word; notice a client that leaves meanwhile."""
        owner = self.owner
        if owner.hold_at != count:
            return
        while not owner.released.wait(0.005):
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _ClientGone


def _rest(words: tuple[str, ...], request: dict[str, Any]) -> tuple[str, ...]:
    """What is left to say after the part of the answer that the request ends with."""
    last = request["messages"][-1] if "messages" in request else {"role": "assistant", "content": request["prompt"]}
    said = last["content"] if last["role"] == "assistant" else ""
    for count in range(len(words), 0, -1):
        if isinstance(said, str) and said.endswith("".join(words[:count])):
            return words[count:]
    return words


def main() -> None:
    """Serve in a process of its own, slowly, until killed; prints the address."""
    engine = Engine()
    engine.event_s = 0.005
    engine.start()
    sys.stdout.write(f"{engine.url}\n")
    sys.stdout.flush()
    threading.Event().wait()


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "completion_tokens": tokens,
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + tokens,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


def _timings(tokens: int | None) -> dict[str, Any]:
    return {
        "cache_n": CACHED_TOKENS,
        "prompt_n": PROMPT_TOKENS - CACHED_TOKENS,
        "prompt_ms": 1.5,
        "predicted_n": tokens,
    }
