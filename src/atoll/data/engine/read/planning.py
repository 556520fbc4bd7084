"""Planning: the files of a source, and the parts they are read in.

Parts depend on the files alone, not on who reads them: files by path, small ones together, JSON lines cut at line ends
and Parquet between row groups. A large file of JSON lines is read once to find the cuts and the numbers of its lines.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from atoll.core.errors import Invalid
from atoll.data.engine.curate.plan import Source
from atoll.data.engine.read.dataset import is_of_curation
from atoll.data.engine.read.encodings import wide_encoding
from atoll.data.engine.read.formats import DOCUMENTS, PACKAGES, counted_suffix, format_of, matches
from atoll.data.engine.read.item import MIB, File, Part, PassedOver, Quarantined

PART_BYTES = 16 * MIB
FILES_MAX = 4096
READERS_VERSION = 2
"""Raised when readers give other texts of the same files, so kept stages are not mistaken for new ones."""


def plan_parts(
    source: Source,
    field: str,
    *,
    prefix: str = "",
    files: Sequence[tuple[str, str]] | None = None,
    patterns: tuple[str, ...] = DOCUMENTS,
    part_bytes: int = PART_BYTES,
) -> list[Part]:
    """The parts of a source, always the same for the same files; each about `part_bytes` of input.

    field: what an error calls the source, such as `sources[0]`. prefix: put before ids and names. files: names and
    paths of files that were fetched, instead of what the source's path says. patterns: for a source that has none.
    Raises Invalid when there is no file to read.
    """
    patterns = source.patterns or patterns
    whole = Part(source.name, prefix, patterns=patterns, fields=source.fields)
    if source.kind == "stdlib":
        return [whole]
    listed = _Listing(patterns)
    if files is None:
        _list(source, field, listed)
    else:
        for name, path in files:
            listed.add(name, Path(path), Path(path).resolve())
    if not listed.files and not listed.refused:
        message = _no_document(source, listed.passed_over)
        raise Invalid(message, field=field, hint=f"the patterns are {_shown(patterns)}")
    _check_packages(listed.files, field)
    parts = list(_parts(whole, sorted(listed.files, key=_order), part_bytes)) or [whole]
    refused = tuple(sorted(listed.refused, key=lambda item: item.name))
    if not listed.files:
        raise nothing_readable(source, field, refused)
    passed_over = tuple(PassedOver(suffix, files) for suffix, files in sorted(listed.passed_over.items()))
    return [replace(parts[0], refused=refused, passed_over=passed_over), *parts[1:]]


def _check_packages(files: Sequence[File], field: str) -> None:
    """Raise Invalid when this Python lacks what some of the files are read with."""
    wanted = {name for known in {format_of(file.name) for file in files} for name in (known.reader, known.codec)}
    for package in sorted(PACKAGES[name] for name in wanted & PACKAGES.keys()):
        if importlib.util.find_spec(package) is None:
            message = f"some files of {field} are read with the package {package}, which is not installed"
            raise Invalid(message, field=field, hint="pip install 'atoll[data]', or name other patterns")


def fingerprint(parts: Sequence[Part]) -> str:
    """Hex digest of everything that decides what reading these parts gives."""
    return hashlib.sha256(repr((READERS_VERSION, list(parts))).encode("utf-8", "surrogateescape")).hexdigest()


def nothing_readable(
    source: Source, field: str, quarantined: Sequence[Quarantined], passed_over: Sequence[PassedOver] = ()
) -> Invalid:
    """The error of a source that gave no document, with the first reasons, or what is there instead."""
    where = _where(source)
    if not quarantined:
        others: Counter[str] = Counter()
        for suffix, files in passed_over:
            others[suffix] += files
        return Invalid(_no_document(source, others), field=field, hint="give a source that holds texts")
    reasons = "; ".join(_reason(item) for item in quarantined[:3])
    count = len(quarantined)
    message = f"no document of {where} could be read, {count} {'was' if count == 1 else 'were'} refused ({reasons})"
    hint = "see the reasons; a file's name says how it is read, `fields` what its records call their text"
    return Invalid(message, field=field, hint=hint)


def _reason(item: Quarantined) -> str:
    return f"{item.name}{f' line {item.line}' if item.line else ''}: {item.reason}"


def _where(source: Source) -> str:
    if source.kind == "stdlib":
        return "the standard library"
    if source.kind == "folder":
        return f"the folder {source.path}"
    what = source.digest or source.reference or ", ".join(source.paths[:3])
    return f"the {source.kind} {what}" if source.kind != "files" else f"the files {what}"


def _no_document(source: Source, passed_over: Counter[str]) -> str:
    return f"{_where(source)} {'hold' if source.kind == 'files' else 'holds'} no document{_others(passed_over)}"


def _others(passed_over: Counter[str]) -> str:
    """What is there instead."""
    if not passed_over:
        return ""
    most = [f"{files} {suffix or 'without suffix'}" for suffix, files in passed_over.most_common(5)]
    return f", {passed_over.total()} other {'file' if passed_over.total() == 1 else 'files'} ({', '.join(most)})"


def _shown(patterns: tuple[str, ...]) -> str:
    return ", ".join(patterns[:8]) + (f" and {len(patterns) - 8} more" if len(patterns) > 8 else "")


class _Listing:
    """Files found so far, what cannot be one, and how many are none by their names, by suffix."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns
        self.files: list[File] = []
        self.refused: list[Quarantined] = []
        self.passed_over: Counter[str] = Counter()

    def add(self, name: str, path: Path, root: Path) -> None:
        """Take the file `path` up under `name` unless it is none or a link out of `root`."""
        real = Path(os.path.realpath(path))  # which a loop of links does not stop
        try:
            if not real.is_relative_to(root):
                self.refuse(name, "it is a link that leads out of the folder")
            elif not real.is_file():
                self.refuse(name, "it is a broken link" if path.is_symlink() else "it is not a regular file")
            else:
                about = real.stat()
                self.files.append(File(name, str(real), about.st_size, about.st_mtime_ns))
        except OSError as error:  # of a folder that may not be entered, or of a path that is too long
            self.refuse(name, f"cannot be read: {error.strerror}")

    def add_folder(self, folder: Path, before: str = "") -> None:
        """Take up every file below the folder whose name matches, but hidden ones and those of datasets."""
        root = folder.resolve()
        for place, subfolders, names in os.walk(root, onerror=lambda error: self._unlisted(error, root, before)):
            shown = [Path(place, name) for name in subfolders if not name.startswith(".")]
            subfolders[:] = [path.name for path in shown if self._is_entered(path, root, before)]
            for path in (Path(place, name) for name in names if not name.startswith(".")):
                name = before + _name(path, root)
                if matches(name, self._patterns):
                    self.add(name, path, root)
                else:
                    self.passed_over[counted_suffix(name)] += 1

    def _is_entered(self, folder: Path, root: Path, before: str) -> bool:
        """Whether to look into a folder; why not is told, but of links to what is listed anyway."""
        if folder.is_symlink():
            if not Path(os.path.realpath(folder)).is_relative_to(root):
                self.refuse(before + _name(folder, root), "it is a link that leads out of the folder")
            return False
        if is_of_curation(folder):
            self.refuse(before + _name(folder, root), "a curation made it: give it as an input of its own")
            return False
        return True

    def refuse(self, name: str, reason: str) -> None:
        self.refused.append(Quarantined(name, 0, reason))

    def _unlisted(self, error: OSError, root: Path, before: str) -> None:
        self.refuse(before + _name(Path(str(error.filename)), root), f"cannot be listed: {error.strerror}")


def _list(source: Source, field: str, listed: _Listing) -> None:
    if source.kind == "folder":
        listed.add_folder(_folder(source.path, f"{field}.path"))
        return
    if source.kind != "files":
        raise ValueError(f"the files of a source of kind {source.kind} must be given")
    paths = [Path(os.path.abspath(path)) for path in source.paths]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    for index, path in enumerate(paths):
        if path.is_dir():
            listed.add_folder(path, f"{_name(path, common)}/")
        elif path.exists():
            listed.add(_name(path, common), path, path.resolve())
        else:
            raise Invalid(
                f"the file {path} does not exist",
                field=f"{field}.paths[{index}]",
                hint="give a path on the node it runs on",
            )


def _folder(path: str, field: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise Invalid(f"the folder {path} {what}", field=field, hint="give the path on the node it runs on")
    return folder


def _name(file: Path, root: Path) -> str:
    """The path within the folder as text, whatever bytes the file system holds, and another for every file."""
    return os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _order(file: File) -> tuple[bytes, str]:
    return file.name.encode("utf-8", "replace"), file.path


def _parts(whole: Part, files: list[File], part_bytes: int) -> Iterator[Part]:
    """Large files that can be cut by themselves, others together up to the size."""
    group: list[File] = []
    for file in files:
        cut = _cut(whole, file, part_bytes)
        full = sum(each.bytes for each in group) + file.bytes > part_bytes or len(group) == FILES_MAX
        if group and (cut or full):
            yield replace(whole, files=tuple(group))
            group = []
        if cut:
            yield from cut
        else:
            group.append(file)
    if group:
        yield replace(whole, files=tuple(group))


def _cut(whole: Part, file: File, part_bytes: int) -> list[Part]:
    """The parts of a file that is large and can be cut, else none; what cannot be opened is refused when it is read."""
    known = format_of(file.name)
    if file.bytes <= part_bytes or known.codec:
        return []
    one = replace(whole, files=(file,))
    try:
        if known.reader == "jsonl":
            return _cut_lines(one, part_bytes)
        return _cut_groups(one, part_bytes) if known.reader == "parquet" else []
    except OSError:
        return []


def _cut_lines(one: Part, part_bytes: int) -> list[Part]:
    """Ranges from one line start to another, each at least `part_bytes` long but the last."""
    parts: list[Part] = []
    start = place = 0
    first = number = 1
    with open(one.files[0].path, "rb") as stream:
        while chunk := stream.read(MIB):
            if place == 0 and wide_encoding(chunk):
                return []
            seen = 0
            while end := chunk.find(b"\n", max(seen, start + part_bytes - place - 1)) + 1:
                number += _line_feeds(chunk, seen, end)
                parts.append(_range(one, start, place + end, first))
                start, first, seen = place + end, number, end
            number += _line_feeds(chunk, seen, len(chunk))
            place += len(chunk)
    if start < place:
        parts.append(_range(one, start, place, first))
    return parts


def _line_feeds(chunk: bytes, start: int, stop: int) -> int:
    """How many there are in a range; in a fifth of the time of `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(chunk, np.uint8, stop - start, start) == 10))


def _range(one: Part, start: int, stop: int, first: int) -> Part:
    return replace(one, start=start, stop=stop, first_line=first, size=stop - start)


def _cut_groups(one: Part, part_bytes: int) -> list[Part]:
    """Runs of row groups of about the size; a file that is not Parquet stays whole, and is refused when read."""
    import pyarrow as pa

    from atoll.data.engine.read.parquet import opened
    from atoll.data.parquet import open_parquet

    try:
        metadata = open_parquet(opened(one.files[0].path)).metadata
        sizes = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
        rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    except (pa.ArrowException, UnicodeDecodeError):
        return []
    parts: list[Part] = []
    start, first, size, count = 0, 1, 0, 0
    for index in range(len(sizes)):
        size, count = size + sizes[index], count + rows[index]
        if size >= part_bytes or index == len(sizes) - 1:
            share = size * one.bytes // max(1, sum(sizes))
            parts.append(replace(one, start=start, stop=index + 1, first_line=first, size=share))
            start, first, size, count = index + 1, first + count, 0, 0
    return parts
