"""How a dataset lies in a folder or a tar: manifest.json, and SPLIT/00000.parquet, SPLIT/00001.parquet, …

Splits and tables (notes, rejected) lie the same way. The layout is that of stand-alone curation, so what was curated
without a server can be imported, and what was exported can be read by anything that reads Parquet.
Pure: names and figures; who reads and writes them is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from atoll.core.errors import Invalid, NotFound
from atoll.data.manifest import Manifest, Shard, Split

MANIFEST = "manifest.json"
_SHARD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})/(\d{5,9})\.parquet")


def parts_of(manifest: Manifest) -> dict[str, Split]:
    """Splits and tables by name, splits first; Invalid when a name cannot be a folder's."""
    tables: dict[str, Split] = getattr(manifest, "tables", {})
    parts = {**manifest.splits, **tables}
    for name in parts:
        if not _SHARD.fullmatch(path_of(name, 0)):
            raise Invalid(f"{name!r} cannot name a split", field="dataset", hint="letters, digits, _ . -")
    return parts


def path_of(part: str, number: int) -> str:
    """The path of shard `number` (from 0) of a split or table."""
    return f"{part}/{number:05d}.parquet"


def members(manifest: Manifest) -> Iterator[tuple[str, Shard]]:
    """Path and shard of every file beside the manifest, in order."""
    for name, part in parts_of(manifest).items():
        for number, shard in enumerate(part.shards):
            yield path_of(name, number), shard


def shard_at(manifest: Manifest, path: str) -> Shard:
    """The shard that lies at `path`; NotFound says what there is."""
    match = _SHARD.fullmatch(path)
    parts = parts_of(manifest)
    if match and match[1] in parts and int(match[2]) < len(parts[match[1]].shards):
        return parts[match[1]].shards[int(match[2])]
    there_are = ", ".join(f"{name} ({len(part.shards)})" for name, part in parts.items() if part.shards)
    raise NotFound(f"the dataset has no file {path!r:.200}", hint=f"shards by split: {there_are or 'none'}")


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """What a version's status tells of its manifest."""
    shards = [shard for _, shard in members(manifest)]
    return {
        "columns": {name: dict(columns) for name, columns in manifest.schema.items()},
        "counts": {**{name: part.rows for name, part in manifest.splits.items()}, **manifest.counts},
        "size_bytes": sum(shard.bytes for shard in shards),
        "shards": len(shards),
        "licence": manifest.licence,
        "recipe": manifest.recipe,
        "privacy": dict(getattr(manifest, "privacy", None) or {}),
        "sources": list(manifest.sources),
    }
