"""Conversations: chats and instructions as one text, and back.

The text of a chat is its messages in order, each RECORD role UNIT content. Both marks are control characters that no
content holds, so the text is split back exactly. Only words are kept: calls of tools, images and weights have no place
in it, and a record with such a message is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

RECORD, UNIT = "\x1e", "\x1f"

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
"""Other names of roles, and what they are here."""

_MARKS = re.compile("[\x1e\x1f]")
_ROLE = re.compile(r"[a-z][a-z_]{0,30}")


class Message(NamedTuple):
    role: str
    content: str


class NotAChat(Exception):
    """A record that looks like a chat but cannot be read as one; the message says why, in words of ours alone: it is
    kept beside data whose personal data is masked.
    """


def chat_text(messages: Iterable[Message]) -> str:
    """The messages as one text."""
    return "".join(f"{RECORD}{role}{UNIT}{_MARKS.sub('', content)}" for role, content in messages)


def messages_of(text: str) -> list[Message]:
    """The messages a text was made of; a text without marks is one of the user."""
    if not text.startswith(RECORD):
        return [Message("user", text)]
    parts = (part.partition(UNIT) for part in text[1:].split(RECORD))
    return [Message(role, content) for role, _, content in parts]


def messages_in(record: Mapping[str, Any]) -> list[Message] | None:
    """The messages of a chat or instruction record, None if it is neither; raises NotAChat.

    Known are {"messages": [{"role", "content"}]}, {"conversations": [{"from", "value"}]}, {"prompt", "completion"} (a
    text or messages) and {"instruction", "input", "output"} (or "response"); the last two may have a "system".
    """
    for name in ("messages", "conversations"):
        if isinstance(record.get(name), list):
            return _messages(record[name], name)
    if "prompt" in record and "completion" in record:
        return _opening(record) + _side(record, "prompt", "user") + _side(record, "completion", "assistant")
    if "instruction" in record and ("output" in record or "response" in record):
        return _instruction(record)
    return None


def _instruction(record: Mapping[str, Any]) -> list[Message]:
    answer = "output" if "output" in record else "response"
    asked = _text(record["instruction"], "instruction")
    given = record.get("input") or ""
    if given:
        asked = f"{asked}\n\n{_text(given, 'input')}"
    return [*_opening(record), Message("user", asked), Message("assistant", _text(record[answer], answer))]


def _opening(record: Mapping[str, Any]) -> list[Message]:
    system = record.get("system")
    return [Message("system", _text(system, "system"))] if system else []


def _side(record: Mapping[str, Any], name: str, role: str) -> list[Message]:
    value = record[name]
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "role" in value[0]:
        return _messages(value, name)
    return [Message(role, _text(value, name))]


def _messages(values: list[Any], where: str) -> list[Message]:
    if not values:
        raise NotAChat(f"its {where} is empty")
    return [_message(value, f"{where}[{index}]") for index, value in enumerate(values)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, Mapping):
        raise NotAChat(f"its {where} is no object")
    role = value.get("role", value.get("from"))
    if not isinstance(role, str) or not _ROLE.fullmatch(role.lower()):
        raise NotAChat(f"its {where} has no role such as user or assistant")
    if value.get("tool_calls") or value.get("function_call"):
        raise NotAChat(f"its {where} calls a tool, which a text cannot say")
    lower = role.lower()
    return Message(ROLES.get(lower, lower), _text(value.get("content", value.get("value")), where))


def _text(value: Any, where: str) -> str:
    """A text, given as one or as a list of text parts."""
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
    ):
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise NotAChat(f"its {where} {'has parts that are not texts' if isinstance(value, list) else 'is not a text'}")
    return value
