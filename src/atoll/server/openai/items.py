"""Items of conversations and responses: checked, named, and as the chat messages a model is asked with.

An item is what OpenAI's Responses API calls so: a message, a function call, its output, a reasoning. Chat messages
(without a type) are taken as well. What a model makes of them is not known here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from atoll.core.errors import Invalid, TooLarge

TYPES = ("message", "function_call", "function_call_output", "reasoning")
ROLES = ("system", "developer", "user", "assistant")
ITEMS_BYTES_MAX = 8 << 20
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_TEXTS = ("input_text", "output_text", "text", "refusal", "summary_text")


def checked(items: Sequence[Any], where: str = "items") -> list[dict[str, Any]]:
    """The items if they are such; Invalid names the one that is not, TooLarge when they are too long together."""
    for number, item in enumerate(items):
        _check(item, f"{where}[{number}]")
    try:
        size_bytes = len(orjson.dumps(items))
    except (TypeError, ValueError) as error:
        raise Invalid(f"{where} cannot be kept: {error}", field=where) from error
    if size_bytes > ITEMS_BYTES_MAX:
        raise TooLarge(f"{where} have {size_bytes} bytes together, the limit is {ITEMS_BYTES_MAX}")
    return list(items)


def named(items: Iterable[dict[str, Any]], scope: str) -> list[dict[str, Any]]:
    """The items with a type and an id; the same items in the same `scope` get the same ids."""
    return [_named(item, f"{scope}/{number}") for number, item in enumerate(items)]


def chat_messages(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items as chat messages; calls that follow an answer belong to its message. Reasoning is left out."""
    messages: list[dict[str, Any]] = []
    for item in items:
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append(_message(item))
        elif kind == "function_call":
            _caller(messages)["tool_calls"].append(_call(item))
        elif kind == "function_call_output":
            content = _content(item.get("output"))
            messages.append({"role": "tool", "tool_call_id": item.get("call_id", ""), "content": content})
    return messages


def _check(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise Invalid(f"{where} is not an object", field=where)
    kind = item.get("type") or "message"
    if kind not in TYPES:
        raise Invalid(f"{where}.type cannot be {kind!r:.60}", field=f"{where}.type", hint=f"one of {', '.join(TYPES)}")
    if kind == "message" and item.get("role") not in (*ROLES, "tool"):
        what = f"{where}.role cannot be {item.get('role')!r:.60}"
        raise Invalid(what, field=f"{where}.role", hint=f"one of {', '.join(ROLES)}")
    if item.get("id") is not None and not _is_id(item["id"]):
        raise Invalid(
            f"{where}.id cannot be {item['id']!r:.60}", field=f"{where}.id", hint="1 to 128 of A-Z a-z 0-9 _ . -"
        )
    for name in _needed(kind):
        if not isinstance(item.get(name), str):
            raise Invalid(f"{where}.{name} must be a text", field=f"{where}.{name}")
    if kind == "message":
        _check_content(item.get("content"), f"{where}.content", is_optional=bool(item.get("tool_calls")))


def _needed(kind: str) -> tuple[str, ...]:
    needed = {"function_call": ("call_id", "name", "arguments"), "function_call_output": ("call_id",)}
    return needed.get(kind, ())


def _is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value) is not None


def _check_content(content: Any, where: str, *, is_optional: bool) -> None:
    if isinstance(content, str) or (content is None and is_optional):
        return
    parts = content if isinstance(content, list) else [None]
    if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts):
        raise Invalid(f"{where} must be a text or a list of parts with a type", field=where)


def _named(item: dict[str, Any], place: str) -> dict[str, Any]:
    kind = item.get("type") or "message"
    name = f"{_PREFIXES[kind]}_{hashlib.sha256(place.encode()).hexdigest()[:32]}"
    made = {**item, "type": kind, "id": item.get("id") or name}
    if kind == "message":
        made |= {"status": item.get("status") or "completed", "content": _parts(item)}
    return made


def _parts(item: dict[str, Any]) -> Any:
    """Content as a list of parts, as the Responses API shows it."""
    content = item.get("content")
    if not isinstance(content, str):
        return content or []
    if item.get("role") == "assistant":
        return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": content}]


def _message(item: dict[str, Any]) -> dict[str, Any]:
    role = "system" if item["role"] == "developer" else item["role"]
    kept = {name: item[name] for name in ("name", "tool_calls", "tool_call_id") if item.get(name)}
    return {"role": role, "content": _content(item.get("content")), **kept}


def _content(content: Any) -> Any:
    """A plain text where all parts are text, else the parts of a chat message."""
    if not isinstance(content, list):
        return content if isinstance(content, str) or content is None else orjson.dumps(content).decode()
    if all(part.get("type") in _TEXTS for part in content):
        return "".join(str(part.get("text") or part.get("refusal") or "") for part in content)
    return [_part(part) for part in content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") in _TEXTS:
        return {"type": "text", "text": str(part.get("text") or part.get("refusal") or "")}
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    return part


def _call(item: dict[str, Any]) -> dict[str, Any]:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _caller(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message calls belong to: the last one, or a new one without text."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]
