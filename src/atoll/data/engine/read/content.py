"""Content: an open file, member or stream on its way to the reader of its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atoll.data.engine.curate.plan import Fields
from atoll.data.engine.read.encodings import SAMPLE_BYTES, wide_encoding
from atoll.data.engine.read.formats import Format
from atoll.data.engine.read.item import FIELDS, Limits, Unreadable
from atoll.data.engine.read.lines import Ahead, Readable, Recoded


@dataclass(frozen=True, slots=True)
class Content:
    """What is in the file `name`: bytes to be read once, in order.

    `is_whole`: `stream` is a file on disk as it lies there, and can be read in any order. `start`, `stop` and
    `first_line` are a Part's. A reader calls `touch` where it is alive between items: at each member or record it looks
    at.
    """

    name: str
    stream: Readable
    format: Format
    limits: Limits
    fields: Fields = FIELDS
    patterns: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    first_line: int = 1
    is_whole: bool = False
    touch: Callable[[], None] = lambda: None

    def whole(self, way_out: str = "") -> bytes:
        """Everything, if that is within the limit of a file that is parsed whole; else Unreadable, with a way out."""
        most = self.limits.file_bytes_max
        pieces, size = [], 0
        while piece := self.stream.read(1 << 20):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise Unreadable(f"it has more than {most} bytes, the limit for files of its format{way_out}")
        return b"".join(pieces)

    def narrow(self) -> Readable:
        """The stream, turned to UTF-8 where it is UTF-16; other encodings stay as they are."""
        ahead = Ahead(self.stream, SAMPLE_BYTES if not self.start else 0)
        wide = wide_encoding(ahead.head)
        return Recoded(ahead, wide) if wide else ahead
