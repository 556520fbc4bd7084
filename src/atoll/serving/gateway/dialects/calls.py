"""The answer of a model bound to `tools.answer_schema`, read back as OpenAI's content and tool calls.

Reads character by character as they come, so that a streamed answer stays a stream. An answer cut off in the middle
gives what there is, as OpenAI does.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from typing import Any

import orjson

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway.dialects import refusal
from atoll.serving.gateway.dialects.stream import guarded, loads_object, sse, sse_values

Characters = Generator[None, str, None]
Reading = Generator[None, str, str]
_SPACE = frozenset(" \t\r\n")
_END_OF_SIMPLE = frozenset(",]} \t\r\n")
_FENCE = frozenset("`json")
"""llama.cpp lets a model begin its JSON with ```json, and takes that away only from answers that were not cut off."""
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class CallReader:
    """One answer; `feed` its text, get deltas in OpenAI's form."""

    __slots__ = ("_deltas", "_machine", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self._deltas: list[dict[str, Any]] = []
        self._machine: Generator[None, str, Any] = self._answer()
        next(self._machine)

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The deltas these characters bring. Raises IntegrityError for what is no such answer."""
        try:
            for character in text:
                self._machine.send(character)
        except StopIteration:
            self._machine = self._rest()
            next(self._machine)
        deltas, self._deltas = self._deltas, []
        return _merged(deltas)

    def _rest(self) -> Characters:
        while True:
            yield

    def _answer(self) -> Characters:
        first = yield from self._skip()
        while first in _FENCE:
            first = yield from self._skip()
        if first != "{":
            raise IntegrityError(f"the engine's answer has {first!r} where '{{' should be")
        key = yield from self._key()
        if key == "content":
            first = yield from self._skip()
            if first == '"':
                yield from self._string(lambda text: self._deltas.append({"content": text}))
            else:
                yield from self._raw(first, lambda text: self._deltas.append({"content": text}))
        elif key == "tool_calls":
            yield from self._expect("[")
            yield from self._calls()
        else:
            raise IntegrityError(f"the engine's answer has {key!r} where a tool call or content should be")

    def _calls(self) -> Characters:
        while True:
            yield from self._expect("{")
            yield from self._call()
            character = yield from self._skip()  # the call's end
            while character == "}":
                character = yield from self._skip()
            if character != ",":
                return

    def _call(self) -> Characters:
        yield from self._key()
        yield from self._expect('"')
        letters: list[str] = []
        yield from self._string(letters.append)
        yield from self._expect(",")
        yield from self._key()
        index, self.calls = self.calls, self.calls + 1
        function = {"name": "".join(letters), "arguments": ""}
        self._call_delta(index, id=f"call_{secrets.token_hex(12)}", type="function", function=function)
        first = yield from self._skip()
        yield from self._raw(first, lambda text: self._call_delta(index, function={"arguments": text}))

    def _call_delta(self, index: int, **fields: Any) -> None:
        self._deltas.append({"tool_calls": [{"index": index, **fields}]})

    def _skip(self) -> Reading:
        """The next character that is not space."""
        while True:
            character = yield
            if character not in _SPACE:
                return character

    def _expect(self, wanted: str) -> Characters:
        character = yield from self._skip()
        if character != wanted:
            raise IntegrityError(f"the engine's answer has {character!r} where {wanted!r} should be")

    def _key(self) -> Reading:
        yield from self._expect('"')
        letters: list[str] = []
        yield from self._string(letters.append)
        yield from self._expect(":")
        return "".join(letters)

    def _string(self, emit: Any) -> Characters:
        """A JSON string after its first quote, decoded."""
        high = 0
        while True:
            character = yield
            if character == '"':
                return
            if character != "\\":
                emit(character)
                continue
            character = yield
            if character != "u":
                emit(_ESCAPES.get(character, character))
                continue
            digits = ""
            while len(digits) < 4:
                digits += yield
            letter, high = _joined(high, int(digits, 16))
            if letter:
                emit(letter)

    def _raw(self, first: str, emit: Any) -> Characters:
        """A JSON value beginning with `first`, as it is; ends with its last character."""
        emit(first)
        if first not in '{["':
            raise IntegrityError(f"the engine's answer has {first!r} where an object should be")
        depth, in_string, escaped = (0, True, False) if first == '"' else (1, False, False)
        while depth or in_string:
            character = yield
            emit(character)
            if in_string:
                in_string = escaped or character != '"'
                escaped = character == "\\" and not escaped
            elif character == '"':
                in_string = True
            else:
                depth += (character in "{[") - (character in "}]")


def _joined(high: int, code: int) -> tuple[str, int]:
    """The letter of an escape, and the high surrogate that waits for its low one (0: none does)."""
    if 0xD800 <= code < 0xDC00:
        return "", code
    if 0xDC00 <= code < 0xE000:
        return (chr(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)) if high else "\ufffd"), 0
    return chr(code), 0


def _merged(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring deltas of the same place as one."""
    result: list[dict[str, Any]] = []
    for delta in deltas:
        last = result[-1] if result else None
        if last is not None and "content" in delta and "content" in last:
            last["content"] += delta["content"]
        elif last is not None and _continues(last, delta):
            last["tool_calls"][0]["function"]["arguments"] += delta["tool_calls"][0]["function"]["arguments"]
        else:
            result.append(delta)
    return result


def _continues(last: dict[str, Any], delta: dict[str, Any]) -> bool:
    if "tool_calls" not in delta or "tool_calls" not in last:
        return False
    return "id" not in delta["tool_calls"][0] and delta["tool_calls"][0]["index"] == last["tool_calls"][0]["index"]


class CallTranslation:
    """An engine's chat answer whose content is the bound JSON, as an answer with tool calls. See order.Translation."""

    __slots__ = ("_readers",)

    def __init__(self) -> None:
        self._readers: dict[int, CallReader] = {}

    @guarded
    def whole(self, body: bytes) -> bytes:
        answer = loads_object(body)
        for choice in answer.get("choices") or ():
            reader = CallReader()
            message: dict[str, Any] = choice["message"]
            deltas = reader.feed(message.get("content") or "")
            message["content"] = "".join(d["content"] for d in deltas if "content" in d) or None
            if reader.calls:
                message["tool_calls"] = _calls(deltas)
            choice["finish_reason"] = _reason(choice.get("finish_reason"), reader)
        return orjson.dumps(answer)

    @guarded
    def events(self, data: bytes) -> bytes:
        return b"".join(map(self._event, sse_values(data)))

    def finish(self, rest: bytes) -> bytes:
        return rest

    def break_off(self, error: AtollError) -> bytes:
        return refusal.break_off(error)

    def _event(self, event: dict[str, Any]) -> bytes:
        choices = event.get("choices")
        if not choices:
            return sse(event)
        choice = choices[0]
        delta = choice.get("delta") or {}
        reader = self._readers.setdefault(choice.get("index", 0), CallReader())
        text = delta.get("content")
        deltas = reader.feed(text) if text else [delta]
        if choice.get("finish_reason") is not None:
            choice["finish_reason"] = _reason(choice["finish_reason"], reader)
            deltas = deltas or [{}]
        return b"".join(sse(event | {"choices": [choice | {"delta": delta}]}) for delta in deltas)


def _reason(told: Any, reader: CallReader) -> Any:
    return "tool_calls" if told == "stop" and reader.calls else told


def _calls(deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append({name: call[name] for name in ("id", "type", "function")})
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    return calls
