"""A small HTTP server for engines that have none: one handler, a key, bounds, and requests that end with their client.

Runs uvicorn in a thread of its own on a loopback port, or a socket it is given. /health and /metrics are answered
here; everything else is the handler's. A client that goes away cancels its handler. An exception in the handler is a
500 with its message for that request alone. It knows no API: the handler renders answers and errors.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn

from atoll.core.errors import AtollError, Invalid, NotFound, TooLarge, Unauthorized, Unavailable
from atoll.serving.engine.lifecycle import HttpBackend

BODY_BYTES_MAX = 32 << 20
HEADER_BYTES_MAX = 64 << 10
REQUESTS_MAX = 2048
READY_WITHIN_S = 30.0
JSON = "application/json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request with its whole body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; Invalid."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise Invalid(f"the body is a JSON {type(value).__name__}, not an object")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that comes in pieces; its iterator is closed when the client goes."""

    pieces: AsyncGenerator[bytes, None]
    content_type: str = "text/event-stream; charset=utf-8"


Handler = Callable[[Request], Awaitable[Answer | Stream]]
RenderError = Callable[[AtollError], bytes]


def render_plain(error: AtollError) -> bytes:
    """The error in OpenAI's form."""
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    code = str(error.details.get("code") or error.code)
    return orjson.dumps(
        {"error": {"message": str(error), "type": kind, "code": code, "param": error.details.get("field") or None}}
    )


class Door:
    """The ASGI application: guards, counts, and hands requests to the handler."""

    def __init__(
        self,
        handler: Handler,
        api_key: str,
        render_error: RenderError = render_plain,
        body_bytes_max: int = BODY_BYTES_MAX,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.in_flight = 0
        self._handler, self._render_error, self._check = handler, render_error, check
        self._authorization = f"Bearer {api_key}".encode()
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        if path in ("/health", "/metrics"):
            return await self._own(path, send)
        self.in_flight += 1
        try:
            await self._answer(scope, path, receive, send)
        finally:
            self.in_flight -= 1

    async def _own(self, path: str, send: Send) -> None:
        try:
            self._check()
        except AtollError as error:
            return await _send(Answer(self._render_error(error), error.http_status), send)
        if path == "/health":
            return await _send(Answer(b'{"status":"ok"}'), send)
        await _send(Answer(f"atoll:requests_in_flight {self.in_flight}\n".encode(), content_type="text/plain"), send)

    async def _answer(self, scope: Mapping[str, Any], path: str, receive: Receive, send: Send) -> None:
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if not hmac.compare_digest(headers.get("authorization", "").encode(), self._authorization):
                raise Unauthorized("this engine has a key of its own", hint="ask the gateway")
            body = await _body(headers, receive, self._body_bytes_max)
            if body is None:
                return
            request = Request(str(scope["method"]), path, headers, body)
        except AtollError as error:
            return await _send(Answer(self._render_error(error), error.http_status), send)
        await _until_gone(self._serve(request, send), receive)

    async def _serve(self, request: Request, send: Send) -> None:
        is_started = False
        try:
            answer = await self._handler(request)
            if isinstance(answer, Answer):
                return await _send(answer, send)
            async with aclosing(answer.pieces) as pieces:
                await send(_start(200, answer.content_type))
                is_started = True
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except AtollError as error:
            await self._fail(error, is_started, send)
        except Exception as error:  # noqa: BLE001 - the boundary of one request: its failure is its answer
            traceback.print_exc(file=sys.stderr)
            await self._fail(AtollError(f"{type(error).__name__}: {error}"), is_started, send)

    async def _fail(self, error: AtollError, is_started: bool, send: Send) -> None:
        rendered = self._render_error(error)
        if not is_started:
            return await _send(Answer(rendered, error.http_status), send)
        await send({"type": "http.response.body", "body": b"data: " + rendered + b"\n\n"})


class ServerThread(HttpBackend):
    """The server, running; a Backend like any other, asked over HTTP so that what it says is what clients get."""

    counters = ("atoll:requests_in_flight",)

    def __init__(self, name: str, door: Door, api_key: str) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        super().__init__(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key)
        self.name = name
        config = uvicorn.Config(
            door,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=REQUESTS_MAX,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)

    def start(self) -> ServerThread:
        """Open the door."""
        self._thread.start()
        return self

    def check(self) -> None:
        if not self._thread.is_alive():
            raise Unavailable(f"{self.name}'s HTTP server has ended")

    def close(self) -> None:
        """Close the door; requests in flight get a second."""
        self._server.should_exit = True
        self._thread.join(READY_WITHIN_S)


def new_key() -> str:
    """A key for one run of one engine."""
    return secrets.token_urlsafe(32)


def no_such_path(request: Request) -> NotFound:
    return NotFound(f"{request.method} {request.path} is not served here")


async def _body(headers: Mapping[str, str], receive: Receive, bytes_max: int) -> bytes | None:
    """The whole body, None when the client left; TooLarge as soon as it is clear."""
    told = headers.get("content-length", "0")
    size_bytes, parts = 0, list[bytes]()
    if not told.isdecimal() or int(told) > bytes_max:
        raise TooLarge(f"the body has {told[:20]} bytes, the limit is {bytes_max}")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > bytes_max:
            raise TooLarge(f"the body has more than {bytes_max} bytes")
        if not message.get("more_body"):
            return b"".join(parts)


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do `work` until it is done or the client is gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in (working, leaving):
            future.cancel()
            with suppress(asyncio.CancelledError):
                await future


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _start(status: int, content_type: str) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type.encode())]}


async def _send(answer: Answer, send: Send) -> None:
    start = _start(answer.status, answer.content_type)
    extra = {"content-length": str(len(answer.body)), **answer.headers}
    start["headers"] += [(name.encode(), value.encode()) for name, value in extra.items()]
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
