"""Answers in OpenAI's language: chat completions and completions, whole or as events.

A function call is told as one when its answer is whole, since only then its arguments are; text that is none streams.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.serving.engine.generation import Piece
from atoll.serving.engine.text_model import TextModel
from atoll.serving.engine.text_requests import TextRequest

DONE = b"data: [DONE]\n\n"
_CALL_BEGINS = ("{", "<tool_call>")
_WRAPPING = ("<tool_call>", "</tool_call>")


@dataclass
class Choice:
    """One answer so far. `has_calls`: it may turn out to be a call."""

    index: int
    has_calls: bool
    text: str = ""
    finish: str = ""
    tokens: int = 0
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    told_chars: int = 0

    @property
    def may_be_call(self) -> bool:
        begins = self.text.lstrip()
        return self.has_calls and (not begins or begins.startswith(_CALL_BEGINS) or _CALL_BEGINS[1].startswith(begins))

    def call(self) -> dict[str, Any] | None:
        """The function call it is, in OpenAI's form."""
        if not self.has_calls or not self.may_be_call:
            return None
        text = self.text.strip()
        for wrapping in _WRAPPING:
            text = text.removeprefix(wrapping).removesuffix(wrapping).strip()
        try:
            made = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(made, dict) or not isinstance(made.get("name"), str):
            return None
        function = {"name": made["name"], "arguments": orjson.dumps(made.get("arguments", {})).decode()}
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}

    def fresh(self) -> str:
        """Text that has not been told yet and may be."""
        if self.may_be_call and not self.finish:
            return ""
        fresh, self.told_chars = self.text[self.told_chars :], len(self.text)
        return fresh


class Answering:
    """Renders one request's answers."""

    def __init__(self, request: TextRequest, model: TextModel, name: str, *, is_chat: bool) -> None:
        self._request, self._model, self._name, self._is_chat = request, model, name, is_chat
        prefix = "chatcmpl" if is_chat else "cmpl"
        self._head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
        count = request.answers * len(request.prompts)
        self.choices = [Choice(index, request.has_calls) for index in range(count)]

    @property
    def is_over(self) -> bool:
        return all(choice.finish for choice in self.choices)

    def take(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """Note a piece; its log-probabilities."""
        choice = self.choices[index]
        choice.text += piece.text
        choice.tokens += piece.token is not None
        choice.finish = piece.finish
        fresh = self._logprobs(piece)
        choice.logprobs += fresh
        return fresh

    def whole(self) -> bytes:
        """The answer in one body."""
        kind = "chat.completion" if self._is_chat else "text_completion"
        choices = [self._whole_choice(choice) for choice in self.choices]
        return orjson.dumps(self._head | {"object": kind, "choices": choices, "usage": self.usage()})

    def first(self) -> bytes:
        """What is told before the first token: the roles of a chat."""
        if not self._is_chat:
            return b""
        role = {"role": "assistant", "content": ""}
        return b"".join(self._event([self._delta(choice.index, role, [], None)]) for choice in self.choices)

    def event(self, index: int, fresh: list[dict[str, Any]]) -> bytes:
        """What a piece adds to the stream; empty when nothing can be told yet."""
        choice = self.choices[index]
        call = choice.call() if choice.finish else None
        if call is not None:
            delta = {"tool_calls": [{"index": 0, **call}]}
            return self._event([self._delta(index, delta, fresh, "tool_calls")])
        text, finish = choice.fresh(), choice.finish or None
        if not text and not finish and not fresh:
            return b""
        if not self._is_chat:
            told = {"index": index, "text": text, "finish_reason": finish, "logprobs": self._legacy(fresh)}
            return self._event([told])
        return self._event([self._delta(index, {"content": text} if text else {}, fresh, finish)])

    def last(self) -> bytes:
        """The end of the stream."""
        if not self._request.include_usage:
            return DONE
        return self._event([], {"usage": self.usage()}) + DONE

    def usage(self) -> dict[str, Any]:
        """Tokens so far; nothing of a prompt is ever kept, so none of them are cached."""
        prompt, made = self._request.prompt_tokens, sum(choice.tokens for choice in self.choices)
        total = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        return total | {"prompt_tokens_details": {"cached_tokens": 0}}

    def _event(self, choices: list[dict[str, Any]], extra: dict[str, Any] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        running = {"usage": self.usage()} if self._request.continuous_usage else {}
        whole = self._head | {"object": kind, "choices": choices} | running | (extra or {})
        return b"data: " + orjson.dumps(whole) + b"\n\n"

    def _delta(
        self, index: int, delta: dict[str, Any], fresh: list[dict[str, Any]], finish: str | None
    ) -> dict[str, Any]:
        logprobs = {"content": fresh} if self._request.sampling.top_logprobs is not None and fresh else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _whole_choice(self, choice: Choice) -> dict[str, Any]:
        if not self._is_chat:
            rest = {"finish_reason": choice.finish, "logprobs": self._legacy(choice.logprobs)}
            return {"index": choice.index, "text": choice.text, **rest}
        call = choice.call()
        message: dict[str, Any] = {"role": "assistant", "content": choice.text}
        if call is not None:
            message |= {"content": None, "tool_calls": [call]}
        asked = self._request.sampling.top_logprobs is not None
        rest = {"logprobs": {"content": choice.logprobs} if asked else None}
        finish = "tool_calls" if call is not None else choice.finish
        return {"index": choice.index, "message": message, "finish_reason": finish, **rest}

    def _logprobs(self, piece: Piece) -> list[dict[str, Any]]:
        if piece.likelihood is None or piece.token is None:
            return []
        top = [self._token(token, logprob) for token, logprob in piece.likelihood.top]
        return [self._token(piece.token, piece.likelihood.logprob) | {"top_logprobs": top}]

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._model.token_text(token)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    def _legacy(self, told: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Log-probabilities as completions have them."""
        if self._request.sampling.top_logprobs is None or not told:
            return None
        return {
            "tokens": [item["token"] for item in told],
            "token_logprobs": [item["logprob"] for item in told],
            "top_logprobs": [{top["token"]: top["logprob"] for top in item["top_logprobs"]} for item in told],
        }
