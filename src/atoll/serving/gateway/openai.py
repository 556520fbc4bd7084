"""OpenAI's wire language: what requests may say, and how errors are told. Pure; knows no keys and no replicas.

Requests are checked field by field; unknown fields are named instead of ignored. Known are OpenAI's parameters and
llama.cpp's sampling parameters. Left out on purpose are those that reach into the engine (slot and adapter choice) or
would hide what is metered.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from atoll.core.errors import AtollError, Invalid, NotFound, Unavailable
from atoll.serving.gateway.upstream import Broken

MODEL_NAME_CHARACTERS_MAX = 256
CHOICES_MAX = 128
Check = Callable[[Any], bool]
Expectation = tuple[Check, str]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_token_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_integer(item) for item in value)


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value, list)
        and bool(value)
        and (_is_text_list(value) or _is_token_list(value) or all(_is_token_list(item) for item in value))
    )


FLAG: Expectation = (lambda v: isinstance(v, bool), "true or false")
NUMBER: Expectation = (_is_number, "a number")
NOT_NEGATIVE: Expectation = (lambda v: _is_number(v) and v >= 0, "a number not below 0")
INTEGER: Expectation = (_is_integer, "an integer")
LENGTH: Expectation = (lambda v: _is_integer(v) and v >= -1, "an integer not below -1")
CHOICES: Expectation = (lambda v: _is_integer(v) and 1 <= v <= CHOICES_MAX, f"an integer from 1 to {CHOICES_MAX}")
TEXT: Expectation = (lambda v: isinstance(v, str), "a string")
TEXTS: Expectation = (lambda v: isinstance(v, str) or _is_text_list(v), "a string or a list of strings")
OBJECT: Expectation = (lambda v: isinstance(v, dict), "an object")
LIST: Expectation = (lambda v: isinstance(v, list), "a list")
OBJECT_OR_LIST: Expectation = (lambda v: isinstance(v, dict | list), "an object or a list")
TEXT_OR_OBJECT: Expectation = (lambda v: isinstance(v, str | dict), "a string or an object")
PROMPT: Expectation = (_is_prompt, "a string, a list of strings, a list of tokens or a list of lists of tokens")

_LLAMA_CPP = {
    "adaptive_decay": NUMBER,
    "adaptive_target": NUMBER,
    "cache_prompt": FLAG,
    "dry_allowed_length": INTEGER,
    "dry_base": NUMBER,
    "dry_multiplier": NUMBER,
    "dry_penalty_last_n": INTEGER,
    "dry_sequence_breakers": LIST,
    "dynatemp_exponent": NUMBER,
    "dynatemp_range": NUMBER,
    "grammar": TEXT,
    "ignore_eos": FLAG,
    "json_schema": OBJECT,
    "min_keep": INTEGER,
    "min_p": NUMBER,
    "mirostat": INTEGER,
    "mirostat_eta": NUMBER,
    "mirostat_tau": NUMBER,
    "n_indent": INTEGER,
    "n_keep": INTEGER,
    "n_predict": LENGTH,
    "n_probs": INTEGER,
    "post_sampling_probs": FLAG,
    "repeat_last_n": INTEGER,
    "repeat_penalty": NUMBER,
    "return_progress": FLAG,
    "samplers": LIST,
    "t_max_predict_ms": NUMBER,
    "timings_per_token": FLAG,
    "top_k": INTEGER,
    "top_n_sigma": NUMBER,
    "typical_p": NUMBER,
    "xtc_probability": NUMBER,
    "xtc_threshold": NUMBER,
}
_GENERATION = _LLAMA_CPP | {
    "frequency_penalty": NUMBER,
    "logit_bias": OBJECT_OR_LIST,
    "max_tokens": LENGTH,
    "model": TEXT,
    "n": CHOICES,
    "presence_penalty": NUMBER,
    "response_format": OBJECT,
    "seed": INTEGER,
    "stop": TEXTS,
    "stream": FLAG,
    "stream_options": OBJECT,
    "temperature": NOT_NEGATIVE,
    "top_p": NUMBER,
    "user": TEXT,
}
_CHAT = _GENERATION | {
    "add_generation_prompt": FLAG,
    "audio": OBJECT,
    "chat_template_kwargs": OBJECT,
    "function_call": TEXT_OR_OBJECT,
    "functions": LIST,
    "logprobs": FLAG,
    "max_completion_tokens": LENGTH,
    "messages": LIST,
    "metadata": OBJECT,
    "modalities": LIST,
    "parallel_tool_calls": FLAG,
    "parse_tool_calls": FLAG,
    "prediction": OBJECT,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "reasoning_effort": TEXT,
    "reasoning_format": TEXT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
    "store": FLAG,
    "thinking_forced_open": FLAG,
    "tool_choice": TEXT_OR_OBJECT,
    "tools": LIST,
    "top_logprobs": INTEGER,
    "verbosity": TEXT,
    "web_search_options": OBJECT,
}
_COMPLETION = _GENERATION | {
    "best_of": INTEGER,
    "echo": FLAG,
    "logprobs": INTEGER,
    "prompt": PROMPT,
    "suffix": TEXT,
}
_EMBEDDING = {
    "dimensions": INTEGER,
    "encoding_format": TEXT,
    "input": PROMPT,
    "model": TEXT,
    "user": TEXT,
}
_UPSTREAM_STREAM = {"stream_options": {"include_usage": True}, "timings_per_token": True, "return_progress": True}
_TOO_LONG = re.compile(r"\((\d+) tokens\) is too large to process.*batch size: (\d+)\)")  # llama.cpp, embeddings
_UPSTREAM_STREAM_PREFIX = orjson.dumps(_UPSTREAM_STREAM)[:-1] + b","


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route: its parameters, the one that must be there, and the kinds of model that answer it."""

    name: str
    path: str
    parameters: Mapping[str, Expectation]
    content: str
    kinds: frozenset[str]


CHAT = Endpoint("chat", "/v1/chat/completions", _CHAT, "messages", frozenset({"chat"}))
COMPLETION = Endpoint("completion", "/v1/completions", _COMPLETION, "prompt", frozenset({"chat", "completion"}))
EMBEDDING = Endpoint("embedding", "/v1/embeddings", _EMBEDDING, "input", frozenset({"embedding"}))


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request. `choices` is over all prompts, `choices_per_prompt` is OpenAI's n."""

    fields: dict[str, Any]
    model: str
    is_stream: bool
    choices: int
    choices_per_prompt: int

    @property
    def wants_usage(self) -> bool:
        return bool((self.fields.get("stream_options") or {}).get("include_usage"))

    def wants(self, parameter: str) -> bool:
        return bool(self.fields.get(parameter))


def read_order(endpoint: Endpoint, data: bytes) -> Order:
    """The request in a body; raises Invalid with `field` naming what is wrong."""
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"The body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise Invalid("The body must be a JSON object.")
    for required in ("model", endpoint.content):
        if fields.get(required) is None:
            raise Invalid(f"You must provide the parameter {required!r}.", field=required)
    _check_parameters(endpoint, fields)
    if endpoint is CHAT:
        _check_messages(fields["messages"])
    per_prompt = fields.get("n") or 1
    prompts = _count_prompts(fields["prompt"]) if endpoint is COMPLETION else 1
    return Order(fields, fields["model"], bool(fields.get("stream")), per_prompt * prompts, per_prompt)


def _check_parameters(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    known = endpoint.parameters
    for name, value in fields.items():
        expectation = known.get(name)
        if expectation is None:
            raise Invalid(f"Unknown parameter {name[:64]!r}.{_perhaps(name, known)}", field=name[:64])
        if value is not None and not expectation[0](value):
            raise Invalid(f"{name!r} must be {expectation[1]}, not {_shown(value)}.", field=name)
    if len(fields["model"]) > MODEL_NAME_CHARACTERS_MAX:
        raise Invalid(f"'model' is longer than {MODEL_NAME_CHARACTERS_MAX} characters.", field="model")


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise Invalid("'messages' must have at least one message.", field="messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise Invalid(f"{where!r} must be an object, not {_shown(message)}.", field=where)
        if not isinstance(message.get("role"), str):
            raise Invalid(f"'{where}.role' must be a string, not {_shown(message.get('role'))}.", field=f"{where}.role")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise Invalid(
                f"'{where}.content' must be a string or a list of parts, not {_shown(content)}.",
                field=f"{where}.content",
            )


def _count_prompts(prompt: Any) -> int:
    return len(prompt) if isinstance(prompt, list) and not _is_integer(prompt[0]) else 1


def engine_body(order: Order, data: bytes) -> bytes:
    """What the engine is asked: the client's own bytes, plus what metering needs (see `usage`)."""
    if not order.is_stream and order.choices == 1:
        return data
    if order.is_stream and not _UPSTREAM_STREAM.keys() & order.fields.keys():
        return _UPSTREAM_STREAM_PREFIX + data[data.index(b"{") + 1 :]
    return orjson.dumps({**order.fields, "stream": True, **_UPSTREAM_STREAM})


def unknown_model(name: str, names: Iterable[str]) -> NotFound:
    """404, naming the models most like `name` among those the caller may use."""
    candidates = sorted(names)[:1000]
    near = difflib.get_close_matches(name, candidates, 3, 0.4) or candidates[:5]
    offer = f" The nearest are: {', '.join(near)}." if near else " There are no models you may use."
    return NotFound(f"The model {name!r} does not exist.{offer}", code="model_not_found", param="model")


def read_engine_error(endpoint: Endpoint, status: int, body: bytes) -> AtollError:
    """What an engine's refusal means to the client; our own wrong credentials or path are not the client's fault."""
    told = _engine_told(body)
    message = str(told.get("message") or f"The engine answered {status}.")
    too_long = _TOO_LONG.search(message)
    if told.get("type") == "exceed_context_size_error" or too_long is not None:
        prompt, context = told.get("n_prompt_tokens"), told.get("n_ctx")
        if too_long is not None and prompt is None:
            prompt, context = too_long.groups()
        return Invalid(
            f"This model's maximum context length is {context} tokens, but the request has {prompt} tokens.",
            field=endpoint.content,
            hint="Shorten it, or choose a model with a longer context.",
            code="context_length_exceeded",
        )
    if status == 429 or status == 503:
        return Unavailable(message, code="engine_busy", retry_after_s=1.0)
    if 400 <= status < 500 and status not in (401, 403, 404, 405):
        refused = Invalid(message)
        refused.http_status = status
        return refused
    return Broken(f"The engine failed: {message}", code="engine_error")


def _engine_told(body: bytes) -> dict[str, Any]:
    """The error object in an engine's answer, if it is one."""
    try:
        error = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": error}


def error_type(status: int) -> str:
    """OpenAI's name for a class of errors."""
    if status == 429:
        return "rate_limit_error"
    if status == 403:
        return "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's error object."""
    error = {"message": message, "type": error_type(status), "param": param, "code": code}
    return orjson.dumps({"error": error})


def render(error: AtollError) -> tuple[int, bytes, bytes]:
    """Status, body and extra header lines of an answer that tells `error`."""
    details = error.details
    message = f"{error.message} {error.hint}".rstrip()
    param = details.get("param") or details.get("field") or None
    body = error_body(error.http_status, message, param=param, code=details.get("code") or error.code)
    return error.http_status, body, _header_lines(error)


def _header_lines(error: AtollError) -> bytes:
    """What HTTP itself wants to be told beside the body (RFC 9110, 10.2.1, 10.2.3 and 11.6.1)."""
    if error.http_status == 401:
        return b"www-authenticate: Bearer\r\n"
    if error.http_status == 405:
        return b"allow: %b\r\n" % str(error.details["allow"]).encode()
    retry_after_s = error.details.get("retry_after_s")
    return b"" if retry_after_s is None else b"retry-after: %d\r\n" % max(1, round(retry_after_s))


def _perhaps(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:64], known, 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _shown(value: Any) -> str:
    """A value as far as an error message should quote it."""
    text = orjson.dumps(value).decode(errors="replace")
    return text if len(text) <= 40 else f"{text[:40]}…"
