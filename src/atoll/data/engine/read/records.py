"""Records: a text and what belongs to it out of an object, by the names the source gives its fields.

A record without the text field may be a chat or an instruction. What other fields hold is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.data.engine.curate.plan import Fields
from atoll.data.engine.questions.conversation import RECORD, UNIT, NotAChat, chat_text, messages_in
from atoll.data.engine.read.item import Found, Unreadable

ID_CHARACTERS_MAX = 512
NAMES_SHOWN = 8
CHAT_FIELDS = (
    *("messages", "conversations", "prompt", "completion"),
    *("instruction", "input", "output", "response", "system"),
)
"""Fields of chats and instructions."""


class Records:
    """Reads the records of one file."""

    def __init__(self, file: str, fields: Fields, text_bytes_max: int) -> None:
        self._file = file
        self._fields = fields
        self._text_bytes_max = text_bytes_max

    def found(self, record: Any, number: int) -> Found:
        """The text of record `number`; raises Unreadable naming what is wrong with it."""
        if type(record) is not dict:
            raise Unreadable(f"it is {_called(record)}, not an object")
        fields = self._fields
        text, kind = record.get(fields.text), "text"
        if type(text) is not str:
            text, kind = self._text(record)
        if text[:1] == RECORD and UNIT in text:
            kind = "chat"
        if 4 * len(text) > self._text_bytes_max or not text or text.isspace():
            check_text(text, self._text_bytes_max)
        name = _value(record, fields.id)
        if type(name) is int:
            name = str(name)
        if type(name) is not str or not 0 < len(name) <= ID_CHARACTERS_MAX:
            name = f"{self._file}:{number}"
        title, url = _value(record, fields.title), _value(record, fields.url)
        return Found(name, text, self._file, title if type(title) is str else "", kind, url if type(url) is str else "")

    def _text(self, record: dict[str, Any]) -> tuple[str, str]:
        text = _value(record, self._fields.text)
        if type(text) is str:
            return text, "text"
        if text is not None:
            raise Unreadable(f"its field {self._fields.text!r} is {_called(text)}, not a text")
        try:
            messages = messages_in(record)
        except NotAChat as error:
            raise Unreadable(str(error)) from error
        if messages is None:
            raise Unreadable(self._missing(record))
        return chat_text(messages), "chat"

    def _missing(self, record: dict[str, Any]) -> str:
        if self._fields.text in record:
            return f"its field {self._fields.text!r} is null, not a text"
        return missing(self._fields.text, list(record))


def missing(wanted: str, names: Sequence[str]) -> str:
    """What is said of a record, or of the first row of a table, whose fields hold no text."""
    shown = ", ".join(str(name)[:40] for name in names[:NAMES_SHOWN])
    return f"it has no field {wanted!r}; its fields are {shown or 'none'}"


def check_text(text: str, text_bytes_max: int) -> None:
    """Raise Unreadable for a text that is blank or too long."""
    if not text or text.isspace():
        raise Unreadable("it holds no text")
    if 4 * len(text) > text_bytes_max and len(text.encode("utf-8", "replace")) > text_bytes_max:
        raise Unreadable(f"its text has more than {text_bytes_max} bytes")


def _value(record: Mapping[str, Any], path: str) -> Any:
    """The field called `path`, or where its dots lead; None where there is none."""
    value = record.get(path)
    if value is not None or "." not in path:
        return value
    found: Any = record
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _called(value: Any) -> str:
    """What a JSON value is called."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
