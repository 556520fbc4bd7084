"""Log-probabilities of text completions: llama.cpp tells them as chat answers do, OpenAI's completions differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from atoll.core.errors import AtollError
from atoll.serving.gateway.dialects import refusal
from atoll.serving.gateway.dialects.stream import guarded, loads_object, sse, sse_values

Entry = dict[str, Any]


def as_completions_do(entries: Sequence[Entry], offset: int) -> dict[str, Any]:
    """Chat's list of tokens as the four parallel lists of completions; the first token begins at `offset`."""
    tokens = [str(entry.get("token")) for entry in entries]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [entry.get("logprob") for entry in entries],
        "top_logprobs": [_most_likely(entry) for entry in entries],
        "text_offset": offsets,
    }


def _most_likely(entry: Entry) -> dict[str, Any]:
    return {str(top.get("token")): top.get("logprob") for top in entry.get("top_logprobs") or ()}


class LogprobsTranslation:
    """See order.Translation."""

    __slots__ = ("_offsets",)

    def __init__(self) -> None:
        self._offsets: dict[int, int] = {}

    @guarded
    def whole(self, body: bytes) -> bytes:
        return orjson.dumps(self._changed(loads_object(body)))

    @guarded
    def events(self, data: bytes) -> bytes:
        return b"".join(sse(self._changed(event)) for event in sse_values(data))

    def finish(self, rest: bytes) -> bytes:
        return rest

    def break_off(self, error: AtollError) -> bytes:
        return refusal.break_off(error)

    def _changed(self, answer: dict[str, Any]) -> dict[str, Any]:
        for choice in answer.get("choices") or ():
            index, offset = choice.get("index") or 0, self._offsets.get(choice.get("index") or 0, 0)
            entries = (choice.get("logprobs") or {}).get("content")
            if entries is not None:
                choice["logprobs"] = as_completions_do(entries, offset)
            self._offsets[index] = offset + len(choice.get("text") or "")
        return answer
