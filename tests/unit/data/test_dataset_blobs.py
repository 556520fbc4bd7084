"""Which blobs of datasets live: shards of splits and of tables, through the manifests of versions that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atoll.core.clock import VirtualClock
from atoll.core.store import MarkDeleting, Store
from atoll.data.layout import members
from atoll.data.manifest import Split, read_manifest, write_manifest
from atoll.data.versions import make_version
from atoll.server import kinds
from atoll.server.sweep import living_blobs
from small_datasets import Shelf, dataset, document, shard

assert kinds.DOMAINS


def test_shards_and_tables_live_as_long_as_a_version_names_them(
    sqlite_store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    shelf = Shelf(sqlite_store, clock, tmp_path)
    digest = dataset(shelf.blobs, tmp_path, {"train": [[document("a", "x")]]})
    notes = shard(shelf.blobs, tmp_path, [{"id": "a", "characters": 1}])
    whole = replace(read_manifest(shelf.blobs, digest), tables={"notes": Split((notes,), 1)})
    manifest = write_manifest(shelf.blobs, whole)
    shelf.scope.write(make_version(shelf.scope, "p", "docs", manifest).writes)
    shelf.settle()
    found = {s.digest for _, s in members(whole)}
    assert notes.digest in found and living_blobs(sqlite_store, shelf.blobs) == {manifest, *found}
    shelf.scope.write([MarkDeleting(shelf.get("docs.v1", "DatasetVersion"))])
    shelf.settle()
    assert living_blobs(sqlite_store, shelf.blobs) == set()


def test_a_blob_is_deleted_at_once_and_only_once(tmp_path: Path, sqlite_store: Store, clock: VirtualClock) -> None:
    blobs = Shelf(sqlite_store, clock, tmp_path).blobs
    digest = blobs.put_bytes(b"gone").digest
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.exists(digest)
