"""Lines of a stream of bytes, of any length: one that is too long is told and skipped, never held."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Protocol

from atoll.data.engine.read.item import Unreadable

CHUNK_BYTES = 1 << 18


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def lines(stream: Readable, line_bytes_max: int, first: int = 1) -> Iterator[tuple[int, bytes | None]]:
    """Number and content (without its line feed) of every line; content is None where it is too long."""
    number, held, held_bytes = first, list[bytes](), 0
    while chunk := stream.read(CHUNK_BYTES):
        head, *rest = chunk.split(b"\n")
        held_bytes += len(head)
        if held_bytes <= line_bytes_max:
            held.append(head)
        else:
            held.clear()
        if not rest:
            continue
        yield number, b"".join(held) if held_bytes <= line_bytes_max else None
        last = rest.pop()
        for place, line in enumerate(rest, number + 1):
            yield place, line if len(line) <= line_bytes_max else None
        number, held, held_bytes = number + len(rest) + 1, [last], len(last)
    if held_bytes:
        yield number, b"".join(held) if held_bytes <= line_bytes_max else None


class Range:
    """The bytes of a file from where it stands on, at most so many."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class Recoded:
    """A stream in another encoding, as UTF-8; Unreadable where it does not fit."""

    def __init__(self, stream: Readable, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def read(self, size: int, /) -> bytes:
        while data := self._stream.read(size):
            if text := self._decoded(data):
                return text.encode("utf-8", "replace")
        return self._decoded(b"").encode("utf-8", "replace")

    def _decoded(self, data: bytes) -> str:
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Unreadable(f"it is {self._encoding} but {error.reason}") from error


class Ahead:
    """A stream of which the first bytes have been looked at."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self._broken: Unreadable | None = None
        self.head = b""
        try:
            while len(self.head) < size and (data := stream.read(size - len(self.head))):
                self.head += data
        except Unreadable as error:
            self._broken = error  # which is told after what came before it
        self._left = self.head

    def read(self, size: int, /) -> bytes:
        if self._left:
            data, self._left = self._left[:size], self._left[size:]
            return data
        if self._broken:
            raise self._broken
        return self._stream.read(size)
