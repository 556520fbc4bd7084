"""Reading: the documents of a part, one by one or in record batches of normalised text.

What cannot be read comes out as Quarantined where it stands, and never ends the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import pyarrow as pa

from atoll.data.engine.curate.corpus import Document
from atoll.data.engine.curate.plan import Normalise
from atoll.data.engine.normalise.text import normalise_column
from atoll.data.engine.read import stdlib
from atoll.data.engine.read.content import Content
from atoll.data.engine.read.dispatch import items
from atoll.data.engine.read.filling import Filling
from atoll.data.engine.read.formats import format_of
from atoll.data.engine.read.item import MIB, File, Found, Item, Limits, Part, PassedOver, Quarantined
from atoll.data.engine.read.lines import Range
from atoll.data.engine.read.sandbox import sandbox

BATCH_BYTES = 16 * MIB
PIECE_CHARACTERS = 1 << 19
LIMITS = Limits()
NORMALISE = Normalise()


def documents(part: Part, limits: Limits = LIMITS) -> Iterator[Document | Quarantined]:
    """The documents of a part, not normalised, in an order that is always the same."""
    for item in _items(part, limits):
        if isinstance(item, Quarantined):
            yield _named(item, part)
        elif isinstance(item, Found):
            file = f"{part.source}:{item.file}"
            yield Document(part.prefix + item.id, item.text, file, item.title, item.kind, item.url)


def batches(
    part: Part,
    limits: Limits = LIMITS,
    *,
    batch_bytes: int = BATCH_BYTES,
    normalise: Normalise = NORMALISE,
) -> Iterator[pa.RecordBatch | Quarantined | PassedOver]:
    """The documents of a part, normalised, as record batches of SCHEMA in the same order.

    A batch has at most `batch_bytes` of text, unless it is one document.
    """
    filling: Filling | None = None
    for item in _pieces(part, limits, min(PIECE_CHARACTERS, batch_bytes // 8)):
        if not isinstance(item, list):
            yield _named(item, part) if isinstance(item, Quarantined) else item
            continue
        texts = normalise_column([found.text for found in item], [found.kind for found in item], normalise.unicode)
        if filling and not filling.has_room(texts.nbytes):
            yield filling.batch()
            filling = None
        filling = filling or Filling(max(batch_bytes, texts.nbytes), part.prefix, f"{part.source}:")
        filling.add(item, texts)
    if filling:
        yield filling.batch()


def _pieces(part: Part, limits: Limits, characters: int) -> Iterator[list[Found] | Quarantined | PassedOver]:
    """Documents by so many characters, for their texts to be normalised while the processor's cache holds them."""
    rows: list[Found] = []
    size = 0
    for item in _items(part, limits):
        if not isinstance(item, Found):
            yield item
            continue
        if rows and size + len(item.text) > characters:
            yield rows
            rows, size = [], 0
        rows.append(item)
        size += len(item.text)
    if rows:
        yield rows


def _named(item: Quarantined, part: Part) -> Quarantined:
    """With the part's prefix before its name."""
    return Quarantined(part.prefix + item.name, item.line, item.reason)


def _items(part: Part, limits: Limits) -> Iterator[Item]:
    yield from part.refused
    if not part.files:
        yield from stdlib.read()
    for file in part.files:
        if format_of(file.name).is_risky:
            yield from _risky(file, part, limits)
        else:
            yield from _plain(file, part, limits)


def _risky(file: File, part: Part, limits: Limits) -> Iterator[Item]:
    if changed := _changed(file):
        yield changed
    else:
        yield from sandbox(limits).items(file, part)


def _plain(file: File, part: Part, limits: Limits) -> Iterator[Item]:
    if changed := _changed(file):
        yield changed
        return
    try:
        with open(file.path, "rb", buffering=0) as stream:
            yield from items(_content(file, stream, part, limits))
    except OSError as error:
        yield Quarantined(file.name, 0, f"cannot be read: {error.strerror or error}")


def _content(file: File, stream: IO[bytes], part: Part, limits: Limits) -> Content:
    known = format_of(file.name)
    content = Content(
        file.name,
        stream,
        known,
        limits,
        part.fields,
        part.patterns,
        start=part.start,
        stop=part.stop,
        first_line=part.first_line,
    )
    if not part.stop or known.reader != "jsonl":
        return content
    stream.seek(part.start)
    return replace(content, stream=Range(stream, part.stop - part.start))


def _changed(file: File) -> Quarantined | None:
    """Why the file is not the one that was planned for."""
    try:
        size = os.stat(file.path).st_size
    except OSError as error:
        return Quarantined(file.name, 0, f"cannot be read: {error.strerror}")
    if size != file.bytes:
        return Quarantined(file.name, 0, f"it had {file.bytes} bytes when the run began and has {size} now")
    return None
