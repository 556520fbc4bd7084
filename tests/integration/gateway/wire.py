"""Bytes on the wire, for what well-behaved clients never send."""

from __future__ import annotations

import json
import socket
from typing import Any

from integration.gateway.conftest import KEY


def post(body: bytes, path: str = "/v1/chat/completions", key: str = KEY, extra: bytes = b"") -> bytes:
    """A request's bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + extra + b"\r\n" + body


def chat(stream: bool = False, **fields: Any) -> bytes:
    """A chat request's bytes for the model `tiny`."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": stream} | fields
    return post(json.dumps(body).encode())


def read_until(connection: socket.socket, mark: bytes, data: bytes = b"") -> bytes:
    """What comes, up to and including `mark` and perhaps more; fails when the connection ends before."""
    while mark not in data:
        piece = connection.recv(65536)
        assert piece, f"ended before {mark!r}: {data[-300:]!r}"
        data += piece
    return data


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        return data
    return data


def read_answer(connection: socket.socket, data: bytes = b"") -> tuple[int, dict[str, str], bytes, bytes]:
    """Status, headers and body of one answer with a length, and what came behind it."""
    data = read_until(connection, b"\r\n\r\n", data)
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    length = int(headers.get("content-length", 0))
    while len(rest) < length:
        piece = connection.recv(65536)
        assert piece, "ended inside a body"
        rest += piece
    return int(lines[0].split()[1]), headers, rest[:length], rest[length:]
