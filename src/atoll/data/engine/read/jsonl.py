"""JSON lines: an object a line. A line that cannot be read is quarantined; the next is not affected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode_line
from atoll.data.engine.read.item import Item, Quarantined, Unreadable
from atoll.data.engine.read.lines import lines
from atoll.data.engine.read.records import Records

PARTS_MAX = 2_000_000
LONG_LINE_BYTES = 1 << 20


def read(content: Content) -> Iterator[Item]:
    """A text of every record."""
    found = Records(content.name, content.fields, content.limits.text_bytes_max).found
    is_blank = not content.start and not content.stop
    for number, line in lines(content.narrow(), content.limits.line_bytes_max, content.first_line):
        try:
            if line is None:
                raise Unreadable(f"the line has more than {content.limits.line_bytes_max} bytes")
            try:
                record = orjson.loads(line) if len(line) <= LONG_LINE_BYTES else _long(line)
            except orjson.JSONDecodeError as error:
                if not line.strip():
                    continue
                record = _again(line, error)
            is_blank = False
            yield found(record, number)
        except Unreadable as error:
            is_blank = False
            yield Quarantined(content.name, number, str(error))
    if is_blank:
        yield Quarantined(content.name, 0, "the file is empty")


def _again(line: bytes, error: orjson.JSONDecodeError) -> Any:
    """The record of a line that is not JSON in UTF-8: it may be in another encoding, or carry a byte order mark."""
    text = decode_line(line)
    if line[:3] == b"\xef\xbb\xbf" or not line.isascii():
        try:
            return orjson.loads(text.removeprefix("\ufeff"))
        except orjson.JSONDecodeError as again:
            error = again
    raise Unreadable(f"it is not JSON: {error.msg} (column {error.colno})")


def _long(line: bytes) -> Any:
    """Parse a long line, unless it is made of so many values that they would take many times its size."""
    if line.count(b",") + line.count(b"[") + line.count(b"{") > PARTS_MAX:
        raise Unreadable(f"it may have more than {PARTS_MAX} values")
    return orjson.loads(line)
