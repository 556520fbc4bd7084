"""A chat completion as it arrives, over the OpenAI-compatible door."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Unavailable
from atoll.sdk.connection import Connection, openai_error
from atoll.sdk.sse import read_events

SILENCE_MAX_S = 600.0
"""A long prompt on a slow machine says nothing for minutes before the first token."""

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """Tokens of one answer, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """A piece of an answer; the last ones carry why it ended and what it used."""

    text: str = ""
    finish_reason: str | None = None
    usage: ChatUsage | None = None


def stream_chat(
    connection: Connection, model: str, messages: Sequence[Mapping[str, Any]], **options: Any
) -> Iterator[ChatPiece]:
    """The pieces of the answer to `messages`; `options` are further fields of the request that are not None.

    An error in mid-stream, or a stream that ends without its end mark, raises.
    """
    body = {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **{k: v for k, v in options.items() if v is not None},
    }
    path = "/v1/chat/completions"
    with connection.stream("POST", path, body=body, silence_max_s=SILENCE_MAX_S) as response:
        for event in read_events(response.iter_bytes()):
            if event.data == DONE:
                return
            yield _piece(json.loads(event.data))
    raise Unavailable(f"the answer of {model!r} broke off", hint="ask again; atoll describe deployment shows why")


def _piece(data: Mapping[str, Any]) -> ChatPiece:
    if error := data.get("error"):
        code = error.get("code")
        raise openai_error(error, code if isinstance(code, int) else 503)
    choice: Mapping[str, Any] = next(iter(data.get("choices") or []), {})
    used = data.get("usage")
    return ChatPiece(
        (choice.get("delta") or {}).get("content") or "",
        choice.get("finish_reason"),
        ChatUsage(used["prompt_tokens"], used["completion_tokens"]) if used else None,
    )
