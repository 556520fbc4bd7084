"""Tools as requests name them: checked, and for models whose template knows none, turned into a schema and words.

Such a model is told of the tools in its system message and bound to answer with one of two objects, which `calls`
reads back: {"content": text} or {"tool_calls": [{"name": tool, "arguments": {...}}]}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.expect import wrong

TOOLS_MAX = 128
PARALLEL_CALLS_MAX = 8
NAME_CHARACTERS_MAX = 128
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
Message = dict[str, Any]


def check_tools(tools: Any, choice: Any) -> None:
    """Raise Invalid unless these are tools and a choice among them."""
    if tools is not None and len(tools) > TOOLS_MAX:
        raise Invalid(f"'tools' has {len(tools)} items; at most {TOOLS_MAX} are allowed.", field="tools")
    for index, tool in enumerate(tools or ()):
        _check_tool(f"tools[{index}]", tool)
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise wrong("tool_choice", "'none', 'auto', 'required' or an object naming a tool", choice)
    if not tools:
        if choice not in (None, "none", "auto"):
            raise Invalid("'tool_choice' needs 'tools'.", field="tool_choice")
        return
    offered = {name_of(tool) for tool in tools}
    for name in named(choice):
        if name not in offered:
            raise Invalid(f"'tool_choice' names {name!r}, which is not among 'tools'.", field="tool_choice")


def _check_tool(where: str, tool: Any) -> None:
    if not isinstance(tool, Mapping) or not isinstance(tool.get("type"), str):
        raise wrong(where, "an object with a 'type'", tool)
    if tool["type"] != "function":
        return
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise wrong(f"{where}.function", "an object", function)
    name = function.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise wrong(f"{where}.function.name", f"a string of 1 to {NAME_CHARACTERS_MAX} characters", name)
    if not isinstance(function.get("parameters") or {}, Mapping):
        raise wrong(f"{where}.function.parameters", "a JSON schema", function["parameters"])
    if not isinstance(function.get("description") or "", str):
        raise wrong(f"{where}.function.description", "a string", function["description"])


def named(choice: Any) -> list[str]:
    """The tools a choice names; raises Invalid for a choice of no known form."""
    if not isinstance(choice, Mapping):
        return []
    kind = choice.get("type")
    if kind == "function" and isinstance(choice.get("function"), Mapping):
        return [_text(choice["function"].get("name"))]
    allowed = choice.get("allowed_tools")
    if kind == "allowed_tools" and isinstance(allowed, Mapping) and isinstance(allowed.get("tools"), list):
        return [name_of(tool) for tool in allowed["tools"]]
    raise wrong("tool_choice", "'none', 'auto', 'required' or an object naming a tool", choice)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong("tool_choice", "an object with the name of a tool", value)
    return value


def name_of(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return _text(function.get("name") if isinstance(function, Mapping) else None)


def chosen(tools: Sequence[Any], choice: Any) -> tuple[list[Any], str]:
    """The tools that may be called, and whether one must: "none", "auto" or "required"."""
    if isinstance(choice, Mapping):
        names = set(named(choice))
        mode = choice["allowed_tools"].get("mode") if choice["type"] == "allowed_tools" else "required"
        return [tool for tool in tools if name_of(tool) in names], "auto" if mode == "auto" else "required"
    return list(tools), choice or "auto"


def parameters_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments; one that says nothing allows none."""
    schema = tool["function"].get("parameters")
    if not schema:
        return NO_PARAMETERS
    return dict(schema) if "type" in schema or "$ref" in schema else {"type": "object"} | schema


def answer_schema(tools: Sequence[Any], *, must_call: bool, is_parallel: bool, content: Any = None) -> dict[str, Any]:
    """What an answer with these tools must look like; `content` is the schema of answers that call none."""
    calls = [_object(name={"const": name_of(tool)}, arguments=parameters_of(tool)) for tool in tools]
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    most = PARALLEL_CALLS_MAX if is_parallel else 1
    calling = _object(tool_calls={"type": "array", "items": items, "minItems": 1, "maxItems": most})
    if must_call:
        return calling
    return {"anyOf": [_object(content=content or {"type": "string"}), calling]}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def explained(tools: Sequence[Any], *, must_call: bool) -> str:
    """What the model is told of its tools."""
    lines = ["You can call these tools:"]
    for tool in tools:
        function = tool["function"]
        schema = orjson.dumps(parameters_of(tool)).decode()
        lines.append(f"- {function['name']}: {function.get('description') or 'no description'} Arguments: {schema}")
    lines.append('To call a tool, answer with JSON: {"tool_calls": [{"name": "...", "arguments": {...}}]}')
    if not must_call:
        lines.append('If no tool is needed, answer with JSON: {"content": "your answer"}')
    return "\n".join(lines)


def in_words(messages: Sequence[Message], explanation: str) -> list[Message]:
    """The conversation for a template without tools: calls and results as text, the explanation in front."""
    names: dict[str, str] = {}
    result: list[Message] = []
    for message in messages:
        calls = message.get("tool_calls")
        if message["role"] == "assistant" and calls:
            names |= {str(call.get("id")): call["function"]["name"] for call in calls}
            result.append({"role": "assistant", "content": _said(message, calls)})
        elif message["role"] in ("tool", "function"):
            name = message.get("name") or names.get(str(message.get("tool_call_id")), "tool")
            result.append({"role": "user", "content": f"Result of {name}: {text_of(message.get('content'))}"})
        else:
            result.append(message)
    return _led_by(explanation, result) if explanation else result


def _said(message: Message, calls: Sequence[Any]) -> str:
    said = [{"name": c["function"]["name"], "arguments": _parsed(c["function"].get("arguments"))} for c in calls]
    return f"{text_of(message.get('content'))}{orjson.dumps({'tool_calls': said}).decode()}"


def _parsed(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return arguments


def text_of(content: Any) -> str:
    """The text in a message's content."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _led_by(explanation: str, messages: list[Message]) -> list[Message]:
    first = messages[0]
    if first["role"] in ("system", "developer"):
        told = {"role": first["role"], "content": f"{text_of(first.get('content'))}\n\n{explanation}"}
        return [told, *messages[1:]]
    return [{"role": "system", "content": explanation}, *messages]
