"""Requests in OpenAI's language as the transformers engine understands them, with every value checked.

Unknown parameters are left alone: the gateway in front names them. Text only; images and sound are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson

from atoll.core.errors import Invalid
from atoll.serving.engine.constraints import Constraint, Constraints
from atoll.serving.engine.sampling import Sampling
from atoll.serving.engine.text_model import TextModel

ANSWERS_MAX = 128
STOPS_MAX = 16
STOP_CHARS_MAX = 1024
TOOLS_MAX = 128
MESSAGES_MAX = 4096
INPUTS_MAX = 2048
TOP_LOGPROBS_MAX = 20
BIAS_MAX = 1024


@dataclass(frozen=True, slots=True)
class TextRequest:
    """What is to be generated: `answers` for each of `prompts`, which are tokens."""

    prompts: tuple[tuple[int, ...], ...]
    answers: int
    tokens_max: int
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_end: bool
    is_stream: bool
    include_usage: bool
    continuous_usage: bool
    has_calls: bool = False

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt) for prompt in self.prompts)


def read_chat(body: Mapping[str, Any], model: TextModel) -> tuple[TextRequest, list[Mapping[str, Any]]]:
    """A request of /v1/chat/completions and the functions it may call. Invalid names the field at fault."""
    if not model.has_template:
        raise Invalid("the model has no chat template", field="messages", hint="use /v1/completions")
    messages = _messages(body.get("messages"))
    tools = _tools(body)
    rendered = model.render(_told(messages, tools, model), body.get("tools") if tools else None)
    logprobs = _whole(body, "top_logprobs", 0, TOP_LOGPROBS_MAX, 0) if _flag(body, "logprobs") else None
    prompt = tuple(model.encode(rendered, is_rendered=True))
    return _request(body, model, (prompt,), logprobs, "messages", has_calls=bool(tools)), tools


def read_completion(body: Mapping[str, Any], model: TextModel) -> TextRequest:
    """A request of /v1/completions. Invalid names the field at fault."""
    for name in ("suffix", "echo"):
        if body.get(name):
            raise Invalid(f"{name} is not supported by this engine", field=name)
    if _whole(body, "best_of", 1, ANSWERS_MAX, 1) > _whole(body, "n", 1, ANSWERS_MAX, 1):
        raise Invalid("best_of is not supported by this engine", field="best_of")
    logprobs = body.get("logprobs")
    top = None if logprobs is None else _whole(body, "logprobs", 0, TOP_LOGPROBS_MAX, 0)
    return _request(body, model, token_rows(body.get("prompt"), model, "prompt"), top, "prompt")


def constraint_of(
    body: Mapping[str, Any], tools: Sequence[Mapping[str, Any]], constraints: Constraints
) -> Constraint | None:
    """What holds one answer of this request; Invalid names the field at fault."""
    if tools:
        return constraints.of_call(tools, is_required=body.get("tool_choice", "auto") != "auto")
    for name in ("grammar", "json_schema"):
        if body.get(name) is not None:
            make = constraints.of_grammar if name == "grammar" else constraints.of_schema
            return make(body[name], name)
    return _of_format(body.get("response_format"), constraints)


def token_rows(value: object, model: TextModel, field: str) -> tuple[tuple[int, ...], ...]:
    """A text, a list of texts, tokens, or a list of tokens as rows of tokens. Invalid."""
    items = value if isinstance(value, list) and not _is_tokens(value) else [value]
    if not items or len(items) > INPUTS_MAX:
        raise Invalid(f"{field} has {len(items)} entries, not 1 to {INPUTS_MAX}", field=field)
    rows = []
    for item in items:
        row = model.encode(item) if isinstance(item, str) else item
        if not _is_tokens(row) or not all(0 <= token < model.vocabulary for token in row):
            raise Invalid(f"{field} is neither text nor tokens of this model, or empty", field=field)
        rows.append(tuple(row))
    return tuple(rows)


def check_length(tokens: int, model: TextModel, field: str, room: int = 0) -> None:
    """Invalid with both numbers when the tokens, and `room` for an answer, do not fit into a slot's context."""
    if tokens + room > model.context:
        raise Invalid(
            f"{field} has {tokens} tokens, the context is {model.context}",
            field=field,
            hint="shorten it, or serve the model with a longer context",
            code="context_length_exceeded",
        )


def _request(
    body: Mapping[str, Any],
    model: TextModel,
    prompts: tuple[tuple[int, ...], ...],
    top_logprobs: int | None,
    field: str,
    *,
    has_calls: bool = False,
) -> TextRequest:
    answers = _whole(body, "n", 1, ANSWERS_MAX, 1)
    if answers * len(prompts) > ANSWERS_MAX:
        raise Invalid(f"{answers * len(prompts)} answers are asked for, the limit is {ANSWERS_MAX}", field="n")
    longest = max(len(prompt) for prompt in prompts)
    check_length(longest, model, field, 1)
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    asked = _whole(body, name, 1, 1 << 31, model.context)
    options = body.get("stream_options") or {}
    if not isinstance(options, Mapping):
        raise Invalid(f"stream_options is {options!r}, not an object", field="stream_options")
    return TextRequest(
        prompts=prompts,
        answers=answers,
        tokens_max=min(asked, model.context - longest),
        sampling=_sampling(body, top_logprobs),
        stop=_stop(body.get("stop")),
        ignore_end=_flag(body, "ignore_eos"),
        is_stream=_flag(body, "stream"),
        include_usage=_flag(options, "include_usage"),
        continuous_usage=_flag(options, "continuous_usage_stats"),
        has_calls=has_calls,
    )


def _sampling(body: Mapping[str, Any], top_logprobs: int | None) -> Sampling:
    seed = body.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or abs(seed) >= 1 << 63):
        raise Invalid(f"seed is {seed!r}, not a whole number of 64 bits", field="seed")
    return Sampling(
        temperature=_number(body, "temperature", 0.0, 100.0, 1.0),
        top_p=_number(body, "top_p", 0.0, 1.0, 1.0),
        top_k=max(0, _whole(body, "top_k", -1, 1 << 31, 0)),
        min_p=_number(body, "min_p", 0.0, 1.0, 0.0),
        presence_penalty=_number(body, "presence_penalty", -2.0, 2.0, 0.0),
        frequency_penalty=_number(body, "frequency_penalty", -2.0, 2.0, 0.0),
        bias=_bias(body.get("logit_bias") or {}),
        seed=seed,
        top_logprobs=top_logprobs,
    )


def _bias(value: object) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > BIAS_MAX:
        raise Invalid(f"logit_bias is not an object of at most {BIAS_MAX} tokens", field="logit_bias")
    for token, bias in value.items():
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool) and -100 <= bias <= 100
        if not str(token).isdecimal() or len(str(token)) > 9 or not is_number:
            raise Invalid(f"logit_bias has {token!r}: {bias!r}", field="logit_bias", hint="token: -100 to 100")
    return {int(token): float(bias) for token, bias in value.items()}


def _stop(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > STOPS_MAX:
        raise Invalid(f"stop is not a text or a list of at most {STOPS_MAX}", field="stop")
    for stop in stops:
        if not isinstance(stop, str) or len(stop) > STOP_CHARS_MAX:
            raise Invalid(f"stop has {stop!r}", field="stop", hint=f"texts of at most {STOP_CHARS_MAX} characters")
    return tuple(stop for stop in stops if stop)


def _messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not 0 < len(value) <= MESSAGES_MAX:
        raise Invalid(f"messages is not a list of 1 to {MESSAGES_MAX} messages", field="messages")
    return [_message(item, f"messages.{place}") for place, item in enumerate(value)]


def _message(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise Invalid(f"{field} is not a message with a role", field=field)
    message = dict(value) | {"content": _content(value.get("content"), f"{field}.content")}
    calls = value.get("tool_calls")
    if calls is not None:
        message["tool_calls"] = [_past_call(call, f"{field}.tool_calls") for call in calls]
    return message


def _content(value: object, field: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    parts = [part.get("text") if isinstance(part, Mapping) else None for part in value] if _is_list(value) else [None]
    if not all(isinstance(part, str) for part in parts):
        raise Invalid(f"{field} is not text", field=field, hint="this model reads text only")
    return "".join(str(part) for part in parts)


def _past_call(value: object, field: str) -> dict[str, Any]:
    """A call made earlier, its arguments as the object templates expect."""
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Invalid(f"{field} has an entry without a function", field=field)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError as error:
            raise Invalid(f"{field}: arguments are not JSON: {error}", field=field) from error
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The functions that may be called now."""
    choice, listed = body.get("tool_choice", "auto"), body.get("tools") or []
    if not isinstance(listed, list) or len(listed) > TOOLS_MAX:
        raise Invalid(f"tools is not a list of at most {TOOLS_MAX}", field="tools")
    functions = [_function(tool, f"tools.{place}") for place, tool in enumerate(listed)]
    if choice in (None, "none") or not functions:
        return []
    if isinstance(choice, Mapping):
        named = choice.get("function")
        name = named.get("name") if isinstance(named, Mapping) else None
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise Invalid(f"tool_choice names {name!r}, which is not among the tools", field="tool_choice")
    elif choice not in ("auto", "required"):
        raise Invalid(f"tool_choice is {choice!r}", field="tool_choice", hint="none, auto, required or a function")
    return functions


def _function(tool: object, field: str) -> Mapping[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Invalid(f"{field} has no function with a name", field=field)
    if not isinstance(function.get("parameters", {}) or {}, Mapping):
        raise Invalid(f"{field}.function.parameters is not a JSON schema", field=f"{field}.function.parameters")
    return function


def _told(messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], model: TextModel) -> list[dict[str, Any]]:
    """The messages, with the tools described first where the model's template would not."""
    if not tools or model.knows_tools():
        return messages
    described = "\n".join(orjson.dumps(dict(tool)).decode() for tool in tools)
    text = f'To call a function answer only {{"name": ..., "arguments": {{...}}}}. Functions:\n{described}'
    return [{"role": "system", "content": text}, *messages]


def _of_format(value: object, constraints: Constraints) -> Constraint | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or kind not in ("text", "json_object", "json_schema"):
        raise Invalid("response_format is not known", field="response_format", hint="text, json_object, json_schema")
    if kind == "text":
        return None
    named = value.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else value.get("schema")
    if kind == "json_schema" and schema is None:
        raise Invalid("response_format.json_schema.schema is missing", field="response_format.json_schema.schema")
    return constraints.of_schema({"type": "object"} if schema is None else schema, "response_format.json_schema.schema")


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _is_tokens(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(t, int) and not isinstance(t, bool) for t in value)
    )


def _flag(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise Invalid(f"{field} is {value!r}, not true or false", field=field)
    return bool(value)


def _whole(body: Mapping[str, Any], field: str, least: int, most: int, default: int) -> int:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"{field} is {value!r}, not a whole number from {least} to {most}", field=field)
    return value


def _number(body: Mapping[str, Any], field: str, least: float, most: float, default: float) -> float:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise Invalid(f"{field} is {value!r}, not a number from {least:g} to {most:g}", field=field)
    return float(value)
