"""Labels out of a labelling task as a dataset. `python -m atoll.data.engine.label.export` in a task directory.

The split `labels` has a row for every item, in the order they were added, each as it stands when it is read; tasks
that compare two texts also give `preferences`, rows of prompt, chosen and rejected. Nothing is held in memory but a
page of items and a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.data.engine.label.door import Door, own_key
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.labelling.table import PREFERENCE_COLUMNS, columns_of, preference, table_row
from atoll.data.manifest import Manifest, write_manifest

PAGE = 500
LABELS, PREFERENCES = "labels", "preferences"


def take_out(wanted: Mapping[str, Any], store: BlobStore, door: Door, work: Path) -> dict[str, Any]:
    """Write the labels as a dataset; the manifest's digest and the counts. Invalid when there is none."""
    fields = wanted["fields"]
    schema = {LABELS: columns_of(fields), PREFERENCES: PREFERENCE_COLUMNS}
    has_pairs = any(field["type"] == "pair" for field in fields)
    names = (LABELS, PREFERENCES) if has_pairs else (LABELS,)
    writers = {name: SplitWriter(store, _made(work / name), schema[name]) for name in names}
    seen = 0
    for page in door.rows(PAGE):
        for row in page:
            if row["final"] is None and wanted["decided_only"]:
                continue
            writers[LABELS].add(table_row(fields, row))
            pair = preference(fields, row) if has_pairs else None
            if pair is not None:
                writers[PREFERENCES].add({"id": row["id"], **pair})
        seen += len(page)
        task.report_progress("export", seen, None, "item")
    splits = {name: writer.close() for name, writer in writers.items()}
    counts = {name: split.rows for name, split in splits.items()}
    if not counts[LABELS]:
        hint = "label some items, or export all: decided_only: false"
        raise Invalid(f"no item of {wanted['task']!r} is decided", field="task", hint=hint)
    sources = [{"kind": "labels", "task": wanted["task"], "fields": fields}]
    used = {name: schema[name] for name in names}
    licence = wanted["licence"] or "unknown"
    manifest = Manifest(splits, counts, [], {}, licence, sources, parents=list(wanted["parents"]), schema=used)
    return {"manifest": write_manifest(store, manifest), "counts": counts}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Run the errand of a task's input."""
    with closing(Door(wanted, own_key())) as door:
        return take_out(wanted, BlobStore(task.blobs_url()), door, task.work_dir())


if __name__ == "__main__":
    task.run(main)
