"""A chat answer of an engine taken apart, for dialects that tell it in other events."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import orjson

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway.dialects.order import Translation
from atoll.serving.gateway.usage import Tokens, from_timings, from_usage

Self = TypeVar("Self")
Reading = Callable[[Self, bytes], bytes]


def guarded(read: Reading[Self]) -> Reading[Self]:
    """A method that takes an engine's bytes apart: whatever is not as it should be there is an IntegrityError."""

    @functools.wraps(read)
    def guard(self: Self, data: bytes) -> bytes:
        try:
            return read(self, data)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"the engine's answer cannot be read: {error!r}") from error

    return guard


class Piece(NamedTuple):
    """Something an answer is made of, in the order it came.

    kind: "text", "thought", "call" (a tool call begins: `id`, `text` its name), "arguments", "stop" (`text` the
    reason, `id` the stop sequence found).
    """

    kind: str
    text: str
    id: str = ""
    place: int = 0


def loads_object(body: bytes) -> dict[str, Any]:
    """The JSON object in an engine's answer. Raises IntegrityError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"the engine's answer is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise IntegrityError("the engine's answer is no JSON object")
    return value


def sse(value: object, event: str = "") -> bytes:
    """One server-sent event."""
    head = b"event: %b\n" % event.encode() if event else b""
    return b"%bdata: %b\n\n" % (head, orjson.dumps(value))


def sse_values(data: bytes) -> list[dict[str, Any]]:
    """The JSON objects of these whole events. Raises IntegrityError."""
    lines = [line[5:].strip() for line in data.splitlines() if line.startswith(b"data:")]
    return [loads_object(line) for line in lines if line not in (b"[DONE]", b"null", b"")]


def pieces_of_event(event: dict[str, Any]) -> Iterator[Piece]:
    """What one chunk of a stream brings."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        yield from _texts(delta)
        for call in delta.get("tool_calls") or ():
            function, place = call.get("function") or {}, call.get("index") or 0
            if function.get("name"):
                yield Piece("call", function["name"], str(call.get("id") or ""), place)
            if function.get("arguments"):
                yield Piece("arguments", function["arguments"], "", place)
        if choice.get("finish_reason") is not None:
            yield Piece("stop", choice["finish_reason"], stop_sequence(choice, event))


def pieces_of_answer(answer: dict[str, Any]) -> Iterator[Piece]:
    """What a whole answer's first choice is made of. Raises IntegrityError when it has none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
    except (KeyError, IndexError, TypeError):
        raise IntegrityError("the engine's answer has no message") from None
    yield from _texts(message)
    for place, call in enumerate(message.get("tool_calls") or ()):
        yield Piece("call", call["function"]["name"], str(call.get("id") or ""), place)
        yield Piece("arguments", call["function"].get("arguments") or "", "", place)
    yield Piece("stop", choice.get("finish_reason") or "stop", stop_sequence(choice, answer))


def _texts(message: dict[str, Any]) -> Iterator[Piece]:
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        yield Piece("thought", str(thought))
    if message.get("content"):
        yield Piece("text", message["content"])


def stop_sequence(choice: dict[str, Any], answer: dict[str, Any]) -> str:
    """The stop sequence that ended an answer, where the engine says so (vLLM always, llama.cpp when asked)."""
    verbose = answer.get("__verbose") or {}
    told = verbose.get("stopping_word") or choice.get("stop_reason") or choice.get("matched_stop")
    return told if isinstance(told, str) else ""


def tokens_of(answer: dict[str, Any]) -> Tokens | None:
    """The usage an answer or event tells, or at least the prompt's when it is being read."""
    if isinstance(answer.get("usage"), dict):
        return from_usage(answer["usage"])
    progress = answer.get("prompt_progress")
    if isinstance(progress, dict):
        cached = progress.get("cache")
        return from_usage({"prompt_tokens": progress.get("total"), "prompt_tokens_details": {"cached_tokens": cached}})
    timings = answer.get("timings")
    return from_timings(timings) if isinstance(timings, dict) else None


class Retelling(ABC):
    """Base of translations from chat to another dialect; `inner` is the one to chat, if the target needs one."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Translation | None) -> None:
        self._inner = inner

    @guarded
    def whole(self, body: bytes) -> bytes:
        return self.retell(loads_object(self._inner.whole(body) if self._inner else body))

    @guarded
    def events(self, data: bytes) -> bytes:
        if self._inner is not None:
            data = self._inner.events(data)
        return b"".join(map(self.retell_event, sse_values(data)))

    @guarded
    def finish(self, rest: bytes) -> bytes:
        if self._inner is not None:
            rest = self._inner.finish(rest)
        return b"".join(map(self.retell_event, sse_values(rest))) + self.end()

    @abstractmethod
    def retell(self, answer: dict[str, Any]) -> bytes:
        """The whole answer in the other dialect."""

    @abstractmethod
    def retell_event(self, event: dict[str, Any]) -> bytes:
        """The events one event becomes; may be empty."""

    @abstractmethod
    def end(self) -> bytes:
        """The last events."""

    @abstractmethod
    def break_off(self, error: AtollError) -> bytes:
        """The last event of a stream that cannot go on."""
