"""Word documents: paragraphs, headings, lists and tables in the manner of Markdown.

Fields to fill in, text boxes and tables inside tables are read, and changes as if they had been accepted. Headers,
notes, formulas and hidden words are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import docx
from docx.oxml.ns import qn
from docx.table import Table

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Item
from atoll.data.engine.read.office import checked
from atoll.data.engine.read.text import document

_HEADING = re.compile(r"Heading (\d+)")
_TAKEN_OUT = [qn(name) for name in ("w:del", "w:moveFrom")]
_WRAPPERS = [
    qn(f"w:{name}")
    for name in ("sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "fldSimple", "dir", "bdo")
]
_IS_SHOWN = ("0", "false", "off")


def read(content: Content) -> Iterator[Item]:
    """One document."""
    package = checked(content.whole(), content.limits)
    with foreign("document"):
        opened = docx.Document(package)
        _lay_open(opened.element.body)
        styles = {style.style_id: style.name or "" for style in opened.styles}
        text = "\n\n".join(block for block in _blocks(opened, styles) if block)
        title = opened.core_properties.title
    yield document(content, text, "markdown", title)


def _lay_open(body: Any) -> None:
    """Leave nothing in the body but paragraphs and tables, and in paragraphs nothing but what is shown."""
    for element in list(body.iter(*_TAKEN_OUT)):
        element.getparent().remove(element)
    for run in list(body.iter(qn("w:r"))):
        if _is_hidden(run):
            run.getparent().remove(run)
    for box in list(body.iter(qn("w:txbxContent"))):
        if not any("Fallback" in str(above.tag) for above in box.iterancestors()):
            _put_after(next(box.iterancestors(qn("w:p"))), box)
    for wrapper in list(body.iter(*_WRAPPERS)):
        _put_after(wrapper, wrapper)
        wrapper.getparent().remove(wrapper)


def _put_after(place: Any, box: Any) -> None:
    """Move what is in `box` behind `place`."""
    for element in reversed(list(box)):
        place.addnext(element)


def _is_hidden(run: Any) -> bool:
    mark = run.find(f"{qn('w:rPr')}/{qn('w:vanish')}")
    return mark is not None and mark.get(qn("w:val")) not in _IS_SHOWN


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
    if heading := _HEADING.fullmatch(style):
        return False, f"{'#' * min(int(heading[1]), 6)} {text}"
    return (True, f"- {text}") if style.startswith("List") else (False, text)


def _table(table: Table) -> str:
    return "\n".join(_row(row) for row in table.rows)


def _row(row: Any) -> str:
    """The cells of a row; one that spans columns is said once."""
    cells: list[Any] = []
    for cell in row.cells:
        if not cells or cell._tc is not cells[-1]._tc:
            cells.append(cell)
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: Any) -> str:
    """The words of a cell, those of tables inside it, too."""
    return " ".join(" ".join(paragraph.text.split()) for paragraph in cell._tc.iter(qn("w:p")) if paragraph.text)
