"""Archives: the members of ZIP and tar files, each read like a file; nothing is ever written to disk.

A member that leads out of the archive, a link, an encrypted one and an archive inside the archive are quarantined.
Members whose names the patterns do not choose are passed over, and counted.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any, cast

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.dispatch import items
from atoll.data.engine.read.encodings import decode_line
from atoll.data.engine.read.expand import check_expansion
from atoll.data.engine.read.formats import counted_suffix, format_of, matches, member_patterns
from atoll.data.engine.read.item import Item, Limits, PassedOver, Quarantined, Unreadable
from atoll.data.engine.read.lines import Readable

_ENCRYPTED, _UTF8 = 0x1, 0x800


def read(content: Content) -> Iterator[Item]:
    """What is in the members, in the order they are in."""
    is_zip, budget = content.name.lower().endswith(".zip"), Budget(content.limits)
    try:
        yield from _zip(content, budget) if is_zip else _tar(content, budget)
    except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise Unreadable(f"it is not a sound archive: {error}") from error
    except (EOFError, zlib.error) as error:
        raise Unreadable(f"it is cut off or damaged: {error}") from error
    yield from (PassedOver(suffix, files) for suffix, files in sorted(budget.passed_over.items()))


class Budget:
    """What the members of one archive may expand to altogether, and those that are passed over, by suffix."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.members = 0
        self.passed_over: Counter[str] = Counter()
        self.bytes = 0

    def member(self) -> None:
        """Count one more member; raises Unreadable when the archive has had its share."""
        self.members += 1
        if self.members > self.limits.members_max:
            raise Unreadable(f"it has more than {self.limits.members_max} members")
        self.check()

    def check(self) -> None:
        if self.bytes > self.limits.expanded_bytes_max:
            raise Unreadable(f"it expands to more than {self.limits.expanded_bytes_max} bytes")


class Counted:
    """A member's bytes, counted against its packed size and its archive's budget."""

    def __init__(self, stream: Any, packed_bytes: int, budget: Budget) -> None:
        self._stream = stream
        self._packed_bytes = packed_bytes
        self._budget = budget
        self._bytes = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = bytes(self._stream.read(size))
        except (zipfile.BadZipFile, zlib.error, EOFError, tarfile.TarError) as error:
            raise Unreadable(f"it is damaged: {error}") from error
        self._bytes += len(data)
        self._budget.bytes += len(data)
        check_expansion(self._packed_bytes, self._bytes, self._budget.limits)
        self._budget.check()
        return data


def _zip(content: Content, budget: Budget) -> Iterator[Item]:
    if not content.is_whole or content.format.codec:
        raise Unreadable("it is an archive inside an archive")
    with zipfile.ZipFile(cast(IO[bytes], content.stream)) as archive:
        for info in archive.infolist():
            budget.member()
            content.touch()
            if not info.is_dir():
                yield from _zip_member(archive, info, content, budget)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, content: Content, budget: Budget) -> Iterator[Item]:
    name = _zip_name(info).removeprefix("./")
    if not _is_chosen(name, content, budget):
        return
    if stat.S_ISLNK(info.external_attr >> 16):
        yield _refused(content, name, "it is a link")
    elif info.flag_bits & _ENCRYPTED:
        yield _refused(content, name, "it is encrypted with a password")
    else:
        try:
            stream = archive.open(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            yield _refused(content, name, f"it is damaged: {error}")
            return
        with stream:
            yield from _member(content, name, Counted(stream, info.compress_size, budget))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member; names that are not marked as UTF-8 are often in a Chinese encoding."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return decode_line(info.filename.encode("cp437"))
    except (UnicodeEncodeError, Unreadable):
        return info.filename


def _tar(content: Content, budget: Budget) -> Iterator[Item]:
    with tarfile.open(fileobj=content.stream, mode="r|", errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for info in archive:
            budget.member()
            content.touch()
            name = info.name.removeprefix("./")
            if info.isdir() or not _is_chosen(name, content, budget):
                continue
            if info.issym() or info.islnk():
                yield _refused(content, name, "it is a link")
            elif not info.isfile() or info.issparse():
                yield _refused(content, name, "it is not a regular file")
            else:
                stream = archive.extractfile(info)
                yield from _member(content, name, Counted(stream, info.size, budget))
            archive.members.clear()  # a stream never goes back to them


def _is_chosen(name: str, content: Content, budget: Budget) -> bool:
    """Whether to read a member; one that is neither chosen nor hidden is counted."""
    if any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
        return False
    if matches(name, member_patterns(content.patterns)) or format_of(name).reader == "archive":
        return True
    budget.passed_over[counted_suffix(name)] += 1
    return False


def _member(content: Content, name: str, stream: Readable) -> Iterator[Item]:
    if _leads_out(name):
        yield _refused(content, name, "its name leads out of the archive")
        return
    kind = format_of(name)
    if kind.reader == "archive":
        yield _refused(content, name, "it is an archive inside an archive")
        return
    yield from items(
        replace(content, name=_full(content, name), stream=stream, format=kind, is_whole=False, start=0, stop=0)
    )


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":"


def _refused(content: Content, name: str, reason: str) -> Quarantined:
    return Quarantined(_full(content, name), 0, reason)


def _full(content: Content, name: str) -> str:
    """What a member is called, other than any other even where its name is no UTF-8."""
    return f"{content.name}/{name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')}"
