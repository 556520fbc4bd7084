"""Items of a labelling task out of a dataset or a file. `python -m atoll.data.engine.label.items` in a task directory.

Items are named by their keys and adding one again changes nothing, so an errand that was killed begins anew and ends
with the same items. A line that is no item is refused by its number; nothing after it is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import IO, Any

import orjson

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey
from atoll.data.engine.label.door import Door, own_key
from atoll.data.manifest import open_split, read_manifest
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads

ITEMS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
LINE_BYTES_MAX = 2 << 20
TEXTS = ("text", "prompt", "a", "b")


def bring_in(wanted: Mapping[str, Any], store: BlobStore, door: Door, keys: Sequence[DataKey] = ()) -> dict[str, Any]:
    """Send every item of the source to the task; how many were new, how many known. keys: open a sealed file."""
    counts = {"added": 0, "known": 0}
    for items in _packs(_items(wanted, store, keys)):
        found = door.send("items", {"items": items})
        counts = {name: counts[name] + found[name] for name in counts}
        done = counts["added"] + counts["known"]
        task.report_progress("import", done, wanted["limit"], "item", counts=counts)
    if not counts["added"] + counts["known"]:
        raise Invalid("the source holds no item", field="source", hint="name another split or file")
    return {"counts": counts}


def _items(wanted: Mapping[str, Any], store: BlobStore, keys: Sequence[DataKey]) -> Iterator[dict[str, Any]]:
    if wanted["file"]:
        rows = _lines(Uploads(store, keys).open(wanted["file"], is_sealed=wanted.get("sealed", False)))
    else:
        rows = _documents(store, wanted["manifest"], wanted["split"])
    for number, row in enumerate(rows, 1):
        if wanted["limit"] is not None and number > wanted["limit"]:
            return
        yield item_of(row, wanted["columns"], number)


def item_of(row: Mapping[str, Any], columns: Mapping[str, str], number: int) -> dict[str, Any]:
    """The item a row is: its key and texts by `columns`, and everything else as `meta`."""
    own_names = {"key": "key" if "key" in row else "id", **{name: name for name in TEXTS}, **columns}
    key = row.get(own_names["key"])
    if not isinstance(key, str | int) or key == "":
        hint = f"every row needs a key; say which column has it: columns: {{key: …}}; there are {', '.join(row)}"
        raise Invalid(f"row {number} has no {own_names['key']!r}", field="source.columns.key", hint=hint)
    item: dict[str, Any] = {"key": str(key)}
    for name in TEXTS:
        value = row.get(own_names[name])
        if value is not None:
            item[name] = value if isinstance(value, str) else orjson.dumps(value).decode()
    for name in ("priority", "prelabel", "answer"):
        if row.get(name) is not None:
            item[name] = row[name]
    used = {*own_names.values(), "priority", "prelabel", "answer", "meta"}
    meta = {name: value for name, value in row.items() if name not in used and value is not None}
    given = row.get("meta")
    return item | {"meta": {**meta, **given} if isinstance(given, dict) else meta}


def _documents(store: BlobStore, manifest: str, split: str) -> Iterator[dict[str, Any]]:
    yield from open_split(store, read_manifest(store, manifest), split)


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    with file as stream:
        number = 0
        while line := stream.readline(LINE_BYTES_MAX + 1):
            number += 1
            if line.strip():
                yield _line(line, number)


def _line(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise Invalid(f"line {number} is longer than {LINE_BYTES_MAX} bytes", field="source.file")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"line {number} is not JSON: {error}", field="source.file", hint="one object a line") from error
    if not isinstance(value, dict):
        raise Invalid(f"line {number} is not a JSON object", field="source.file", hint="one object a line")
    return value


def _packs(items: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Items in packs the server takes at once."""
    pack: list[dict[str, Any]] = []
    size = 0
    for item in items:
        pack.append(item)
        size += sum(len(value) for value in item.values() if isinstance(value, str))
        if len(pack) == ITEMS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield pack
            pack, size = [], 0
    if pack:
        yield pack


def main(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Run the errand of a task's input."""
    keys = from_environment()
    with closing(Door(wanted, own_key())) as door:
        return bring_in(wanted, BlobStore(task.blobs_url()), door, keys)


if __name__ == "__main__":
    task.run(main)
