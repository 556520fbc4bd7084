"""Sources outside the platform: files of packages of an index and of datasets of a hub, below a run's own folder.

Where they lie is named by what they are (the checksum of a package, the commit of a repository), so that another
release is another input. What was downloaded stays in the folder, so a run that goes on asks for nothing twice.
Nothing of a package is ever run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from atoll.core.errors import Invalid
from atoll.core.origins.obtain import Obtained, obtain
from atoll.core.origins.source import listed, parse
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.read.formats import matches
from atoll.data.engine.versions.prebuilt import check_published, progress_of

DOWNLOADS = "downloads"
FILES_MAX = 10_000
METADATA = (".dist-info/", ".egg-info/")
UNKNOWN = "unknown"

Report = Callable[..., None]


def obtained(
    source: Source, folder: Path, patterns: Sequence[str], where: str, report: Report
) -> tuple[Source, list[tuple[str, str]]]:
    """The source with its version, checksum and licence filled in; its files as (name, path), by name.

    patterns: names of the files to take. where: what an error calls the source. Invalid when no file fits or too many
    do, NotFound, Forbidden or Unavailable for the source itself, IntegrityError for bytes other than those published.
    """
    making = folder / f".{source.name}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        choose = partial(_chosen, source=source, patterns=tuple(patterns), where=where)
        found = obtain(parse(source.reference), choose, folder / DOWNLOADS, making, progress_of(report), kind="dataset")
        check_published(found)
        files = _kept(found, folder) if found.folder == making else found.files
    finally:
        shutil.rmtree(making, ignore_errors=True)
    licence = found.licence or UNKNOWN if source.licence == UNKNOWN else source.licence
    told = replace(source, resolved=found.resolved, sha256=found.sha256, licence=licence)
    return told, [(name, str(path)) for name, path in sorted(files.items())]


def _chosen(names: Sequence[str], source: Source, patterns: tuple[str, ...], where: str) -> list[str]:
    own = sorted(name for name in set(names) if not any(part in name for part in METADATA))
    chosen = [name for name in own if matches(name, patterns)]
    if not chosen or len(chosen) > FILES_MAX:
        words = f"{source.reference} holds {len(chosen)} files like {', '.join(patterns[:6])}"
        hint = f"name at least one and at most {FILES_MAX} by patterns; it holds: {listed(own)}"
        raise Invalid(words, field=f"{where}.patterns", hint=hint)
    return chosen


def _kept(found: Obtained, folder: Path) -> dict[str, Path]:
    """The files unpacked, at a place named by the package's checksum and by which files they are."""
    named = "\0".join([found.sha256, *sorted(found.files)])
    place = folder / f"package-{hashlib.sha256(named.encode()).hexdigest()[:20]}"
    if not place.exists():
        found.folder.rename(place)
    return {name: place / path.relative_to(found.folder) for name, path in found.files.items()}
