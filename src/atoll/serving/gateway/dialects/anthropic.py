"""Anthropic's messages: requests become chat requests, answers are told in Anthropic's form.

Known are the parameters that have a meaning for any model. Prompt caching is the engine's own: `cache_control` is
accepted and changes nothing, usage tells what was found in the cache. Server-side tools, documents other than text and
files have no counterpart here and are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.anthropic_answer import CountTranslation, MessageTranslation
from atoll.serving.gateway.dialects.engines import can, cannot
from atoll.serving.gateway.dialects.expect import (
    AT_LEAST_ONE,
    FLAG,
    INTEGER,
    LIST,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    STOPS,
    TEXT,
    TEXT_OR_LIST,
    Expectation,
    check_model,
    check_parameters,
    read_object,
    require,
    wrong,
)
from atoll.serving.gateway.dialects.generation import Chat, chat_order
from atoll.serving.gateway.dialects.order import Endpoint, Headers, Target, Translation

MESSAGES: Mapping[str, Expectation] = {
    "cache_control": OBJECT,
    "max_tokens": AT_LEAST_ONE,
    "messages": LIST,
    "metadata": OBJECT,
    "model": TEXT,
    "output_config": OBJECT,
    "service_tier": TEXT,
    "stop_sequences": STOPS,
    "stream": FLAG,
    "system": TEXT_OR_LIST,
    "temperature": NOT_NEGATIVE,
    "thinking": OBJECT,
    "tool_choice": OBJECT,
    "tools": LIST,
    "top_k": INTEGER,
    "top_p": NUMBER,
}
_SAME = {
    "max_tokens": "max_tokens",
    "stop_sequences": "stop",
    "stream": "stream",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Messages(Chat):
    """A request to /v1/messages as the chat request it means."""

    __slots__ = ()

    @property
    def wants_usage(self) -> bool:
        return True

    def wants(self, parameter: str) -> bool:
        return parameter == "return_progress" or super().wants(parameter)

    @property
    def can_continue(self) -> bool:
        return self.fields.keys() <= _CONTINUABLE and super().can_continue

    def path(self, target: Target) -> str:
        return "/v1/chat/completions"

    def is_passed(self, target: Target) -> bool:
        return not self._asks_which_stop(target) and super().is_passed(target)

    def asked(self, target: Target) -> dict[str, Any]:
        asked = super().asked(target)
        if self._asks_which_stop(target):
            asked["verbose"] = True
        return asked

    def fields_for(self, target: Target) -> dict[str, Any]:
        """Thinking is asked for by the chat template; an engine that has none to be told leaves it to the model."""
        if target.engine not in ("openai", "transformers"):
            return self.fields
        return {name: value for name, value in self.fields.items() if name != "chat_template_kwargs"}

    def _asks_which_stop(self, target: Target) -> bool:
        """llama.cpp tells which stop sequence it met only among much else."""
        return target.engine == "llamacpp" and bool(self.fields.get("stop"))

    def translation(self, target: Target) -> Translation:
        return MessageTranslation(super().translation(target), self.model)


_CONTINUABLE = frozenset(["model", "messages", "max_tokens", "stream", "temperature", "top_k", "top_p", "user"])


class CountTokens(Messages):
    """A request to /v1/messages/count_tokens, counted by the engine with the model's own template."""

    __slots__ = ()

    def path(self, target: Target) -> str:
        return "/v1/messages/count_tokens" if target.engine == "llamacpp" else "/tokenize"

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        if target.engine not in ("llamacpp", "vllm"):
            raise cannot(target, "messages", "count_tokens", "The model's engine cannot count tokens beforehand.")
        asked = self.asked(target)
        counted = {"model": target.model or self.model, "messages": asked["messages"]}
        if asked.get("tools") and can(target, "tools"):
            counted["tools"] = asked["tools"]
        if target.engine == "vllm":
            return orjson.dumps(counted)
        return orjson.dumps(_for_llama_cpp(counted))

    def translation(self, target: Target) -> Translation:
        return CountTranslation()


def _for_llama_cpp(counted: dict[str, Any]) -> dict[str, Any]:
    """Chat messages in the form its own route for counting reads."""
    system = [m["content"] for m in counted["messages"] if m["role"] == "system"]
    rest = [m for m in counted["messages"] if m["role"] != "system"]
    result: dict[str, Any] = counted | {"messages": rest}
    if system:
        result["system"] = "\n".join(map(str, system))
    if "tools" in counted:
        result["tools"] = [
            {
                "name": tool["function"]["name"],
                "description": tool["function"].get("description") or "",
                "input_schema": tool["function"].get("parameters") or {},
            }
            for tool in counted["tools"]
        ]
    return result


def read_messages(endpoint: Endpoint, data: bytes, headers: Headers) -> Messages:
    fields = read_object(data)
    require(fields, "model", "max_tokens", "messages")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    chat = chat_fields(fields)
    return chat_order(Messages, endpoint, orjson.dumps(chat), chat, headers)


def read_count(endpoint: Endpoint, data: bytes, headers: Headers) -> CountTokens:
    fields = read_object(data)
    require(fields, "model", "messages")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    chat = chat_fields(fields | {"stream": False})
    return chat_order(CountTokens, endpoint, orjson.dumps(chat), chat, headers)


def chat_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that a messages request means. Raises Invalid naming what has no such meaning."""
    chat: dict[str, Any] = {"model": fields["model"], "messages": _messages(fields)}
    for name, ours in _SAME.items():
        if fields.get(name) is not None:
            chat[ours] = fields[name]
    if fields.get("tools"):
        chat["tools"] = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(fields["tools"])]
    if fields.get("tool_choice") is not None:
        _choose(chat, fields["tool_choice"])
    if fields.get("thinking") is not None:
        chat["chat_template_kwargs"] = {"enable_thinking": fields["thinking"].get("type") != "disabled"}
    if fields.get("output_config") is not None:
        _form(chat, fields["output_config"])
    user = (fields.get("metadata") or {}).get("user_id")
    if isinstance(user, str):
        chat["user"] = user
    return chat


def _choose(chat: dict[str, Any], choice: Mapping[str, Any]) -> None:
    kind = choice.get("type")
    if kind == "tool" and isinstance(choice.get("name"), str):
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif isinstance(kind, str) and kind in _CHOICES:
        chat["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice.type", "'auto', 'any', 'none', or 'tool' with a 'name'", kind)
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _form(chat: dict[str, Any], config: Mapping[str, Any]) -> None:
    form = config.get("format")
    if form is not None:
        if not isinstance(form, Mapping) or form.get("type") != "json_schema":
            raise wrong("output_config.format", "an object of type 'json_schema'", form)
        described = {"name": "answer", "schema": form.get("schema")}
        chat["response_format"] = {"type": "json_schema", "json_schema": described}
    if isinstance(config.get("effort"), str):
        chat["reasoning_effort"] = config["effort"]


def _tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise wrong(where, "an object", tool)
    if tool.get("type") not in (None, "custom"):
        raise Invalid(
            f"The tool type {tool['type']!r} is Anthropic's own and not available here.", field=f"{where}.type"
        )
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {}}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _messages(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    system = fields.get("system")
    result: list[dict[str, Any]] = []
    if system:
        result.append({"role": "system", "content": _system_text(system)})
    for index, message in enumerate(fields["messages"]):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise wrong(where, "an object", message)
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise wrong(f"{where}.role", "'user' or 'assistant'", role)
        if isinstance(content, str):
            result.append({"role": role, "content": content})
        elif isinstance(content, list):
            result.extend(_from_blocks(f"{where}.content", str(role), content))
        else:
            raise wrong(f"{where}.content", "a string or a list of blocks", content)
    if len(result) == bool(system):
        raise Invalid("'messages' must have at least one message.", field="messages")
    return result


def _system_text(system: Any) -> str:
    if isinstance(system, str):
        return system
    return "\n".join(_text(f"system[{index}]", block) for index, block in enumerate(system))


def _text(where: str, block: Any) -> str:
    if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise wrong(where, "a block of type 'text' with a 'text'", block)
    return str(block["text"])


def _from_blocks(where: str, role: str, blocks: list[Any]) -> list[dict[str, Any]]:
    """The chat messages one message of blocks becomes: results of tools come first, each on its own."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        here = f"{where}[{index}]"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "tool_result":
            results.append(_result(here, block))
        elif kind == "tool_use":
            calls.append(_call(here, block))
        elif kind in ("thinking", "redacted_thinking"):
            continue
        else:
            parts.append(_part(here, kind, block))
    if not parts and not calls:
        return results
    message: dict[str, Any] = {"role": role, "content": _content(parts)}
    if calls:
        message["tool_calls"] = calls
    return [*results, message]


def _content(parts: list[dict[str, Any]]) -> Any:
    """A list of parts, or their text when they are all text; chat templates know that best."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts) if parts else None
    return parts


def _part(where: str, kind: Any, block: Any) -> dict[str, Any]:
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": _source_url(f"{where}.source", block.get("source"))}}
    if kind == "document":
        source = block.get("source")
        if isinstance(source, Mapping) and source.get("type") == "text" and isinstance(source.get("data"), str):
            return {"type": "text", "text": source["data"]}
        raise Invalid("Only documents with a source of type 'text' can be read here.", field=f"{where}.source")
    return {"type": "text", "text": _text(where, block)}


def _source_url(where: str, source: Any) -> str:
    if isinstance(source, Mapping):
        if source.get("type") == "base64" and isinstance(source.get("data"), str):
            return f"data:{source.get('media_type')};base64,{source['data']}"
        if source.get("type") == "url" and isinstance(source.get("url"), str):
            return str(source["url"])
    raise wrong(where, "a source of type 'base64' or 'url'", source)


def _call(where: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("id"), str):
        raise wrong(where, "a tool_use with an 'id' and a 'name'", dict(block))
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _result(where: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("tool_use_id"), str):
        raise wrong(f"{where}.tool_use_id", "a string", block.get("tool_use_id"))
    content = block.get("content")
    if isinstance(content, list):
        content = "\n".join(_text(f"{where}.content[{index}]", part) for index, part in enumerate(content))
    elif content is not None and not isinstance(content, str):
        raise wrong(f"{where}.content", "a string or a list of blocks", content)
    text = f"Error: {content}" if block.get("is_error") else content or ""
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}
