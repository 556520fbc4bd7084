"""A prebuilt dataset: files of a package, a hub, a folder or uploads in, a dataset out.

`python -m atoll.data.engine.versions.prebuilt` in a task directory. Documents are taken as they stand, normalised in
Unicode and nothing else; what cannot be read is counted and named in the funnel. The licence is the source's own
unless it says none. Nothing of a package is ever run.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll.core import task
from atoll.core.blobs import BlobStore, digest_of_file
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.core.origins.obtain import Obtained, obtain
from atoll.core.origins.source import Source, listed, matches, parse
from atoll.core.sealed import DataKey
from atoll.data.engine.curate import plan
from atoll.data.engine.normalise.text import normalise
from atoll.data.engine.read import DOCUMENTS, Quarantined, documents, nothing_readable, plan_parts
from atoll.data.engine.versions.chats import Opened, chats_of
from atoll.data.engine.versions.output import SplitWriter
from atoll.data.manifest import DOCUMENT_COLUMNS, SPLITS, Manifest, Split, write_manifest
from atoll.governance.data_keys import from_environment
from atoll.governance.uploads import Uploads

COLUMNS = {**DOCUMENT_COLUMNS, "title": "string", "url": "string"}
FILES_MAX = 10_000
SAMPLES_MAX = 5
REPORT_EVERY = 500
REPORT_EVERY_S = 0.25
SIDES = {"train": "files", "heldout": "heldout_files"}

Report = Callable[..., None]


@dataclass(slots=True)
class Taken:
    """The files of each side, by name, and what the source says of itself."""

    files: dict[str, dict[str, Path]]
    source: dict[str, Any]
    licence: str | None
    origin: dict[str, Any] = field(default_factory=dict)


def import_prebuilt(
    wanted: Mapping[str, Any],
    store: BlobStore,
    work: Path,
    cache: Path,
    report: Report = lambda *args, **more: None,
    keys: Sequence[DataKey] = (),
) -> dict[str, Any]:
    """Make the dataset `wanted` names in `store`; manifest digest, counts and origin.

    Raises NotFound for a missing source, Invalid when no file fits or nothing can be read, IntegrityError for bytes
    that are not those promised. keys: open the uploads that are sealed.
    """
    with _scratch(work) as folder:
        uploads = Uploads(store, keys)
        taken = _uploads(wanted, uploads, folder) if wanted["uploads"] else _source(wanted, cache, folder, report)
        _check(taken, wanted["sha256"])
        licence = wanted["licence"] or taken.licence or "unknown"
        make = _chats if wanted["rows"] == "chats" else _documents
        manifest = make(taken, wanted, licence, store, folder, report)
    counts = {name: split.rows for name, split in manifest.splits.items()} | manifest.counts
    return {"manifest": write_manifest(store, manifest), "counts": counts, "origin": taken.origin}


# -- which files -------------------------------------------------------------------------------------------------------


def _source(wanted: Mapping[str, Any], cache: Path, folder: Path, report: Report) -> Taken:
    source = parse(wanted["source"], "source of datasets")
    found = obtain(source, lambda names: _chosen(names, wanted, source), cache, folder, progress_of(report), "dataset")
    origin = {"source": str(source), "resolved": found.resolved, "sha256": found.sha256}
    kind = {"pypi": "package", "hf": "hub", "file": "folder"}[source.kind]
    told = {"kind": kind, "reference": str(source), "resolved": found.resolved, "licence": found.licence or ""}
    check_published(found)
    return Taken(_by_side(found.files, wanted), told, found.licence, origin)


def _chosen(names: Sequence[str], wanted: Mapping[str, Any], source: Source) -> list[str]:
    patterns = [*(wanted["files"] or DOCUMENTS), *wanted["heldout_files"]]
    chosen = sorted(name for name in set(names) if matches(name, patterns) and ".dist-info/" not in name)
    if not chosen or len(chosen) > FILES_MAX:
        there_are = listed(sorted(n for n in names if ".dist-info/" not in n))
        words = f"{source} holds {len(chosen)} files like {', '.join(patterns[:6])}"
        raise NotFound(words, hint=f"name at most {FILES_MAX} by files; it holds: {there_are}")
    return chosen


def _by_side(files: Mapping[str, Path], wanted: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """The files of each side; a file both patterns fit is held out."""
    patterns = wanted["heldout_files"]  # perhaps written with the folder all files share, which names lost
    heldout = {n: p for n, p in files.items() if matches(n, patterns) or any(w.endswith(f"/{n}") for w in patterns)}
    if wanted["heldout_files"] and not heldout:
        raise NotFound(f"no file is like {', '.join(patterns)}", hint=f"there are: {listed(sorted(files))}")
    return {"train": {n: p for n, p in files.items() if n not in heldout}, "heldout": heldout}


def _uploads(wanted: Mapping[str, Any], uploads: Uploads, folder: Path) -> Taken:
    """Uploaded files under their names, each in a folder of its own."""
    files: dict[str, Path] = {}
    for upload in wanted["uploads"]:
        name = upload["name"] if len(wanted["uploads"]) == 1 else f"{upload['id']}/{upload['name']}"
        path = folder / upload["id"] / Path(upload["name"]).name
        files[name] = uploads.fetch(upload["digest"], path, is_sealed=upload.get("sealed", False))
    told = [{"kind": "upload", "digest": u["digest"], "name": u["id"]} for u in wanted["uploads"]]
    chosen = {n: p for n, p in files.items() if not wanted["files"] or matches(n, _patterns(wanted))}
    return Taken(_by_side(chosen, wanted), {"uploads": told}, None, {"uploads": [u["id"] for u in wanted["uploads"]]})


def _patterns(wanted: Mapping[str, Any]) -> list[str]:
    return [*wanted["files"], *wanted["heldout_files"]]


def _check(taken: Taken, expected: Mapping[str, str]) -> None:
    files = {name: path for side in taken.files.values() for name, path in side.items()}
    for name, promised in expected.items():
        if name not in files:
            raise Invalid(f"sha256 names {name!r}, which is not taken", field="sha256", hint=listed(sorted(files)))
        _require(name, digest_of_file(files[name]), promised)


def check_published(found: Obtained) -> None:
    """IntegrityError when files are not what a hub says they are."""
    for name, promised in (found.published or {}).items():
        _require(name, digest_of_file(found.files[name]), promised)


def _require(name: str, got: str, promised: str) -> None:
    if got.removeprefix("sha256:") != promised.lower().removeprefix("sha256:"):
        words = f"{name}: expected sha256 {promised}, got {got.removeprefix('sha256:')}; nothing was stored"
        raise IntegrityError(words, hint="the source changed or was tampered with: compare with its publisher")


# -- what is in them ---------------------------------------------------------------------------------------------------


def _documents(
    taken: Taken, wanted: Mapping[str, Any], licence: str, store: BlobStore, folder: Path, report: Report
) -> Manifest:
    fields = plan.Fields(**wanted["fields"])
    source = plan.Source("files", fields=fields, reference=wanted["source"] or "uploads")
    refused: list[Quarantined] = []
    splits = {name: Split((), 0) for name in SPLITS}
    for side, files in taken.files.items():
        if files:
            splits[side] = _split(source, side, files, refused, store, folder, report)
    total = splits["train"].rows + splits["heldout"].rows
    samples = [f"{item.name}:{item.line}: {item.reason}" for item in refused[:SAMPLES_MAX]]
    funnel = [{"rule": "unreadable", "dropped": len(refused), "samples": samples}]
    counts = {"documents_in": total + len(refused), "documents_out": total}
    schema = {**SPLITS, "train": COLUMNS, "heldout": COLUMNS}
    return Manifest(splits, counts, funnel, {}, licence, _told(taken), schema=schema)


def _split(
    source: plan.Source,
    side: str,
    files: Mapping[str, Path],
    refused: list[Quarantined],
    store: BlobStore,
    folder: Path,
    report: Report,
) -> Split:
    writer = SplitWriter(store, folder, COLUMNS)
    rows, before = 0, len(refused)
    given = [(name, str(path)) for name, path in sorted(files.items())]
    seen: set[str] = set()
    for part in plan_parts(replace(source, name=side), SIDES[side], files=given):
        for item in documents(part):
            if isinstance(item, Quarantined):
                refused.append(item)
                continue
            if item.id in seen:
                refused.append(Quarantined(item.source, 0, f"a second document has the id {item.id!r:.80}"))
                continue
            seen.add(item.id)
            text = normalise(item.text, item.kind)
            told = {"source": item.source.partition(":")[2], "title": item.title, "url": item.url}
            writer.add({"id": item.id, "text": text, **told})
            rows += 1
            if rows % REPORT_EVERY == 0:
                report("read", rows, None, "document")
    if not rows:
        raise nothing_readable(source, SIDES[side], refused[before:])
    return writer.close()


def _chats(
    taken: Taken, wanted: Mapping[str, Any], licence: str, store: BlobStore, folder: Path, report: Report
) -> Manifest:
    """Files of examples, one after the other, as an import of examples takes them."""
    sides = {side: files for side, files in taken.files.items() if files}
    joined = {side: _joined(files, folder / f"{side}.jsonl") for side, files in sides.items()}
    opened = {side: _opener(path) for side, path in joined.items()}
    return chats_of(opened, licence, _told(taken), store, folder, report)


def _opener(path: Path) -> Opened:
    return lambda: path.open("rb")


def _joined(files: Mapping[str, Path], target: Path) -> Path:
    with target.open("wb") as out:
        for _, path in sorted(files.items()):
            with path.open("rb") as file:
                shutil.copyfileobj(file, out)
            out.write(b"\n")
    return target


def _told(taken: Taken) -> list[dict[str, Any]]:
    uploads: list[dict[str, Any]] = taken.source.get("uploads", [])
    return uploads or [{name: value for name, value in taken.source.items() if value}]


def progress_of(report: Report) -> Callable[[str], Callable[[float, float | None], None]]:
    """What is called of a stage's bytes, reporting now and then."""

    def stage(name: str) -> Callable[[float, float | None], None]:
        last = 0.0

        def told(done_bytes: float, total_bytes: float | None) -> None:
            nonlocal last
            if time.monotonic() - last >= REPORT_EVERY_S or done_bytes == total_bytes:
                last = time.monotonic()
                report(name, done_bytes, total_bytes, "byte")

        return told

    return stage


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="import-", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the task in the current task directory."""
    keys = from_environment()
    store = BlobStore(task.blobs_url())
    task.run(lambda value: import_prebuilt(value, store, task.work_dir(), task.cache_dir(), task.report_progress, keys))


if __name__ == "__main__":
    main()
