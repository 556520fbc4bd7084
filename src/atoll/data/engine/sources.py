"""Sources: where documents come from, one stream whatever the kind.

A source yields Documents and, for everything it cannot read, a Quarantined with the reason; it never stops at one.
A source that is missing or yields nothing readable is an error, not an empty success.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atoll.core.errors import Invalid
from atoll.data.engine.extract import FILE_BYTES_MAX, Unreadable, extract
from atoll.data.engine.plan import Source
from atoll.data.engine.spool import Document
from atoll.data.engine.stdlib import stdlib_documents
from atoll.data.engine.structure import headings

TITLE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that could not be read: its name in the source and why."""

    name: str
    reason: str


def documents(source: Source, path: str) -> Iterator[Document | Quarantined]:
    """Everything in `source`, in an order that is always the same; Invalid (naming `path`) when there is nothing."""
    counted = _Counted()
    yield from counted.through(stdlib_documents() if source.kind == "stdlib" else _folder(source, path))
    if not counted.readable:
        raise _nothing(source, path, counted)


class _Counted:
    def __init__(self) -> None:
        self.readable = 0
        self.quarantined: list[Quarantined] = []

    def through(self, items: Iterator[Document | tuple[str, str]]) -> Iterator[Document | Quarantined]:
        for item in items:
            if isinstance(item, Document):
                self.readable += 1
                yield item
            else:
                refused = Quarantined(*item)
                self.quarantined.append(refused)
                yield refused


def _folder(source: Source, path: str) -> Iterator[Document | tuple[str, str]]:
    """Files under the folder whose name matches a pattern, by relative path."""
    root = Path(source.path)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise Invalid(
            f"the folder {source.path} {what}", field=f"{path}.path", hint="give the path on the node it runs on"
        )
    root = root.resolve()
    unlisted: list[OSError] = []
    files = _files(root, source.patterns, unlisted)
    yield from ((_name(Path(str(error.filename)), root), f"cannot be listed: {error.strerror}") for error in unlisted)
    for file in files:
        name = _name(file, root)
        try:
            text, title, kind = extract(name, _content(file, root))
        except Unreadable as error:
            yield name, str(error)
        except OSError as error:
            yield name, f"cannot be read: {error.strerror or error}"
        else:
            yield Document(name, text, name, _title(text, title, file), kind)


def _title(text: str, title: str, file: Path) -> str:
    """What the page calls itself, else its first heading, else the name of the file."""
    found = [] if title else headings(text)
    words = title or (found[0].words if found else file.stem)
    return " ".join(words.split())[:TITLE_CHARACTERS_MAX]


def _name(file: Path, root: Path) -> str:
    """The path within the folder as text, whatever bytes the file system holds."""
    return os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "replace")


def _files(root: Path, patterns: tuple[str, ...], unlisted: list[OSError]) -> list[Path]:
    """The files to read; folders that cannot be listed are added to `unlisted`."""
    found = []
    for folder, subfolders, names in os.walk(root, onerror=unlisted.append):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = [Path(folder, name) for name in names if not name.startswith(".")]
        found += [file for file in paths if _matches(file.relative_to(root).as_posix(), patterns)]
    return sorted(found, key=os.fsencode)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    lower = name.lower()
    return any(
        fnmatch.fnmatchcase(lower, pattern.lower()) or fnmatch.fnmatchcase(lower.rsplit("/", 1)[-1], pattern.lower())
        for pattern in patterns
    )


def _content(file: Path, root: Path) -> bytes:
    real = Path(os.path.realpath(file))  # which a loop of links does not stop
    if not real.is_relative_to(root):
        raise Unreadable("it is a link that leads out of the folder")
    if not real.is_file():
        raise Unreadable("it is a broken link" if file.is_symlink() else "it is not a regular file")
    size_bytes = real.stat().st_size
    if size_bytes > FILE_BYTES_MAX:
        raise Unreadable(f"it has {size_bytes} bytes, the limit is {FILE_BYTES_MAX}")
    return real.read_bytes()


def _nothing(source: Source, path: str, counted: _Counted) -> Invalid:
    where = "the standard library" if source.kind == "stdlib" else f"the folder {source.path}"
    reasons = "; ".join(f"{refused.name}: {refused.reason}" for refused in counted.quarantined[:3])
    if reasons:
        message = f"no document of {where} could be read, {len(counted.quarantined)} were refused ({reasons})"
        return Invalid(message, field=path, hint="see the reasons; files are read as text, Markdown, reST or HTML")
    hint = f"the patterns are {', '.join(source.patterns)}" if source.kind == "folder" else "install Python's library"
    return Invalid(f"{where} holds no document", field=f"{path}.path" if source.kind == "folder" else path, hint=hint)
