"""A version's files where an engine can open them: verified against their digests, in a folder by their names.

The folder holds links to the store's own blobs or the node's cache; nothing is copied. Never write to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import Invalid
from atoll.core.files import read_json
from atoll.models.engine.local import verified_file
from atoll.serving.engine.base import ModelFile


def verified(file: ModelFile, store: BlobStore, cache: Path) -> Path:
    """The file on this node, its bytes checked. IntegrityError, NotFound."""

    def report(done_bytes: int, total_bytes: int) -> None:
        task.report_progress("load", done_bytes, total_bytes, "byte", f"checking {file.name}")

    return verified_file(store, file.digest, cache, report)


def folder(files: Sequence[ModelFile], into: Path, store: BlobStore, cache: Path) -> Path:
    """`into`, holding every file under its name. Invalid for a name that leaves the folder or comes twice."""
    into.mkdir(parents=True, exist_ok=True)
    seen: set[PurePosixPath] = set()
    for file in files:
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or "\0" in file.name or name in seen:
            raise Invalid(f"file name {file.name!r} leaves the model's folder or comes twice", field="files")
        seen.add(name)
        link = into / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(verified(file, store, cache))
    return into


def config(model: Path, name: str = "config.json") -> dict[str, object]:
    """A configuration among the model's files; empty when it has none."""
    return read_json(model / name) or {}
