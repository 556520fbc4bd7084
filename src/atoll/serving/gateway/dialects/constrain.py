"""Tool calls and JSON answers: checked, and bound to a schema so that small models hold to them too.

What an engine enforces itself is left to it, given in a form it enforces: llama.cpp (as measured) holds to
`json_schema`, `json_object` and grammars, but ignores `tools` altogether when the model's chat template has no place
for them; and where it has, a `tool_choice` of "required" still lets the model talk instead of calling, and one that
names a tool is not read at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.calls import CallTranslation
from atoll.serving.gateway.dialects.engines import can, cannot
from atoll.serving.gateway.dialects.expect import wrong
from atoll.serving.gateway.dialects.order import Target, Translation
from atoll.serving.gateway.dialects.schema import (
    CONTEXT_UNBOUNDED,
    any_object,
    bounded,
    not_enforced,
    tokens_for_answer,
)
from atoll.serving.gateway.dialects.tools import (
    PARALLEL_CALLS_MAX,
    answer_schema,
    check_tools,
    chosen,
    explained,
    in_words,
    parameters_of,
)

_ASKING = frozenset(
    [
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "json_schema",
        "grammar",
        "structured_outputs",
        "regex",
        "ebnf",
        "audio",
        "modalities",
        "web_search_options",
        "logprobs",
        "top_logprobs",
    ]
)
_LIMITS = ("grammar", "json_schema", "structured_outputs", "regex", "ebnf")
_FORMATS = ("text", "json_object", "json_schema")
_BOUND_HERE = ("llamacpp", "transformers")
ANY_OBJECT = {"type": "object"}


def asks_for_nothing(fields: Mapping[str, Any]) -> bool:
    """Whether a request has no wish about the form of its answer."""
    return _ASKING.isdisjoint(fields)


def check(fields: Mapping[str, Any]) -> None:
    """Raise Invalid for wishes that are none."""
    check_tools(fields.get("tools"), fields.get("tool_choice"))
    check_format(fields.get("response_format"))
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise Invalid("'top_logprobs' needs 'logprobs' to be true.", field="top_logprobs")
    limits = [name for name in _LIMITS if fields.get(name)]
    if len(limits) > 1:
        raise Invalid(f"Only one of {', '.join(map(repr, limits))} can be given.", field=limits[1])


def check_format(form: Any) -> None:
    """Raise Invalid unless this is a response_format."""
    if form is None:
        return
    kind = form.get("type")
    if kind not in _FORMATS:
        raise wrong("response_format.type", f"one of {', '.join(_FORMATS)}", kind)
    if kind != "json_schema":
        return
    described = form.get("json_schema")
    if not isinstance(described, Mapping):
        raise wrong("response_format.json_schema", "an object", described)
    if not isinstance(described.get("schema"), Mapping):
        raise wrong("response_format.json_schema.schema", "a JSON schema", described.get("schema"))


def is_supplied(fields: Mapping[str, Any], target: Target) -> bool:
    """Whether tool calls must be made of a JSON answer for this target."""
    tools = fields.get("tools")
    if not tools or fields.get("tool_choice") == "none":
        return False
    if not can(target, "tools"):
        return True
    return target.engine == "llamacpp" and chosen(tools, fields.get("tool_choice"))[1] == "required"


def translation(fields: Mapping[str, Any], target: Target) -> Translation | None:
    return CallTranslation() if is_supplied(fields, target) else None


def constrained(asked: dict[str, Any], target: Target, output_bound: int | None) -> dict[str, Any]:
    """The request with its wishes in a form this target enforces. Raises Invalid when it can enforce none."""
    if asked.get("logprobs") and not can(target, "logprobs"):
        raise cannot(target, "logprobs", "logprobs")
    if target.engine == "openai":
        return asked
    asked["messages"] = [_known_role(message) for message in asked["messages"]]
    tokens = tokens_for_answer(target.context, output_bound) if target.engine in _BOUND_HERE else None
    if is_supplied(asked, target):
        return _supplied(asked, target, tokens)
    if asked.get("tools"):
        _natively(asked, target, tokens)
    if not can(target, "tools"):
        asked["messages"] = in_words(asked["messages"], "")
    for name in ("response_format", "json_schema"):
        if asked.get(name):
            _formed(asked, name, target, tokens)
    return asked


def _known_role(message: dict[str, Any]) -> dict[str, Any]:
    """Chat templates know the system, not the developer."""
    return message | {"role": "system"} if message["role"] == "developer" else message


def _supplied(asked: dict[str, Any], target: Target, tokens: int | None) -> dict[str, Any]:
    """Tools as a schema and words."""
    tools, mode = chosen(asked.pop("tools"), asked.pop("tool_choice", None))
    is_parallel = bool(asked.pop("parallel_tool_calls", False))
    if not can(target, "json_schema"):
        raise cannot(target, "tools", "tools")
    if any(tool["type"] != "function" for tool in tools):
        raise Invalid("Only tools of type 'function' can be called here.", field="tools")
    must_call = mode == "required"
    _check_strict_tools(tools, target)
    content = _schema_of(asked.pop("response_format", None))
    limits = [name for name in _LIMITS if asked.get(name)]
    if limits:
        raise cannot(target, limits[0], "tools", "Use it without 'tools'.")
    asked["messages"] = in_words(asked["messages"], explained(tools, must_call=must_call))
    schema = _bound_answer(tools, content, tokens, must_call=must_call, is_parallel=is_parallel)
    asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return asked


def _bound_answer(
    tools: list[Any], content: Any, tokens: int | None, *, must_call: bool, is_parallel: bool
) -> dict[str, Any]:
    """The schema of an answer with these tools. A plain text may be long: cut off or not, it is a text."""
    share = (tokens or CONTEXT_UNBOUNDED) // (PARALLEL_CALLS_MAX if is_parallel else 1)
    bound = [_bound_tool(tool, share) for tool in tools]
    if content is not None:
        content = bounded(content, tokens or CONTEXT_UNBOUNDED)
    return answer_schema(bound, must_call=must_call, is_parallel=is_parallel, content=content)


def _natively(asked: dict[str, Any], target: Target, tokens: int | None) -> None:
    """Tools for an engine that knows them, without what it would overlook."""
    tools, mode = chosen(asked["tools"], asked.get("tool_choice"))
    if mode == "none" or not tools:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            asked.pop(name, None)
        return
    choice = asked.get("tool_choice")
    if isinstance(choice, Mapping) and choice["type"] == "allowed_tools":
        asked["tool_choice"] = mode
    else:
        tools = asked["tools"]
    _check_strict_tools(tools, target)
    if tokens is not None:
        tools = [_bound_tool(tool, tokens) for tool in tools]
    asked["tools"] = tools


def _bound_tool(tool: dict[str, Any], tokens: int) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return tool | {"function": tool["function"] | {"parameters": bounded(parameters_of(tool), tokens)}}


def _schema_of(form: Mapping[str, Any] | None) -> Any:
    """The schema a response_format means; None for text."""
    if form is None or form["type"] == "text":
        return None
    return form["json_schema"]["schema"] if form["type"] == "json_schema" else ANY_OBJECT


def _check_strict_tools(tools: list[Any], target: Target) -> None:
    for index, tool in enumerate(tools):
        if tool["type"] == "function" and tool["function"].get("strict"):
            _check_strict(parameters_of(tool), f"tools[{index}].function.parameters", target)


def _check_strict(schema: Any, where: str, target: Target) -> None:
    """Raise Invalid for what a strict schema says that the grammar llama.cpp makes of it does not."""
    passed_over = not_enforced(schema, where) if target.engine == "llamacpp" else None
    if passed_over is not None:
        raise Invalid(
            f"'{passed_over}' cannot be enforced by the model's engine, and the schema is 'strict'.",
            field=passed_over,
            hint="Leave it out, or leave 'strict' out and check the answer yourself.",
            code="unsupported_parameter",
        )


def _formed(asked: dict[str, Any], name: str, target: Target, tokens: int | None) -> None:
    """A wished form of the answer, with ends where the model needs them."""
    form: dict[str, Any] = asked[name]
    if name == "json_schema":
        form = {"type": "json_schema", "json_schema": {"schema": form}}
    if form["type"] == "text":
        del asked[name]
        return
    if not can(target, "json_schema"):
        raise cannot(target, name, "json_schema")
    if form["type"] == "json_schema" and form["json_schema"].get("strict"):
        _check_strict(form["json_schema"]["schema"], "response_format.json_schema.schema", target)
    if tokens is None:
        return
    if form["type"] == "json_object":
        if can(target, "grammar"):
            del asked[name]
            asked["grammar"] = any_object(tokens)
        return
    described = form["json_schema"]
    schema = bounded(described["schema"], tokens)
    asked[name] = schema if name == "json_schema" else form | {"json_schema": described | {"schema": schema}}
