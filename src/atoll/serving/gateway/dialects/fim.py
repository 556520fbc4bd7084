"""Fill-in-the-middle: raw completion with a suffix, by the model's own tokens for it.

llama.cpp builds the prompt from the tokens the model's metadata names (its /infill, which answers in a form of its
own); other engines have their completions endpoint do it, if they can.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson

from atoll.core.errors import AtollError, IntegrityError, Invalid
from atoll.serving.gateway.dialects import refusal
from atoll.serving.gateway.dialects.engines import adapted, can, cannot
from atoll.serving.gateway.dialects.order import Target
from atoll.serving.gateway.dialects.stream import guarded, loads_object, sse, sse_values
from atoll.serving.gateway.usage import as_usage, from_timings

INFILL = "/infill"
_DONE = b"data: [DONE]\n\n"


def is_infill(target: Target) -> bool:
    """Whether the target fills in by a route of its own."""
    return target.engine == "llamacpp"


def asked(fields: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The fields of a completion with `suffix` for this target. Raises Invalid when the model cannot fill in."""
    if target.engine == "openai":
        return adapted(fields, target)
    if not can(target, "fim"):
        raise cannot(target, "suffix", "fim", "Choose a model that was trained to fill in, or leave 'suffix' out.")
    asked = adapted({name: value for name, value in fields.items() if name != "suffix"}, target)
    if not is_infill(target):
        return asked | {"suffix": fields["suffix"]}
    for name, is_one in (("prompt", isinstance(fields["prompt"], str)), ("n", fields.get("n") in (None, 1))):
        if not is_one:
            raise Invalid(f"With 'suffix', {name!r} must be one.", field=name)
    if fields.get("logprobs"):
        raise Invalid("'logprobs' cannot be had with 'suffix'.", field="logprobs")
    prompt = asked.pop("prompt")
    return asked | {"input_prefix": prompt, "input_suffix": fields["suffix"], "prompt": ""}


class InfillTranslation:
    """llama.cpp's own answers as text completions. See order.Translation."""

    __slots__ = ("_head", "_wants_usage")

    def __init__(self, model: str, *, wants_usage: bool) -> None:
        identity = f"cmpl-{secrets.token_hex(16)}"
        self._head = {"id": identity, "object": "text_completion", "created": int(time.time()), "model": model}
        self._wants_usage = wants_usage

    @guarded
    def whole(self, body: bytes) -> bytes:
        answer = loads_object(body)
        if not isinstance(answer.get("content"), str):
            raise IntegrityError("the engine's answer has no content")
        return orjson.dumps(self._completion(answer) | {"usage": _usage(answer)})

    @guarded
    def events(self, data: bytes) -> bytes:
        return b"".join(map(self._event, sse_values(data)))

    @guarded
    def finish(self, rest: bytes) -> bytes:
        return self.events(rest) + _DONE

    def break_off(self, error: AtollError) -> bytes:
        return refusal.break_off(error)

    def _event(self, event: dict[str, Any]) -> bytes:
        if "error" in event:
            raise IntegrityError(f"the engine failed in the middle of its answer: {event['error']}")
        if "prompt_progress" in event and not event.get("content"):
            return b""
        told = sse(self._completion(event))
        if event.get("stop") and self._wants_usage:
            told += sse(self._head | {"choices": [], "usage": _usage(event)})
        return told

    def _completion(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        text, is_end = answer.get("content") or "", bool(answer.get("stop"))
        reason = ("length" if answer.get("stop_type") == "limit" else "stop") if is_end else None
        return self._head | {"choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason}]}


def _usage(answer: Mapping[str, Any]) -> dict[str, Any]:
    return as_usage(from_timings(answer.get("timings") or {}))
