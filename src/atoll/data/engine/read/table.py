"""CSV and TSV: a record a row, its fields named by the first row.

Fields are separated by the mark among comma, semicolon, tabulator and bar that yields the text field in the first row,
else by the one that yields most fields.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from atoll.data.engine.read.content import Content
from atoll.data.engine.read.encodings import decode_line
from atoll.data.engine.read.item import Found, Item, Quarantined, Unreadable
from atoll.data.engine.read.lines import lines
from atoll.data.engine.read.records import CHAT_FIELDS, Records, missing

DELIMITERS = (",", ";", "\t", "|")


def read(content: Content) -> Iterator[Item]:
    """A text of every row. Rows with another number of fields than the first are quarantined.

    Raises Unreadable for a first row that names no field with texts, which is said once and not of every row.
    """
    csv.field_size_limit(content.limits.line_bytes_max)
    source = _Lines(content)
    names, delimiter = _header(source, content.fields.text)
    if not {content.fields.text, *CHAT_FIELDS} & set(names):
        raise Unreadable(missing(content.fields.text, names), 1)
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    records = Records(content.name, content.fields, content.limits.text_bytes_max)
    while True:
        number = source.next_number
        try:
            if (row := next(rows, None)) is None:
                return
            if row:
                yield _found(row, names, records, number)
        except csv.Error as error:
            yield Quarantined(content.name, number, _reason(error, source.next_number - 1))
            if _is_open_quote(error):
                return
        except Unreadable as error:
            yield Quarantined(content.name, error.line or number, str(error))


def _found(row: list[str], names: list[str], records: Records, number: int) -> Found:
    if len(row) != len(names):
        raise Unreadable(f"the row has {len(row)} fields, the first row {len(names)}")
    if any("\0" in field for field in row):
        raise Unreadable("the row holds NUL characters")
    return records.found(dict(zip(names, row, strict=True)), number)


def _is_open_quote(error: csv.Error) -> bool:
    return "field larger" in str(error)


def _reason(error: csv.Error, last: int) -> str:
    """What is wrong with a row of which `last` is the last line that was looked at."""
    if "unexpected end of data" in str(error):
        return (
            f"it is not CSV: a quote is opened and never closed, so nothing is read from here to line {last}, the last"
        )
    if not _is_open_quote(error):
        return f"it is not CSV: {error}"
    most = csv.field_size_limit()
    return f"a field has more than {most} characters; a quote may be open, so the rest of the file is not read"


def _header(source: _Lines, wanted: str) -> tuple[list[str], str]:
    """The names of the fields, and what separates them."""
    first = next(source, None)
    if first is None:
        raise Unreadable("the file is empty")
    text = first.removeprefix("\ufeff")
    try:
        names = {mark: next(csv.reader([text], delimiter=mark)) for mark in DELIMITERS}
    except csv.Error as error:
        raise Unreadable(f"its first row is not CSV: {error}", 1) from error
    delimiter = max(DELIMITERS, key=lambda mark: (wanted in names[mark], len(names[mark])))
    return names[delimiter], delimiter


class _Lines:
    """The lines of a file as text. One that cannot be read raises Unreadable, and the next is not affected."""

    def __init__(self, content: Content) -> None:
        self._most = content.limits.line_bytes_max
        self._source = lines(content.narrow(), self._most)
        self.next_number = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line = next(self._source)
        self.next_number = number + 1
        if line is None:
            raise Unreadable(f"the line has more than {self._most} bytes", number)
        try:
            return decode_line(line) + "\n"
        except Unreadable as error:
            raise Unreadable(str(error), number) from error
