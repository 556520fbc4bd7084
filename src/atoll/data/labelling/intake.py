"""Items as they come in: lines of JSON and rows of a dataset, whatever else stands in them. Pure.

A row has a key, texts, and everything else as `meta`. What is no item is refused by its place; whether an item fits a
task's fields is not known here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import orjson
from pydantic import ValidationError

from atoll.core.errors import Invalid
from atoll.data.labelling.schema import Item

LINE_BYTES_MAX = 2 << 20
TEXTS = ("text", "prompt", "a", "b")
OTHERS: dict[str, type] = {"priority": int, "prelabel": dict, "answer": dict}
"""What an item may say of itself beside its texts. Columns of these names that hold anything else are other columns."""


def lines_of(stream: IO[bytes], name: str = "line ") -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line that is not empty; Invalid names the first that is no JSON object."""
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield f"{name}{number}", _object(line, f"{name}{number}")


def items_of(rows: Iterable[tuple[str, Mapping[str, Any]]], columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The items that rows are, each told with where it stands; Invalid names the first that is none."""
    return (item_of(row, columns, where) for where, row in rows)


def item_of(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """The item a row is: its key and texts by `columns`, and everything else as `meta`."""
    own_names = {"key": "key" if "key" in row else "id", **{name: name for name in TEXTS}, **columns}
    item: dict[str, Any] = {"key": _key(row, own_names["key"], where)}
    for name in TEXTS:
        value = row.get(own_names[name])
        if value is not None:
            item[name] = value if isinstance(value, str) else orjson.dumps(value).decode()
    taken = set(own_names.values())
    found = {name: row[name] for name, kind in OTHERS.items() if name not in taken and _is(row.get(name), kind)}
    given = row.get("meta")
    taken |= found.keys() | ({"meta"} if isinstance(given, dict) else set())
    meta = {name: value for name, value in row.items() if name not in taken and value is not None}
    item |= {**found, "meta": {**meta, **given} if isinstance(given, dict) else meta}
    try:
        Item.model_validate(item)
    except ValidationError as error:
        told = error.errors()[0]
        field = ".".join(map(str, told["loc"]))
        raise Invalid(f"{where}: {field}: {told['msg']}", field=field, hint="mend it, or leave it out") from error
    return item


def _key(row: Mapping[str, Any], column: str, where: str) -> str:
    key = row.get(column)
    if not _is(key, str) and not _is(key, int):
        said = f"has no {column!r}" if key is None else f"has {key!r:.80} as {column!r}"
        there_are = ", ".join(row)
        hint = "every item needs a key, a text or a whole number: in `key`, `id`, or the column that the source's "
        hint += f"columns name; there are {there_are}"
        raise Invalid(f"{where} {said}", field="key", hint=hint)
    return str(key)


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value != ""


def _object(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise Invalid(f"{where} is longer than {LINE_BYTES_MAX} bytes", field="items", hint="shorten its texts")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Invalid(
            f"{where} is not JSON: {error}", field="items", hint="one JSON object a line, in UTF-8"
        ) from error
    if not isinstance(value, dict):
        raise Invalid(f"{where} is not a JSON object", field="items", hint="one JSON object a line")
    return value
