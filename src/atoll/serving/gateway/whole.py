"""A streamed answer put together to the whole one the client asked for.

Used where an engine's own whole answer would hide tokens: llama.cpp reports only the first choice's usage when a
request asks for several. Pure. Knows the shapes of chat and text completions, nothing of transport.
"""

from __future__ import annotations

from typing import Any

import orjson

from atoll.core.errors import IntegrityError
from atoll.serving.gateway.usage import Tokens

_SET = frozenset(("id", "type", "role", "finish_reason", "index"))


def assemble(stream: bytes, tokens: Tokens) -> bytes:
    """The whole answer that these events are the pieces of, billed `tokens`. Raises IntegrityError if they are not."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    try:
        for event in _values(stream):
            if "error" in event:
                raise IntegrityError(f"the engine failed in the middle of its answer: {event['error']}")
            for piece in event.pop("choices", ()):
                _merge(choices.setdefault(piece["index"], {}), piece)
            whole = event | whole
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"the engine's stream cannot be read: {error!r}") from error
    whole["object"] = str(whole.get("object", "")).removesuffix(".chunk")
    whole["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    whole["usage"] = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }
    return orjson.dumps(whole)


def _values(stream: bytes) -> list[dict[str, Any]]:
    """The JSON objects of all events but `[DONE]`."""
    lines = [line[5:].strip() for line in stream.splitlines() if line.startswith(b"data:")]
    return [orjson.loads(line) for line in lines if line not in (b"[DONE]", b"null")]


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as whole answers carry it: `message` instead of `delta`."""
    delta = choice.pop("delta", None)
    if delta is None:
        return choice
    for call in delta.get("tool_calls", ()):
        call.pop("index", None)
    return choice | {"message": {"role": "assistant", "content": None} | delta}


def _merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece to what is there: texts and lists grow, objects merge, the rest is the last said that is not null."""
    for name, value in piece.items():
        present = into.get(name)
        if value is None or present is None or name in _SET:
            if value is not None or name not in into:
                into[name] = [dict(item) for item in value] if _is_indexed(value) else value
        elif isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        elif isinstance(present, list) and isinstance(value, list):
            _extend(present, value)
        elif isinstance(present, str) and isinstance(value, str):
            into[name] = present + value
        else:
            into[name] = value


def _is_indexed(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, dict) and "index" in i for i in value)


def _extend(present: list[Any], more: list[Any]) -> None:
    """Lists whose items have an index (tool calls) merge item by item, others are joined."""
    if not _is_indexed(more):
        present.extend(more)
        return
    for item in more:
        same = next((p for p in present if p.get("index") == item["index"]), None)
        if same is None:
            present.append(dict(item))
        else:
            _merge(same, item)
