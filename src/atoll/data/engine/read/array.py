"""JSON files: an array of records, one record, or JSON lines under the wrong name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import orjson

from atoll.data.engine.read import jsonl
from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode
from atoll.data.engine.read.item import Item, Quarantined, Unreadable
from atoll.data.engine.read.records import Records


def read(content: Content) -> Iterator[Item]:
    """A text of every record."""
    data = content.whole("; JSON lines, a record a line, have none")
    try:
        value = orjson.loads(decode(data).removeprefix("\ufeff"))
    except orjson.JSONDecodeError as error:
        if not _is_lines(data):
            raise Unreadable(f"it is not JSON: {error.msg} (column {error.colno})", error.lineno) from error
        yield from jsonl.read(replace(content, stream=io.BytesIO(data)))
        return
    records = Records(content.name, content.fields, content.limits.text_bytes_max)
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        try:
            yield records.found(record, number)
        except Unreadable as error:
            yield Quarantined(content.name, number, str(error))


def _is_lines(data: bytes) -> bool:
    """Whether the first line is an object of its own, though the file is none."""
    try:
        return isinstance(orjson.loads(data.partition(b"\n")[0]), dict)
    except orjson.JSONDecodeError:
        return False
