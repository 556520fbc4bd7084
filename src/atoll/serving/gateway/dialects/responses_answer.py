"""Chat answers told as OpenAI's Responses API tells them: response objects and their events, in its order."""

from __future__ import annotations

import secrets
import time
from typing import Any, Protocol

import orjson

from atoll.core.errors import AtollError, IntegrityError
from atoll.serving.gateway.dialects.order import Translation
from atoll.serving.gateway.dialects.refusal import code_of
from atoll.serving.gateway.dialects.stream import (
    Piece,
    Retelling,
    pieces_of_answer,
    pieces_of_event,
    sse,
    tokens_of,
)
from atoll.serving.gateway.usage import Tokens

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Asked(Protocol):
    """The order whose answer is told; it is handed the finished response."""

    response: dict[str, Any]
    final: bytes

    def begun(self) -> dict[str, Any]: ...


class ResponseTranslation(Retelling):
    """See order.Translation."""

    __slots__ = ("_item", "_number", "_order", "_output", "_response", "_stop", "_tokens")

    def __init__(self, inner: Translation | None, order: Asked) -> None:
        super().__init__(inner)
        self._order = order
        self._response: dict[str, Any] = order.begun()
        self._output: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None
        self._number = -1
        self._tokens = Tokens()
        self._stop = "stop"

    # whole answers

    def retell(self, answer: dict[str, Any]) -> bytes:
        self._tokens = tokens_of(answer) or Tokens()
        for piece in pieces_of_answer(answer):
            if piece.kind == "stop":
                self._stop = piece.text
            else:
                if self._item is None or piece.kind != "arguments":
                    self._close()
                    self._open(piece)
                self._grow(piece)
        self._close()
        response = self._finished()
        self._order.final = orjson.dumps(response)
        return self._order.final

    # streams

    def retell_event(self, event: dict[str, Any]) -> bytes:
        if "error" in event:
            raise IntegrityError(f"the engine failed in the middle of its answer: {event['error']}")
        tokens = tokens_of(event) if "usage" in event else None
        self._tokens = tokens if tokens is not None else self._tokens
        return self._begin() + b"".join(map(self._tell, pieces_of_event(event)))

    def end(self) -> bytes:
        closed = self._begin() + self._told_close()
        response = self._finished()
        name = f"response.{response['status']}"
        self._order.final = self._event(name, response=response)
        return closed + self._order.final

    def break_off(self, error: AtollError) -> bytes:
        told = {"code": code_of(error), "message": f"The answer broke off: {error.message.rstrip('.')}."}
        failed = self._response | {"status": "failed", "error": told, "output": self._output}
        begin = self._begin()
        return begin + self._event("error", param=None, **told) + self._event("response.failed", response=failed)

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        self._number += 1
        return sse({"type": kind, "sequence_number": self._number} | fields, kind)

    def _begin(self) -> bytes:
        if self._number >= 0:
            return b""
        created = self._event("response.created", response=self._response)
        return created + self._event("response.in_progress", response=self._response)

    def _tell(self, piece: Piece) -> bytes:
        if piece.kind == "stop":
            self._stop = piece.text
            return b""
        opening = b""
        if self._item is None or piece.kind == "call" or self._kind() != piece.kind:
            opening = self._told_close() + self._told_open(piece)
        self._grow(piece)
        if piece.kind == "call":
            return opening
        name = {"text": "output_text", "thought": "reasoning_text", "arguments": "function_call_arguments"}[piece.kind]
        extra: dict[str, Any] = {"logprobs": []} if piece.kind == "text" else {}
        return opening + self._event(f"response.{name}.delta", **self._where(), delta=piece.text, **extra)

    def _told_open(self, piece: Piece) -> bytes:
        item = self._open(piece)
        index = len(self._output)
        if item["type"] == "function_call":
            return self._event("response.output_item.added", output_index=index, item=item)
        added = self._event("response.output_item.added", output_index=index, item=item | {"content": []})
        return added + self._event("response.content_part.added", **self._where(), part=item["content"][0])

    def _told_close(self) -> bytes:
        item = self._item
        if item is None:
            return b""
        where, kind, index = self._where(), item["type"], len(self._output)
        if kind == "function_call":
            told = self._event(
                "response.function_call_arguments.done", **where, arguments=item["arguments"], name=item["name"]
            )
        else:
            part = item["content"][0]
            name = "output_text" if kind == "message" else "reasoning_text"
            extra: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
            told = self._event(f"response.{name}.done", **where, text=part["text"], **extra)
            told += self._event("response.content_part.done", **where, part=part)
        self._close()
        return told + self._event("response.output_item.done", output_index=index, item=item)

    def _where(self) -> dict[str, Any]:
        assert self._item is not None
        place = {"item_id": self._item["id"], "output_index": len(self._output)}
        return place if self._item["type"] == "function_call" else place | {"content_index": 0}

    # items

    def _kind(self) -> str:
        assert self._item is not None
        return {"message": "text", "reasoning": "thought", "function_call": "arguments"}[self._item["type"]]

    def _open(self, piece: Piece) -> dict[str, Any]:
        """A new item that is being written."""
        if piece.kind == "text":
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"type": "message", "role": "assistant", "content": [part]}
        elif piece.kind == "thought":
            item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": ""}]}
        else:
            item = {"type": "function_call", "call_id": piece.id, "name": piece.text, "arguments": ""}
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[str(item["type"])]
        self._item = {"id": f"{prefix}_{secrets.token_hex(24)}", "status": "in_progress"} | item
        return self._item

    def _grow(self, piece: Piece) -> None:
        assert self._item is not None
        if piece.kind == "arguments":
            self._item["arguments"] += piece.text
        elif piece.kind != "call":
            self._item["content"][0]["text"] += piece.text

    def _close(self) -> None:
        if self._item is not None:
            self._item["status"] = "incomplete" if self._stop in _INCOMPLETE else "completed"
            self._output.append(self._item)
            self._item = None

    def _finished(self) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self._stop)
        response = self._response | {
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "completed_at": None if reason else int(time.time()),
            "output": self._output,
            "usage": {
                "input_tokens": self._tokens.prompt,
                "input_tokens_details": {"cached_tokens": self._tokens.cached},
                "output_tokens": self._tokens.completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self._tokens.prompt + self._tokens.completion,
            },
        }
        self._order.response = response
        return response
