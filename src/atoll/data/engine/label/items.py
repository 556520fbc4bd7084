"""Items of a labelling task out of a dataset or a file. `python -m atoll.data.engine.label.items` in a task directory.

Items are named by their keys and adding one again changes nothing, so an errand that was killed begins anew and ends
with the same items. A row that is no item is refused by its number; nothing after it is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import IO, Any

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.sealed import DataKey
from atoll.data.engine.label.door import Door, own_key
from atoll.data.labelling.intake import items_of, lines_of
from atoll.data.manifest import open_split, read_manifest
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads

ITEMS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20


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
        rows = _in_file(Uploads(store, keys).open(wanted["file"], is_sealed=wanted.get("sealed", False)))
    else:
        documents = open_split(store, read_manifest(store, wanted["manifest"]), wanted["split"])
        rows = ((f"row {number}", row) for number, row in enumerate(documents, 1))
    return items_of(islice(rows, wanted["limit"]), wanted["columns"])


def _in_file(file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    with file as stream:
        yield from lines_of(stream)


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
