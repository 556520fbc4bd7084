"""Workbooks: records where the first row of a sheet names the text field, else a table of each sheet.

Formulas are read as the values they had when the workbook was saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time
from typing import Any

import openpyxl

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.foreign import foreign
from atoll.data.engine.read.item import Found, Item, Quarantined, Unreadable
from atoll.data.engine.read.office import checked
from atoll.data.engine.read.records import Records
from atoll.data.engine.read.text import document

Row = tuple[Any, ...]


def read(content: Content) -> Iterator[Item]:
    """The records of the sheets that hold some, and one document of all other sheets."""
    package = checked(content.whole(), content.limits)
    tables: list[str] = []
    with foreign("workbook"):
        for sheet in openpyxl.load_workbook(package, read_only=True, data_only=True).worksheets:
            sheet.reset_dimensions()
            rows = (tuple(row) for row in sheet.iter_rows(values_only=True))
            names = [_word(value) for value in next(rows, ())]
            if content.fields.text in names:
                yield from _records(rows, names, content, sheet.title)
            else:
                tables.append(_table(sheet.title, names, rows, content.limits.text_bytes_max))
    if text := "\n\n".join(filter(None, tables)):
        yield document(content, text, "markdown")
    elif tables:
        raise Unreadable("its sheets are empty")


def _records(rows: Iterator[Row], names: list[str], content: Content, sheet: str) -> Iterator[Item]:
    records = Records(f"{content.name}/{sheet}", content.fields, content.limits.text_bytes_max)
    for number, row in enumerate(rows, 2):
        record = {name: _value(value) for name, value in zip(names, row, strict=False) if name}
        if not any(record.values()):
            continue
        try:
            yield _named(records.found(record, number), content.name)
        except Unreadable as error:
            yield Quarantined(f"{content.name}/{sheet}", number, str(error))


def _named(found: Found, file: str) -> Found:
    return found._replace(file=file)


def _value(value: Any) -> Any:
    return value if value is None or isinstance(value, str | bool | int) else _said(value)


def _word(value: Any) -> str:
    return "" if value is None else " ".join(_said(value).split())


def _said(value: Any) -> str:
    """A value in words; a day is a moment at midnight to the parser."""
    is_day = isinstance(value, datetime) and value.time() == time()
    return str(value.date() if is_day else value)


def _table(title: str, names: list[str], rows: Iterator[Row], most: int) -> str:
    lines, size = [_line(names)], 0
    for row in rows:
        lines.append(_line([_word(value) for value in row]))
        size += len(lines[-1])
        if size > most:
            raise Unreadable(f"the sheet {title} has more than {most} characters")
    body = "\n".join(line for line in lines if line)
    return f"# {title}\n\n{body}" if body else ""


def _line(words: list[str]) -> str:
    return f"| {' | '.join(words)} |" if any(words) else ""
