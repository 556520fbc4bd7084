"""What files, uploads, batches and imports speak of is kept; what they no longer speak of goes."""

from __future__ import annotations

from pathlib import Path

from atoll.core.blobs import BlobStore
from atoll.core.clock import SystemClock
from atoll.core.store import Create, SetSpec, Store
from atoll.data.files import UPLOAD, create_file
from atoll.server import kinds
from atoll.server.sweep import sweep

assert kinds.DOMAINS
GRACE_S = -5.0


def test_the_blobs_of_files_and_parts_live_as_long_as_they_do(tmp_path: Path, sqlite_store: Store) -> None:
    store = Store(sqlite_store.database, SystemClock())
    blobs, scope = BlobStore(str(tmp_path / "blobs")), store.everything()
    whole, part, stray = (blobs.put_bytes(data) for data in (b"whole", b"part", b"stray"))
    wanted = {"filename": "a", "purpose": "batch", "size_bytes": 4, "expires_at": 1.0}
    parts = [{"id": "part-1", "digest": part.digest, "size_bytes": 4}]
    spec = UPLOAD.parse_spec({**wanted, "parts": parts})
    scope.write(
        [
            create_file("red", "file-a", "a", "batch", digest=whole.digest, size_bytes=whole.size_bytes),
            Create("Upload", "red", "upload-a", spec),
        ]
    )
    assert sweep(store, blobs, 1000, GRACE_S) == [stray.digest]
    upload = scope.get("Upload", "upload-a", "red")
    scope.write([SetSpec(upload, upload.spec | {"state": "cancelled", "parts": []})])
    assert sweep(store, blobs, 1000, GRACE_S) == [part.digest]
    assert blobs.exists(whole.digest)
