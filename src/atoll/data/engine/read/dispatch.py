"""From the bytes of a file or member to what is in it: the codec is taken off, the reader of the format is called."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.expand import Expanded
from atoll.data.engine.read.item import Item, Quarantined, Unloadable, Unreadable

READERS = {
    name: f"atoll.data.engine.read.{module}"
    for name, module in {
        **{
            name: name
            for name in ("jsonl", "parquet", "text", "array", "page", "pdf", "docx", "xlsx", "warc", "archive")
        },
        "csv": "table",
    }.items()
}


def items(content: Content) -> Iterator[Item]:
    """Everything in the content; what cannot be read is named and does not end it. Raises Unloadable."""
    reader = _loaded(content.format.reader)
    try:
        yield from reader.read(_expanded(content))
    except Unreadable as error:
        yield Quarantined(content.name, error.line, str(error))


def _loaded(name: str) -> ModuleType:
    try:
        return importlib.import_module(READERS[name])
    except (ModuleNotFoundError, PermissionError) as error:  # others may be for want of memory, in this file
        raise Unloadable(f"the reader {name} cannot be loaded: {error}") from error


def _expanded(content: Content) -> Content:
    if not content.format.codec:
        return content
    return replace(content, stream=Expanded(content.stream, content.format.codec, content.limits), is_whole=False)
