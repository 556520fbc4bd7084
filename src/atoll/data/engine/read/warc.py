"""WARC: pages and plain texts of a crawl, with their addresses; other records and failed requests are passed over.

A page gives its main content. WET files (conversions) are plain text already.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecordType

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode, decode_page, known
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Found, Item, Quarantined, Unreadable
from atoll.data.engine.read.lines import Readable
from atoll.data.engine.read.page import main_text, title_in
from atoll.data.engine.read.records import check_text

PAGES = ("text/html", "application/xhtml+xml")
HEADER_BYTES_MAX = 64 << 10
_CODINGS: dict[str, tuple[bytes, Any]] = {
    **dict.fromkeys(("gzip", "x-gzip"), (b"\x1f\x8b", GzipReader)),
    "deflate": (b"\x78", partial(GzipReader, zlib=True)),
    "br": (b"", BrotliReader),
    "zstd": (b"\x28\xb5\x2f\xfd", ZstdReader),
}
"""How pages are packed, by the name in their header: how they begin then (else they are as they are), and by whom they
are unpacked."""


def read(content: Content) -> Iterator[Item]:
    """A text of every page; the n-th record is line n."""
    stream: Any = _Watched(content.stream)
    kinds = WarcRecordType.response | WarcRecordType.conversion
    number = 0
    try:
        with foreign("web archive"):
            records = ArchiveIterator(stream, kinds, max_header_len=HEADER_BYTES_MAX, fsspec_args=False)
            for number, record in enumerate(records, 1):
                content.touch()
                if item := _item(record, content, number):
                    yield item
    except Unreadable as error:
        raise Unreadable(str(error), error.line or number) from error
    if not stream.is_whole():
        raise Unreadable("it is cut off inside a record", number)
    if not number:
        raise Unreadable("it holds no record of a page")


class _Watched:
    """A stream as the parser wants it, that remembers how it ended."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._end = b""
        self._place = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._end = (self._end + data[-4:])[-4:]
        self._place += len(data)
        return data

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        raise Unreadable("a web archive is read from its start to its end")

    def close(self) -> None:
        """Whoever opened the stream closes it."""

    def is_whole(self) -> bool:
        """Whether it ended with the two line ends that close a record."""
        return self._end.replace(b"\r", b"").endswith(b"\n\n") or not self._end


def _item(record: Any, content: Content, number: int) -> Item | None:
    try:
        with foreign("page"):
            return _found(record, content, number)
    except Unreadable as error:
        if error.line:
            raise
        return Quarantined(content.name, number, str(error))


def _found(record: Any, content: Content, number: int) -> Found | None:
    kind, charset = _kind(record)
    if kind not in (*PAGES, "text/plain"):
        return None
    data = _payload(record, content.limits.file_bytes_max, number)
    if kind == "text/plain":
        text, title = decode(data, charset if known(charset) else ""), ""
    else:
        html = decode_page(data, charset)
        text, title = main_text(html), title_in(html)
    check_text(text, content.limits.text_bytes_max)
    url = record.headers.get("WARC-Target-URI") or ""
    name = (record.record_id or "").removeprefix("<").removesuffix(">").removeprefix("urn:uuid:")
    return Found(name or f"{content.name}:{number}", text, content.name, title, "text", url.strip("<>"))


def _payload(record: Any, most: int, number: int) -> bytes:
    """The page as it was before it was packed for its way. One that was not packed as its header says is at fault for
    itself only, so this is not left to the iterator."""
    data = _within(record.reader, most)
    if len(data) < record.content_length:
        raise Unreadable("it is cut off inside a record", number)
    headers = record.http_headers or {}
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        data = _within(ChunkedReader(io.BytesIO(data), fsspec_args=False), most)
    for coding in reversed((headers.get("Content-Encoding") or "").lower().split(",")):
        mark, opened = _CODINGS.get(coding.strip(), (b"", None))
        if opened and data.startswith(mark):
            data = _within(opened(io.BytesIO(data), fsspec_args=False), most)
    return data


def _within(stream: Readable, most: int) -> bytes:
    """All of a stream that has at most so many bytes, else Unreadable."""
    data = b""
    while piece := stream.read(most + 1 - len(data)):
        data += piece
        if len(data) > most:
            raise Unreadable(f"the page has more than {most} bytes")
    return data


def _kind(record: Any) -> tuple[str, str]:
    """The media type of what a record holds and its encoding, both empty if the request failed."""
    if record.record_type == WarcRecordType.conversion:
        return (record.headers.get("Content-Type") or "").split(";")[0].strip().lower(), ""
    if not record.http_headers or not 200 <= (record.http_headers.status_code or 0) < 300:
        return "", ""
    return (record.http_content_type or "").lower(), (record.http_charset or "").lower()
