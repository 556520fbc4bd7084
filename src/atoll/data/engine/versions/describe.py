"""What a dataset holds, on one page: sizes, languages, sources, what was dropped, what personal data was found.

Figures of the manifest are told as they stand; languages and sources are counted from the columns that hold them,
reading only these. Counts of sources are exact up to KEYS_MAX different ones, then the rarest are forgotten.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from atoll.data.archive import Opened
from atoll.data.engine.versions.rows import batches
from atoll.data.layout import members, parts_of
from atoll.data.manifest import Shard, Split

TOP = 10
KEYS_MAX = 50_000
DOCUMENT_SPLITS = ("train", "heldout")


def describe(opened: Opened) -> dict[str, Any]:
    """Everything about a dataset that fits a page, as plain values."""
    manifest = opened.manifest
    parts = parts_of(manifest)
    counted = _counted(opened)
    return {
        "name": opened.name,
        "counts": dict(manifest.counts),
        "splits": {name: _part(opened, name, part) for name, part in parts.items()},
        "size_bytes": sum(shard.bytes for _, shard in members(manifest)),
        "licence": manifest.licence,
        "languages": dict(counted["language"].most_common(TOP)),
        "top_sources": dict(counted["source"].most_common(TOP)),
        "sources": list(manifest.sources),
        "funnel": [{k: step.get(k) for k in ("rule", "dropped")} for step in manifest.funnel],
        "passed_over": dict(manifest.passed_over),
        "privacy": dict(getattr(manifest, "privacy", None) or {}),
        "recipe": manifest.recipe,
        "parents": list(manifest.parents),
    }


def _part(opened: Opened, name: str, part: Split) -> dict[str, Any]:
    columns = opened.manifest.schema.get(name) or {}
    size_bytes = sum(shard.bytes for shard in part.shards)
    return {"rows": part.rows, "shards": len(part.shards), "size_bytes": size_bytes, "columns": dict(columns)}


def _counted(opened: Opened) -> dict[str, Counter[str]]:
    """Documents by language and by source, of the splits of documents; languages else from the notes."""
    found: dict[str, Counter[str]] = {"language": Counter(), "source": Counter()}
    parts = parts_of(opened.manifest)
    for path, shard in members(opened.manifest):
        part = path.partition("/")[0]
        if part in DOCUMENT_SPLITS or (part == "notes" and not found["language"] and "train" in parts):
            _count(opened, path, shard, found, with_sources=part != "notes")
    return found


def _count(opened: Opened, path: str, shard: Shard, found: dict[str, Counter[str]], *, with_sources: bool) -> None:
    wanted = ("language", "url", "source") if with_sources else ("language",)
    for batch in batches(opened, path, shard, wanted):
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        found["language"].update(str(code) for code in columns.get("language", ()) if code)
        if with_sources:
            urls = columns.get("url") or [None] * batch.num_rows
            names = columns.get("source") or [None] * batch.num_rows
            found["source"].update(source_of(url, name) for url, name in zip(urls, names, strict=True))
            _forget_rarest(found["source"])


def source_of(url: str | None, name: str | None) -> str:
    """What a document is counted under: the host of its URL, else its source's name or top folder."""
    host = _host(url or "") or _host(name or "")
    if host:
        return host
    before, colon, _ = (name or "").partition(":")
    folder, slash, _ = (name or "").partition("/")
    return before if colon else folder if slash else "(files)" if name else "(unknown)"


def _host(text: str) -> str:
    try:
        return urlsplit(text).hostname or "" if "://" in text else ""
    except ValueError:
        return ""


def _forget_rarest(counter: Counter[str]) -> None:
    if len(counter) > KEYS_MAX:
        kept = counter.most_common(KEYS_MAX // 2)
        counter.clear()
        counter.update(dict(kept))
