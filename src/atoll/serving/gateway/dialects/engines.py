"""What each engine must be told beside the client's wishes, and what becomes of wishes it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.order import Target
from atoll.serving.gateway.dialects.parameters import ENGINE_PARAMETERS, HARMLESS, NEUTRAL, PLAIN, SYNONYMS

_LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
_NAMES = {
    "llamacpp": "llama.cpp",
    "vllm": "vLLM",
    "sglang": "SGLang",
    "transformers": "transformers",
    "openai": "the provider",
}
_USAGE = {"include_usage": True}
_CONTINUOUS = _USAGE | {"continuous_usage_stats": True}
_TIMINGS = {"timings_per_token": True, "return_progress": True}
_BASIC: Mapping[str, frozenset[str]] = {
    "llamacpp": frozenset(("json_schema", "grammar", "logprobs", "timings")),
    "vllm": frozenset(("json_schema", "logprobs", "continuous_usage")),
    "sglang": frozenset(("json_schema", "logprobs")),
    "openai": frozenset(("tools", "json_schema", "logprobs")),
}
"""What an engine can do whatever model it runs."""
_OPENAIS = frozenset(
    [
        "audio",
        "functions",
        "function_call",
        "logit_bias",
        "logprobs",
        "modalities",
        "response_format",
        "tools",
        "top_logprobs",
        "web_search_options",
    ]
)
_EVERYWHERE = frozenset(
    ["logit_bias", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls"]
)


def can(target: Target, capability: str) -> bool:
    """Whether the target's engine or model has this capability."""
    return capability in target.capabilities or capability in _BASIC.get(target.engine, ())


def passed(engine: str) -> frozenset[str]:
    """The parameters an engine takes as they are, whatever its model can do."""
    return _PASSED.get(engine, PLAIN)


def metering(target: Target) -> dict[str, Any]:
    """The fields that make a stream tell its tokens."""
    if can(target, "timings"):
        return {"stream_options": _USAGE} | _TIMINGS
    return {"stream_options": _CONTINUOUS if can(target, "continuous_usage") else _USAGE}


def metering_prefix(target: Target) -> bytes:
    """`metering` as the beginning of a JSON object's members."""
    if can(target, "timings"):
        return _PREFIX_TIMINGS
    return _PREFIX_CONTINUOUS if can(target, "continuous_usage") else _PREFIX_USAGE


def adapted(fields: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The fields as the target's engine knows them. Raises Invalid for one it does not know and cannot be spared."""
    known, synonyms = passed(target.engine), SYNONYMS.get(target.engine, {})
    asked: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or (value == -1 and name in _LENGTHS and target.engine != "llamacpp"):
            continue  # no bound at all is -1 to llama.cpp only
        if name in known or name in _EVERYWHERE:
            asked[name] = value
        elif name in synonyms:
            asked.setdefault(synonyms[name], value)
        elif name == "json_schema" and can(target, "json_schema"):
            described = {"name": "answer", "schema": value}
            asked.setdefault("response_format", {"type": "json_schema", "json_schema": described})
        elif name == "grammar" and target.engine == "vllm":
            asked.setdefault("structured_outputs", {"grammar": value})
        elif name not in HARMLESS and not _is_neutral(name, value):
            raise unknown_to(target, name)
    return asked


def unknown_to(target: Target, name: str, hint: str = "") -> Invalid:
    """400: the engine behind the model cannot do what this parameter asks."""
    whose = [_NAMES[engine] for engine, names in ENGINE_PARAMETERS.items() if name in names]
    known = f" It is known to {' and '.join(whose)}." if whose else ""
    engine = _NAMES.get(target.engine, target.engine)
    message = f"{name!r} is not supported: the model is served by {engine}, which cannot do it.{known}"
    return Invalid(message, field=name, hint=hint, code="unsupported_parameter")


def cannot(target: Target, name: str, capability: str, hint: str = "") -> Invalid:
    """400: this model, or its engine, lacks a capability."""
    message = f"{name!r} is not supported by the model {target.name!r}: it lacks the capability {capability!r}."
    return Invalid(message, field=name, hint=hint, code="unsupported_parameter")


def _is_neutral(name: str, value: Any) -> bool:
    if name == "modalities":
        return bool(value == ["text"])
    return name in NEUTRAL and bool(value == NEUTRAL[name])


def _prefix(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value)[1:-1] + b","


_PREFIX_TIMINGS = _prefix({"stream_options": _USAGE} | _TIMINGS)
_PREFIX_CONTINUOUS = _prefix({"stream_options": _CONTINUOUS})
_PREFIX_USAGE = _prefix({"stream_options": _USAGE})
_LOCAL_ONLY = frozenset(("cache_prompt", "timings_per_token", "return_progress"))
_PASSED: Mapping[str, frozenset[str]] = {
    "llamacpp": PLAIN | HARMLESS | ENGINE_PARAMETERS["llamacpp"],
    "vllm": PLAIN | ENGINE_PARAMETERS["vllm"] | {"user", "reasoning_effort"},
    "sglang": PLAIN | ENGINE_PARAMETERS["sglang"] | {"user", "reasoning_effort"},
    "transformers": PLAIN | ENGINE_PARAMETERS["transformers"],
    "openai": (PLAIN | HARMLESS | ENGINE_PARAMETERS["openai"] | _OPENAIS | {"best_of", "echo", "suffix"}) - _LOCAL_ONLY,
}
