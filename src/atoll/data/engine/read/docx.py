"""Word documents: paragraphs, headings, lists and tables in the manner of Markdown; headers and notes are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docx
from docx.table import Table

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Item
from atoll.data.engine.read.office import checked
from atoll.data.engine.read.text import document


def read(content: Content) -> Iterator[Item]:
    """One document."""
    package = checked(content.whole(), content.limits)
    with foreign("document"):
        opened = docx.Document(package)
        styles = {style.style_id: style.name or "" for style in opened.styles}
        text = "\n\n".join(block for block in _blocks(opened, styles) if block)
        title = opened.core_properties.title
    yield document(content, text, "markdown", title)


def _blocks(opened: Any, styles: dict[str, str]) -> Iterator[str]:
    items: list[str] = []
    for block in opened.iter_inner_content():
        is_item, text = (False, _table(block)) if isinstance(block, Table) else _paragraph(block, styles)
        if is_item:
            items.append(text)
            continue
        yield "\n".join(items)
        items = []
        yield text
    yield "\n".join(items)


def _paragraph(paragraph: Any, styles: dict[str, str]) -> tuple[bool, str]:
    """Whether it is an item of a list, and its text with the mark of what it is."""
    text = paragraph.text.strip()
    style = styles.get(paragraph._p.style or "", "")
    if not text:
        return False, ""
    if style == "Title":
        return False, f"# {text}"
    if style.startswith("Heading "):
        return False, f"{'#' * min(int(style[8:]), 6)} {text}"
    return (True, f"- {text}") if style.startswith("List") else (False, text)


def _table(table: Table) -> str:
    return "\n".join(_row(row) for row in table.rows)


def _row(row: Any) -> str:
    """The cells of a row; one that spans columns is said once."""
    cells: list[Any] = []
    for cell in row.cells:
        if not cells or cell._tc is not cells[-1]._tc:
            cells.append(cell)
    return "| " + " | ".join(" ".join(cell.text.split()) for cell in cells) + " |"
