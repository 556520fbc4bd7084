"""Parquet: a record a row. Only the columns that are wanted are read, some hundred rows at a time.

A few kilobytes may stand for gigabytes, a long text kept once and named by every row, so it is read in the child.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.item import Item, Quarantined, Unreadable
from atoll.data.engine.read.records import CHAT_FIELDS, Records
from atoll.data.parquet import batches_in, open_parquet

ROWS = 256
BUFFER_BYTES = 1 << 20


def read(content: Content) -> Iterator[Item]:
    """A text of every row of the file, or of its row groups from `start` up to `stop`."""
    try:
        source = content.stream if content.is_whole else io.BytesIO(content.whole())
        file = open_parquet(source, BUFFER_BYTES)
        columns = _columns(file.schema_arrow, content)
        groups = list(range(content.start, content.stop or file.num_row_groups))
        yield from _items(batches_in(file, ROWS, columns, groups), content)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"it is not sound Parquet: {_first_line(error)}") from error


def opened(path: str) -> pa.NativeFile:
    """The file at a path, whose name may be no UTF-8, as Arrow wants paths to be; OSError when there is none."""
    return pa.OSFile(os.fsencode(path))


def _columns(schema: pa.Schema, content: Content) -> list[str]:
    """The columns to read; raises Unreadable, naming those there are, when none holds texts."""
    fields = content.fields
    top = {name.split(".")[0] if name not in schema.names else name for name in (fields.id, fields.title, fields.url)}
    text = fields.text if fields.text in schema.names else fields.text.split(".")[0]
    if text in schema.names:
        return [name for name in schema.names if name in {text, *top}]
    if not set(CHAT_FIELDS) & set(schema.names):
        raise Unreadable(f"it has no column {fields.text!r}; its columns are {', '.join(schema.names)}")
    return [name for name in schema.names if name in {*CHAT_FIELDS, *top}]


def _items(batches: Iterator[pa.RecordBatch], content: Content) -> Iterator[Item]:
    records = Records(content.name, content.fields, content.limits.text_bytes_max)
    first = content.first_line
    for batch in batches:
        for number, record in enumerate(_rows(batch), first):
            try:
                if isinstance(record, Exception):
                    raise Unreadable(f"it is no sound row: {record}")
                yield records.found(record, number)
            except Unreadable as error:
                yield Quarantined(content.name, number, str(error))
        first += batch.num_rows


def _rows(batch: pa.RecordBatch) -> list[Any]:
    """The records of a batch; an error instead of one whose values are not what the file says, such as UTF-8."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [error]
        return [row for number in range(batch.num_rows) for row in _rows(batch.slice(number, 1))]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
