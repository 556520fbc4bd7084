"""Chat answers told as Anthropic tells them: whole messages, their events, and errors."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway.dialects.order import Translation
from atoll.serving.gateway.dialects.refusal import header_lines, message_of
from atoll.serving.gateway.dialects.stream import (
    Piece,
    Retelling,
    guarded,
    loads_object,
    pieces_of_answer,
    pieces_of_event,
    sse,
    tokens_of,
)
from atoll.serving.gateway.usage import Tokens

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_BLOCKS = {"text": "text", "thought": "thinking", "call": "tool_use"}


def render_error(error: AtollError) -> tuple[int, bytes, bytes]:
    """Status, body and extra header lines of an answer that tells `error` in Anthropic's form."""
    return error.http_status, orjson.dumps(_error(error, message_of(error))), header_lines(error)


def break_off(error: AtollError) -> bytes:
    """The last event of a stream that cannot go on."""
    return sse(_error(error, f"The answer broke off: {error.message.rstrip('.')}."), "error")


def _error(error: AtollError, message: str) -> dict[str, Any]:
    status = error.http_status
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _usage(tokens: Tokens) -> dict[str, int]:
    """Anthropic counts what came from the cache apart from the rest of the prompt."""
    return {
        "input_tokens": tokens.prompt - tokens.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.completion,
    }


def _stopped(piece: Piece) -> dict[str, Any]:
    if piece.id:
        return {"stop_reason": "stop_sequence", "stop_sequence": piece.id}
    return {"stop_reason": _STOP_REASONS.get(piece.text, "end_turn"), "stop_sequence": None}


def _input(arguments: str) -> Any:
    """A tool's input; one cut off in the middle has none that could be read."""
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}


class MessageTranslation(Retelling):
    """See order.Translation."""

    __slots__ = ("_block", "_index", "_is_started", "_model", "_stop", "_tokens")

    def __init__(self, inner: Translation | None, model: str) -> None:
        super().__init__(inner)
        self._model = model
        self._index = -1
        self._block = ""
        self._is_started = False
        self._tokens = Tokens()
        self._stop = _stopped(Piece("stop", "stop"))

    def retell(self, answer: dict[str, Any]) -> bytes:
        content: list[dict[str, Any]] = []
        for piece in pieces_of_answer(answer):
            if piece.kind == "text":
                content.append({"type": "text", "text": piece.text})
            elif piece.kind == "thought":
                content.append({"type": "thinking", "thinking": piece.text, "signature": ""})
            elif piece.kind == "call":
                content.append({"type": "tool_use", "id": piece.id, "name": piece.text, "input": {}})
            elif piece.kind == "arguments":
                content[-1]["input"] = _input(piece.text)
            else:
                self._stop = _stopped(piece)
        self._tokens = tokens_of(answer) or Tokens()
        return orjson.dumps(self._message() | {"content": content} | self._stop | {"usage": _usage(self._tokens)})

    def retell_event(self, event: dict[str, Any]) -> bytes:
        if "error" in event:
            raise IntegrityError(f"the engine failed in the middle of its answer: {event['error']}")
        tokens = tokens_of(event)
        self._tokens = tokens if tokens is not None else self._tokens
        return self._begin() + b"".join(map(self._tell, pieces_of_event(event)))

    def end(self) -> bytes:
        delta = sse({"type": "message_delta", "delta": self._stop, "usage": _usage(self._tokens)}, "message_delta")
        return self._begin() + self._end_block() + delta + sse({"type": "message_stop"}, "message_stop")

    def break_off(self, error: AtollError) -> bytes:
        return break_off(error)

    def _message(self) -> dict[str, Any]:
        identity = f"msg_{secrets.token_hex(12)}"
        return {"id": identity, "type": "message", "role": "assistant", "model": self._model}

    def _begin(self) -> bytes:
        if self._is_started:
            return b""
        self._is_started = True
        message = self._message() | {"content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = _usage(self._tokens)
        return sse({"type": "message_start", "message": message}, "message_start")

    def _tell(self, piece: Piece) -> bytes:
        if piece.kind == "stop":
            self._stop = _stopped(piece)
            return b""
        if piece.kind == "arguments":
            return self._delta({"type": "input_json_delta", "partial_json": piece.text})
        if piece.kind == "call":
            block = {"type": "tool_use", "id": piece.id, "name": piece.text, "input": {}}
            return self._end_block() + self._begin_block(block)
        kind = _BLOCKS[piece.kind]
        opening = b""
        if self._block != kind:
            empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            opening = self._end_block() + self._begin_block(empty)
        return opening + self._delta({"type": f"{kind}_delta", kind: piece.text})

    def _begin_block(self, block: dict[str, Any]) -> bytes:
        self._block = block["type"]
        self._index += 1
        begin = {"type": "content_block_start", "index": self._index, "content_block": block}
        return sse(begin, "content_block_start")

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return sse({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")

    def _end_block(self) -> bytes:
        if not self._block:
            return b""
        self._block = ""
        return sse({"type": "content_block_stop", "index": self._index}, "content_block_stop")


class CountTranslation:
    """The engine's count as Anthropic tells it; never a stream. See order.Translation."""

    __slots__ = ()

    @guarded
    def whole(self, body: bytes) -> bytes:
        answer = loads_object(body)
        count = answer.get("input_tokens", answer.get("count"))
        if not isinstance(count, int):
            raise IntegrityError("the engine's answer has no count of tokens")
        return orjson.dumps({"input_tokens": count})

    def events(self, data: bytes) -> bytes:
        return data

    def finish(self, rest: bytes) -> bytes:
        return rest

    def break_off(self, error: AtollError) -> bytes:
        return break_off(error)
