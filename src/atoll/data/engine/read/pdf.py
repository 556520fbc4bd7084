"""PDF: the text of its pages in the order it was written; scanned pages have none."""

from __future__ import annotations

import io
from collections.abc import Iterator

from pypdf import PasswordType, PdfReader

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Item, Unreadable
from atoll.data.engine.read.text import document


def read(content: Content) -> Iterator[Item]:
    """One document with a blank line between pages."""
    data = content.whole()
    if not data:
        raise Unreadable("the file is empty")
    with foreign("PDF"):
        text, title = _text(data)
    if not text.strip():
        raise Unreadable("its pages hold no text: they may be scanned")
    yield document(content, text, "text", title)


def _text(data: bytes) -> tuple[str, str]:
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise Unreadable("it is encrypted with a password")
    pages = [page.extract_text().strip() for page in reader.pages]
    title = reader.metadata.title if reader.metadata else None
    return "\n\n".join(page for page in pages if page), str(title or "")
