"""Blobs go when nothing mentions them, and never before."""

from __future__ import annotations

import json
from pathlib import Path

from atoll.core.blobs import BlobStore, digest_of
from atoll.core.clock import SystemClock
from atoll.core.database import Database
from atoll.core.store import Create, MarkDeleting, Note, Remove, Store
from atoll.server import kinds
from atoll.server.sweep import living_blobs, sweep

assert kinds.DOMAINS
GRACE_S = -5.0


def made(tmp_path: Path, sqlite_url: str) -> tuple[Store, BlobStore, str, str]:
    """A store with one dataset version: its manifest and the shard only the manifest names."""
    store, blobs = Store(Database(sqlite_url), SystemClock()), BlobStore(str(tmp_path / "blobs"))
    shard = blobs.put_bytes(b"rows").digest
    manifest = blobs.put_bytes(json.dumps({"splits": {"train": {"shards": [{"digest": shard}]}}}).encode()).digest
    spec = {"dataset": "d", "manifest": manifest, "curation_run": "", "counts": {}}
    store.everything().write([Create("DatasetVersion", "default", "d.v1", spec)])
    return store, blobs, manifest, shard


def test_a_datasets_shards_live_through_its_manifest(tmp_path: Path, sqlite_url: str) -> None:
    store, blobs, manifest, shard = made(tmp_path, sqlite_url)
    stray = blobs.put_bytes(b"stray").digest
    assert living_blobs(store, blobs) == {manifest, shard}
    assert sweep(store, blobs, 1000, GRACE_S) == [stray]
    assert sorted(blobs.digests()) == sorted([manifest, shard])
    store.database.close()


def test_what_was_deleted_is_collected_after_the_grace(tmp_path: Path, sqlite_url: str) -> None:
    store, blobs, manifest, shard = made(tmp_path, sqlite_url)
    scope = store.everything()
    scope.write([MarkDeleting(scope.get("DatasetVersion", "d.v1", "default"))])
    scope.write([Remove(scope.get("DatasetVersion", "d.v1", "default"))])
    assert sweep(store, blobs, 1000, grace_s=3600.0) == []
    assert sorted(sweep(store, blobs, 1000, GRACE_S)) == sorted([manifest, shard])
    store.database.close()


def test_a_fresh_blob_outlives_a_sweep(tmp_path: Path, sqlite_url: str) -> None:
    store, blobs, *_ = made(tmp_path, sqlite_url)
    blobs.put_bytes(b"not reported yet")
    assert sweep(store, blobs, 1000) == []
    assert blobs.exists(digest_of(b"not reported yet"))
    store.database.close()


def test_old_changes_are_dropped(tmp_path: Path, sqlite_url: str) -> None:
    store, blobs, *_ = made(tmp_path, sqlite_url)
    resource = store.everything().get("DatasetVersion", "d.v1", "default")
    store.everything().write([Note(resource, f"Note{n}") for n in range(50)])
    sweep(store, blobs, 10)
    assert len(store.everything().changes(0)) == 10
    store.database.close()
