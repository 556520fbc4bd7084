"""Text files: plain text, Markdown, reST and source code; one document each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from atoll.data.engine.questions.structure import headings
from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode
from atoll.data.engine.read.item import Found, Item
from atoll.data.engine.read.records import check_text

TITLE_CHARACTERS_MAX = 200
HEAD_CHARACTERS = 20_000


def read(content: Content) -> Iterator[Item]:
    """The text of the file."""
    yield document(content, decode(content.whole()), content.format.kind)


def document(content: Content, text: str, kind: str, title: str = "") -> Found:
    """The one document of a file; without a title of its own its first heading or its name is one."""
    check_text(text, content.limits.text_bytes_max)
    return Found(content.name, text, content.name, title_of(text, kind, title, content.name), kind)


def title_of(text: str, kind: str, title: str, name: str) -> str:
    """What the text calls itself, else its first heading, else the stem of its file's name."""
    found = [] if title or kind == "code" else headings(text[:HEAD_CHARACTERS])
    words = title or (found[0].words if found else PurePath(name).stem)
    return " ".join(words.split())[:TITLE_CHARACTERS_MAX]
