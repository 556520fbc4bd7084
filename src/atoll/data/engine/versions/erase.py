"""An erasure: matching rows leave every version. `python -m atoll.data.engine.versions.erase` in a task directory.

Only shards that hold a match are written anew; a version without a match keeps its manifest. What is done is kept by
shard and by version in the work folder, so a task that is killed goes on, and gives the same digests. Versions are not
changed here: the result says which manifest takes the place of which, and the controller replaces them all at once.
Identifiers leave this process as slow salted hashes only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atoll.core import task
from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, NotFound
from atoll.core.files import disk_full_named, read_json, write_json
from atoll.core.sealed import DataKey
from atoll.data.certificate import hash_identifier
from atoll.data.engine.versions.descent import Descent
from atoll.data.engine.versions.matching import (
    Mask,
    Match,
    Origins,
    derived,
    ids_of_documents,
    meant,
    origins_of,
    redacted,
)
from atoll.data.engine.versions.search import search_files
from atoll.data.layout import parts_of
from atoll.data.manifest import Manifest, Shard, Split, read_manifest, read_shard, write_manifest
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads

DOCUMENT_SPLITS = ("train", "heldout")
ENTERED = (*DOCUMENT_SPLITS, "rejected")
"""Parts whose documents are counted in `documents_in`."""

Report = Callable[..., None]


@dataclass(slots=True)
class Rewritten:
    """One version: its manifest before and after (equal when nothing matched), and what was removed."""

    name: str
    before: str
    after: str
    shards_rewritten: int = 0
    rows: int = 0
    removed: dict[str, int] = field(default_factory=dict)


def erase(
    wanted: Mapping[str, Any],
    store: BlobStore,
    work: Path,
    report: Report = lambda *args, **more: None,
    keys: Sequence[DataKey] = (),
) -> dict[str, Any]:
    """Write anew what `wanted["match"]` means in `wanted["versions"]`, and find the files that hold its texts.

    Every version is told as {name, manifest, parents}, and in `wanted["had"]` are the manifests any has or had, by its
    name. A document that leaves a version leaves those made from it too, by the id it has there. `wanted["gone"]` are
    blobs of earlier rounds, with what left then. keys: open the files that are sealed.

    The result: `versions` (Rewritten), `files` (ids that hold a text), `opaque` (ids that could not be searched),
    `searched` (hashed identifiers), `gone` (the blob with the ids of documents that left, by version).
    """
    match = Match.of(wanted["match"])
    descent = Descent(wanted["versions"], wanted.get("had", {}))
    for digest in wanted.get("gone", ()):
        descent.left(orjson.loads(store.read(digest)))
    eraser = _Eraser(store, work, match, descent)
    versions = []
    for number, version in enumerate(descent.ordered()):
        with _named(version["name"]):
            versions.append(asdict(eraser.version(version["name"], version["manifest"])))
        report("rewrite", number + 1, len(wanted["versions"]), "version")
    holding, opaque = search_files(wanted["files"], match.texts, Uploads(store, keys), work, report)
    salt = wanted["salt"]
    told = {name: [hash_identifier(salt, value) for value in values] for name, values in wanted["told"].items()}
    gone = store.put_bytes(orjson.dumps(eraser.gone)).digest
    return {"versions": versions, "files": holding, "opaque": opaque, "searched": told, "gone": gone}


@contextmanager
def _named(version: str) -> Iterator[None]:
    """What is missing or damaged is told with the version it belongs to."""
    try:
        yield
    except (IntegrityError, NotFound) as error:
        hint = "nothing was erased; delete the version, or bring back what it was, then erase again"
        raise type(error)(f"version {version}: {error.message}", hint=hint) from error


class _Eraser:
    """Rewrites versions, remembering shards and versions that are done."""

    def __init__(self, store: BlobStore, work: Path, match: Match, descent: Descent) -> None:
        self._store = store
        self._work = work
        self._match = match
        self._descent = descent
        self.gone: dict[str, list[str]] = {}
        for name in ("shards", "versions"):
            (work / name).mkdir(parents=True, exist_ok=True)

    def version(self, name: str, digest: str) -> Rewritten:
        """The version without what is erased."""
        manifest = read_manifest(self._store, digest)
        inherited = self._descent.inherited(name, manifest.sources)
        path = self._work / "versions" / f"{_hex(digest)}-{_fingerprint(repr(sorted(inherited)))}.json"
        kept = read_json(path)
        if kept is None:
            after, done = self._manifest(manifest, inherited)
            done.update(after=digest if after == manifest else write_manifest(self._store, after))
            _keep(path, kept := done)
        self.gone[name] = kept["gone"]  # type: ignore[assignment]
        self._descent.left({name: self.gone[name]})
        return Rewritten(name, digest, **{field: value for field, value in kept.items() if field != "gone"})  # type: ignore[arg-type]

    def _manifest(self, manifest: Manifest, inherited: Collection[str]) -> tuple[Manifest, dict[str, Any]]:
        origins = origins_of(manifest.sources, self._match.digests)
        parts = parts_of(manifest)
        own = {shard.digest: self._meant(shard, origins) for part in parts.values() for shard in part.shards}
        gone = pa.array(sorted({*inherited, *(i for part in own.values() for i in part.ids)}), pa.string())
        tally = _Tally()
        going = _Going(gone, _fingerprint(repr(gone.to_pylist())))
        made = {name: self._part(name, part, own, going, tally) for name, part in parts.items()}
        told = tally.told() | {"gone": gone.to_pylist()}
        if made == parts and not _says(manifest, self._match):
            return manifest, told
        names = set(gone.to_pylist())
        texts = self._match.texts
        after = replace(
            manifest,
            splits={name: made[name] for name in manifest.splits},
            tables={name: made[name] for name in manifest.tables},
            counts=_counts(manifest, made, tally),
            funnel=redacted(manifest.funnel, texts, names),
            recipe=redacted(manifest.recipe, texts),
            sources=redacted(manifest.sources, texts),
        )
        return after, told

    def _meant(self, shard: Shard, origins: Origins) -> _Own:
        """Which rows of a shard the match means; where these are documents, their ids."""
        path = self._work / "shards" / f"{_hex(shard.digest)}-{_fingerprint(repr(origins))}.json"
        kept = read_json(path)
        if kept is None:
            table = read_shard(self._store, shard)
            hits = meant(table, self._match, origins)
            ids = ids_of_documents(table, hits) if hits.any() else []
            _keep(path, kept := {"rows": np.flatnonzero(hits).tolist(), "ids": ids})
        return _Own(**kept)  # type: ignore[arg-type]

    def _part(self, name: str, part: Split, own: Mapping[str, _Own], going: _Going, tally: _Tally) -> Split:
        shards = []
        for shard in part.shards:
            left, figures = self._left(shard, own[shard.digest], going)
            tally.add(name, shard, left, figures)
            if left.rows or left == shard:
                shards.append(left)
        return Split(tuple(shards), sum(shard.rows for shard in shards))

    def _left(self, shard: Shard, own: _Own, going: _Going) -> tuple[Shard, dict[str, int]]:
        """The shard without what goes, and how many rows and characters go."""
        if not own.rows and not len(going.ids):
            return shard, {}
        mark = _fingerprint(f"{own.rows} {going.mark}")
        path = self._work / "shards" / f"{_hex(shard.digest)}-{mark}-left.json"
        kept = read_json(path)
        if kept is None:
            _keep(path, kept := self._written(shard, own, going.ids))
        return Shard(**kept["shard"]), dict(kept["figures"])  # type: ignore[call-overload,arg-type]

    def _written(self, shard: Shard, own: _Own, gone: pa.Array) -> dict[str, Any]:
        table = read_shard(self._store, shard)
        drop: Mask = derived(table, gone)
        drop[own.rows] = True
        if not drop.any():
            return {"shard": asdict(shard), "figures": {}}
        figures = {"rows": int(drop.sum()), "characters": _characters(table.filter(pa.array(drop)))}
        left = table.filter(pa.array(~drop))
        if not left.num_rows:
            return {"shard": asdict(Shard(shard.digest, 0, 0)), "figures": figures}
        path = self._work / "shard.parquet"
        with disk_full_named(path):
            pq.write_table(left, path, compression="zstd")
        blob = self._store.put_file(path)
        path.unlink()
        return {"shard": asdict(Shard(blob.digest, left.num_rows, blob.size_bytes)), "figures": figures}


@dataclass(frozen=True, slots=True)
class _Going:
    """Ids of the documents that leave a version, and a name for this set."""

    ids: pa.Array
    mark: str


@dataclass(frozen=True, slots=True)
class _Own:
    """Rows of a shard the match itself means, and the ids of these where the rows are documents."""

    rows: list[int]
    ids: list[str]


@dataclass(slots=True)
class _Tally:
    """What leaves a version."""

    shards_rewritten: int = 0
    rows: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    characters: int = 0

    def add(self, part: str, before: Shard, after: Shard, figures: Mapping[str, int]) -> None:
        self.rows += before.rows
        if figures:
            self.shards_rewritten += 1
            self.removed[part] = self.removed.get(part, 0) + figures["rows"]
            self.characters += figures["characters"] if part in DOCUMENT_SPLITS else 0

    def told(self) -> dict[str, Any]:
        return {"shards_rewritten": self.shards_rewritten, "rows": self.rows, "removed": self.removed}


def _counts(manifest: Manifest, made: Mapping[str, Split], tally: _Tally) -> dict[str, int]:
    counts = {name: made[name].rows if name in made else value for name, value in manifest.counts.items()}
    lost = {
        "documents_in": sum(tally.removed.get(name, 0) for name in ENTERED),
        "documents_out": sum(tally.removed.get(name, 0) for name in DOCUMENT_SPLITS),
        "characters": tally.characters,
    }
    return {name: max(0, value - lost.get(name, 0)) for name, value in counts.items()}


def _says(manifest: Manifest, match: Match) -> bool:
    """Whether the manifest itself holds one of the texts."""
    told: Sequence[Any] = [manifest.funnel, manifest.recipe, manifest.sources]
    return any(redacted(value, match.texts) != value for value in told)


def _characters(table: pa.Table) -> int:
    kind = table.schema.field("text").type if "text" in table.schema.names else None
    is_counted = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return int(pc.sum(pc.utf8_length(table["text"])).as_py() or 0) if is_counted else 0


def _keep(path: Path, value: Mapping[str, Any]) -> None:
    """Remember what was done; after a power cut it is simply done again."""
    write_json(path, value, durable=False)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def shards_in(manifest: Manifest) -> Iterator[str]:
    """Digests of all shards of a manifest."""
    return (shard.digest for part in parts_of(manifest).values() for shard in part.shards)


def main() -> None:
    """Run the task in the current task directory."""
    keys = from_environment()
    task.run(lambda value: erase(value, BlobStore(task.blobs_url()), task.work_dir(), task.report_progress, keys))


if __name__ == "__main__":
    main()
