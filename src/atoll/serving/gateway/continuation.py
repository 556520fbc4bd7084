"""An answer that one replica began and another ends, as one stream to the client. Pure: bytes in, bytes out.

`Transcript` keeps what a client was sent, without looking at it as it passes; only when a replica dies, or enough has
gathered, is the text read out of it. `Splice` makes the second stream look like the rest of the first: the first one's
id and time, no second beginning. Knows the shapes of chat and text completions of one choice.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from atoll.serving.gateway.usage import Tokens, as_usage

RAW_BYTES_MAX = 32 * 1024
_ID = re.compile(rb'"id"\s*:\s*"((?:[^"\\]|\\.)*)"')
_CREATED = re.compile(rb'"created"\s*:\s*(\d+)')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_BEGINNING = re.compile(rb'"role"\s*:\s*"assistant"')
_END = b"\n\n"


class Transcript:
    """What was sent of one stream so far."""

    __slots__ = ("_first", "_is_finished", "_parts", "_size", "_text")

    def __init__(self) -> None:
        self._first = b""
        self._is_finished = False
        self._parts: list[bytes] = []
        self._size = 0
        self._text: list[str] = []

    def add(self, events: bytes) -> None:
        """Events that are passed on."""
        if not self._first:
            self._first = events
        self._parts.append(events)
        self._size += len(events)
        if self._size > RAW_BYTES_MAX:
            self._read_out()

    @property
    def text(self) -> str:
        """The text the client has."""
        self._read_out()
        return "".join(self._text)

    @property
    def is_finished(self) -> bool:
        """Whether the client was told why the text ended, so that nothing may follow it."""
        self._read_out()
        return self._is_finished

    @property
    def head(self) -> dict[str, Any]:
        """The first event's members beside its choices and figures."""
        value = next(iter(_values(self._first)), {})
        return {name: value[name] for name in ("id", "object", "created", "model") if name in value}

    def _read_out(self) -> None:
        """Turn events into text."""
        for part in self._parts:
            self._text += [_text(value) for value in _values(part)]
            self._is_finished = self._is_finished or _FINISHED.search(part) is not None
        self._parts, self._size = [], 0


def _values(events: bytes) -> list[dict[str, Any]]:
    """The JSON objects of whole events; what is none is passed over."""
    found = []
    for line in events.splitlines():
        if line.startswith(b"data:"):
            try:
                value = orjson.loads(line[5:])
            except orjson.JSONDecodeError:
                continue
            if isinstance(value, dict):
                found.append(value)
    return found


def _text(event: dict[str, Any]) -> str:
    """What one event adds to the text."""
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    delta = choices[0].get("delta")
    told = delta.get("content") if isinstance(delta, dict) else choices[0].get("text")
    return told if isinstance(told, str) else ""


class Splice:
    """Makes a stream the rest of another, whose `head` it takes over."""

    __slots__ = ("_changes", "_created", "_id")

    def __init__(self, head: dict[str, Any]) -> None:
        self._id = orjson.dumps(str(head.get("id", "")))[1:-1]
        self._created = b"%d" % int(head.get("created") or 0)
        self._changes: list[tuple[bytes, bytes]] | None = None

    def feed(self, events: bytes) -> bytes:
        """Whole events of the second stream, as the client shall see them; may be empty."""
        if self._changes is None:
            self._changes = self._learn(events)
            events = _without_beginning(events)
        for theirs, ours in self._changes:
            events = events.replace(theirs, ours)
        return events

    def _learn(self, events: bytes) -> list[tuple[bytes, bytes]]:
        """What to replace in every event: this stream's own id and time."""
        changes = []
        for pattern, ours in ((_ID, self._id), (_CREATED, self._created)):
            found = pattern.search(events)
            if found is not None and found[1] != ours:
                at = found.start(1) - found.start(0)
                changes.append((found[0], found[0][:at] + ours + found[0][at + len(found[1]) :]))
        return changes


def _without_beginning(events: bytes) -> bytes:
    """Without the event that only says that an assistant begins to speak."""
    end = b"\r\n\r\n" if events.endswith(b"\r\n\r\n") else _END
    first, _, rest = events.partition(end)
    if _BEGINNING.search(first) is None or any(_text(value) for value in _values(first)):
        return events
    return rest


def ending(transcript: Transcript, tokens: Tokens, *, wants_usage: bool) -> bytes:
    """The last events of an answer whose replica died when it had said all: why it ended, usage, `[DONE]`."""
    head, events = transcript.head, []
    if not transcript.is_finished:
        is_chat = str(head.get("object", "")).startswith("chat")
        piece: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
        events.append(head | {"choices": [{"index": 0, "finish_reason": "length"} | piece]})
    if wants_usage:
        events.append(head | {"choices": [], "usage": as_usage(tokens)})
    return b"".join([b"data: %b\n\n" % orjson.dumps(event) for event in events]) + b"data: [DONE]\n\n"
