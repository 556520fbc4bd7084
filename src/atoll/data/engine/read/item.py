"""What readers speak of: files and parts of the input, limits, and what comes of them.

Plain values that travel to workers and to the parsers' child process; nothing heavy is imported and nothing is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from atoll.data.engine.curate.plan import Fields

MIB = 1 << 20
FIELDS = Fields()


class Found(NamedTuple):
    """A text in a file; `id` and `file` are names within the source."""

    id: str
    text: str
    file: str
    title: str = ""
    kind: str = "text"
    url: str = ""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What could not be read: its name, the line, row or record counted from 1 (0 where there are none), and why."""

    name: str
    line: int
    reason: str


class PassedOver(NamedTuple):
    """Files that are no documents by their names: how many end in `suffix`, "" for those that end in none."""

    suffix: str
    files: int


Item = Found | Quarantined | PassedOver


class Unreadable(Exception):
    """Content that yields no text; the message is the reason, `line` the place if lines are counted."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


class Unloadable(Exception):
    """A reader that this Python cannot load, so no file is at fault; the message says why."""


@dataclass(frozen=True, slots=True)
class File:
    """A file: its name in the source, where it is, its size, and when it changed last."""

    name: str
    path: str
    bytes: int
    modified_ns: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. Beyond a limit a line, document or file is quarantined and the rest is read.

    `file_bytes_max` is for formats that are parsed whole (text, pages, PDF, office documents, JSON arrays), and
    `parser_s` the CPU seconds a parser may take until its next document.
    """

    line_bytes_max: int = 32 * MIB
    text_bytes_max: int = 16 * MIB
    file_bytes_max: int = 64 * MIB
    expanded_bytes_max: int = 64 << 30
    ratio_max: int = 400
    members_max: int = 1_000_000
    parser_memory_bytes: int = 1 << 30
    parser_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """A share of a source's input: some files, or a range of one.

    `start` and `stop` are bytes of a file of JSON lines or row groups of a Parquet file; stop 0 is the whole file.
    `first_line` is the number of the first line or row in the range, `size` its bytes. Without files it is Python's
    documentation. `passed_over` was found beside the files; it changes nothing of what is read, nor the fingerprint.
    """

    source: str
    prefix: str = ""
    files: tuple[File, ...] = ()
    start: int = 0
    stop: int = 0
    first_line: int = 1
    patterns: tuple[str, ...] = ()
    fields: Fields = FIELDS
    size: int = 0
    refused: tuple[Quarantined, ...] = ()
    passed_over: tuple[PassedOver, ...] = field(default=(), repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of input; of a range of a Parquet file about so many."""
        return self.size or sum(file.bytes for file in self.files)
