"""Expanding: bytes of compressed files as a stream, with an end to what little input may become.

A stream that stops in the middle, carries rubbish or expands beyond the limits is Unreadable at that place; what came
before it has been read by then. Never more than a few MiB are held.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from atoll.data.engine.read.item import MIB, Limits, Unreadable
from atoll.data.engine.read.lines import Readable

INPUT_BYTES = {"gzip": 256 << 10, "bzip2": 256 << 10, "xz": 256 << 10, "zstd": 4 << 10}
"""Input given at once. Of zstd so little, for its decompressor takes no limit of output: 4 KiB are 128 MiB at most."""

OUTPUT_BYTES = 1 * MIB
RATIO_FREE_BYTES = 16 * MIB
WINDOW_BYTES_MAX = 128 * MIB


class _Decoder(Protocol):
    """One compressed stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def feed(self, data: bytes) -> bytes: ...

    def has_more(self) -> bool: ...


class _Zlib:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, OUTPUT_BYTES)

    def has_more(self) -> bool:
        return bool(self._inner.unconsumed_tail)


class _Bounded:
    """bzip2 and xz, which keep what they have not looked at."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def feed(self, data: bytes) -> bytes:
        return bytes(self._inner.decompress(data, OUTPUT_BYTES))

    def has_more(self) -> bool:
        return not self._inner.needs_input and not self._inner.eof


class _Zstd:
    def __init__(self) -> None:
        import zstandard

        self._inner = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def feed(self, data: bytes) -> bytes:
        import zstandard

        try:
            return bytes(self._inner.decompress(data))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    def has_more(self) -> bool:
        return False


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _Zlib,
    "bzip2": lambda: _Bounded(bz2.BZ2Decompressor()),
    "xz": lambda: _Bounded(lzma.LZMADecompressor(memlimit=WINDOW_BYTES_MAX)),
    "zstd": _Zstd,
}


class Expanded:
    """What `source` holds, compressed by `codec`. Several streams after each other are one."""

    def __init__(self, source: Readable, codec: str, limits: Limits) -> None:
        self._source = source
        self._codec = codec
        self._limits = limits
        self._decoder: _Decoder | None = None
        self._left = b""
        self._ready = memoryview(b"")
        self.bytes_in = 0
        self.bytes_out = 0

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, as they come; fewer than asked for is not the end, none is."""
        while not self._ready:
            if not self._advance():
                return b""
        data = bytes(self._ready[:size])
        self._ready = self._ready[size:]
        return data

    def _advance(self) -> bool:
        """Make some output ready, which may be none yet; False at the end of the last stream."""
        if self._decoder and self._decoder.eof:
            self._left, self._decoder = self._decoder.unused_data, None
        data = b"" if self._decoder and self._decoder.has_more() else self._input()
        if self._decoder is None:
            if not data.lstrip(b"\0"):
                return bool(data)
            self._decoder = _DECODERS[self._codec]()
        elif not data and not self._decoder.has_more():
            raise Unreadable(f"it is cut off: its {self._codec} stream has no end")
        self._expand(self._decoder, data)
        return True

    def _input(self) -> bytes:
        data, self._left = self._left, b""
        if not data:
            data = self._source.read(INPUT_BYTES[self._codec])
            self.bytes_in += len(data)
        return data

    def _expand(self, decoder: _Decoder, data: bytes) -> None:
        try:
            ready = decoder.feed(data)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise Unreadable(f"it is not sound {self._codec}: {error}") from error
        self.bytes_out += len(ready)
        self._ready = memoryview(ready)
        check_expansion(self.bytes_in, self.bytes_out, self._limits)


def check_expansion(bytes_in: int, bytes_out: int, limits: Limits) -> None:
    """Raise Unreadable when so much output of so little input is a bomb."""
    if bytes_out > limits.expanded_bytes_max:
        raise Unreadable(f"it expands to more than {limits.expanded_bytes_max} bytes")
    if bytes_out > RATIO_FREE_BYTES and bytes_out > limits.ratio_max * max(1, bytes_in):
        raise Unreadable(f"it expands to more than {limits.ratio_max} times its size, as bombs do")
