"""Items of the Responses API as chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.expect import wrong

_ROLES = ("system", "developer", "user", "assistant")
_TEXTS = ("input_text", "output_text", "text")


def messages_of(given: Any) -> list[dict[str, Any]]:
    """The chat messages that an `input` means. Raises Invalid naming the item that means none."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        _add(messages, f"input[{index}]", item)
    if not messages:
        raise Invalid("'input' must have at least one item.", field="input")
    return messages


def stored_input(given: Any) -> list[dict[str, Any]]:
    """An `input` as a list of items."""
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        return [{"type": "message", "role": "user", "content": content}]
    return list(given)


def _add(messages: list[dict[str, Any]], where: str, item: Any) -> None:
    if not isinstance(item, Mapping):
        raise wrong(where, "an object", item)
    kind = item.get("type") or "message"
    if kind == "message":
        messages.append(_message(where, item))
    elif kind == "function_call":
        _caller(messages)["tool_calls"].append(_call(where, item))
    elif kind == "function_call_output":
        if not isinstance(item.get("call_id"), str):
            raise wrong(f"{where}.call_id", "a string", item.get("call_id"))
        content = _content(f"{where}.output", item.get("output"))
        messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
    elif kind != "reasoning":
        raise wrong(f"{where}.type", "'message', 'function_call', 'function_call_output' or 'reasoning'", kind)


def _message(where: str, item: Mapping[str, Any]) -> dict[str, Any]:
    if item.get("role") not in _ROLES:
        raise wrong(f"{where}.role", f"one of {', '.join(_ROLES)}", item.get("role"))
    role = "system" if item["role"] == "developer" else item["role"]
    return {"role": role, "content": _content(f"{where}.content", item.get("content"))}


def _content(where: str, content: Any) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(where, "a string or a list of parts", content)
    parts = [_part(f"{where}[{index}]", part) for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(where: str, part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise wrong(where, "a part of type 'input_text', 'output_text', or 'input_image' with an 'image_url'", part)


def _call(where: str, item: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("call_id", "name", "arguments"):
        if not isinstance(item.get(name), str):
            raise wrong(f"{where}.{name}", "a string", item.get(name))
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _caller(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message a call belongs to: the last one, or a new one without text."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]
