"""Server-sent events out of a byte stream, however it is cut.

Follows the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream". Reconnecting is the caller's.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `data` is its lines joined by newlines."""

    event: str
    data: str
    id: str


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a stream; comments are dropped, an event the stream breaks off in is discarded."""
    name, data, last_id = "", list[str](), ""
    for line in read_lines(chunks):
        if not line:
            if data:
                yield ServerEvent(name or "message", "\n".join(data), last_id)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            last_id = value


def read_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by LF, CR or CRLF; a last line without an end is dropped, as is a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending, is_after_cr, is_first = "", False, True
    for chunk in chunks:
        text = decoder.decode(chunk)
        if is_first and text:
            text, is_first = text.removeprefix("\ufeff"), False
        if is_after_cr and text:
            text, is_after_cr = text.removeprefix("\n"), False
        is_after_cr = text.endswith("\r") or (is_after_cr and not text)
        *lines, pending = (pending + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from lines
