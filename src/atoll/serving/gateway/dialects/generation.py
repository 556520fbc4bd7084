"""Chat, text completion and embedding: OpenAI's own requests, which are also the engines' language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects import constrain, fim, parameters
from atoll.serving.gateway.dialects.engines import adapted, can, cannot, metering, metering_prefix, passed, unknown_to
from atoll.serving.gateway.dialects.expect import (
    PROMPTS_MAX,
    check_model,
    check_parameters,
    is_integer,
    read_object,
    require,
    wrong,
)
from atoll.serving.gateway.dialects.logprobs import LogprobsTranslation
from atoll.serving.gateway.dialects.order import Endpoint, Headers, Order, Target, Translation
from atoll.serving.gateway.dialects.refusal import too_long

TOKENS_PER_MESSAGE = 32
TOKENS_PER_REQUEST = 256
TOKENS_PER_IMAGE = 4096
_LENGTHS = frozenset(("max_completion_tokens", "max_tokens", "n_predict"))
_CONTINUABLE = parameters.PLAIN | frozenset(
    [
        "stream_options",
        "user",
        "metadata",
        "session",
        "min_p",
        "top_k",
        "top_n_sigma",
        "typical_p",
        "repeat_penalty",
        "repetition_penalty",
        "repeat_last_n",
        "safety_identifier",
        "service_tier",
        "store",
        "prompt_cache_key",
        "timings_per_token",
        "return_progress",
        "cache_prompt",
        "samplers",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "dynatemp_range",
        "dynatemp_exponent",
        "ignore_eos",
    ]
)


class Generation(Order):
    """A request for text."""

    __slots__ = ()

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        if self.fields.get("cache_prompt") and target.engine == "llamacpp" and "lora" in target.capabilities:
            hint = "leave it out: keys and values computed with one adapter must not serve another"
            raise unknown_to(target, "cache_prompt", hint)
        if target.adapter is None and (target.model is None or target.model == self.model) and self.is_passed(target):
            body = self._own_bytes(target, output_max if self.output_bound is None else None)
            if body is not None:
                return body
        asked = self.asked(target)
        if output_max is not None and self.output_bound is None:
            self._bound(asked, output_max)
        return self._rendered(asked, target)

    def is_passed(self, target: Target) -> bool:
        """Whether the client's own bytes are what this target understands."""
        return self.fields.keys() <= passed(target.engine) and not (
            self.output_bound is None and self._is_endless(target)
        )

    def _is_endless(self, target: Target) -> bool:
        """Whether the client said in llama.cpp's way, to another engine, that there is no bound."""
        return target.engine != "llamacpp" and not _LENGTHS.isdisjoint(self.fields)

    def asked(self, target: Target) -> dict[str, Any]:
        """The fields for this target, without those of metering."""
        return adapted(self.fields_for(target), target)

    def fields_for(self, target: Target) -> dict[str, Any]:
        """The fields this target is asked with, before they are adapted."""
        return self.fields

    def _own_bytes(self, target: Target, output_max: int | None) -> bytes | None:
        """The client's bytes with members put before them where some are to be added; None if that is not enough."""
        fields, added = self.fields, b""
        if output_max is not None:
            if not _LENGTHS.isdisjoint(fields):
                return None
            added = b'"max_tokens":%d,' % output_max
        if self.is_stream:
            if not _STREAM_OWN.isdisjoint(fields):
                return None
            added += metering_prefix(target)
        elif self.choices > 1:
            return None
        return b"{" + added + self.data[self.data.index(b"{") + 1 :] if added else self.data

    def _bound(self, asked: dict[str, Any], output_max: int) -> None:
        for name in _LENGTHS:
            asked.pop(name, None)
        asked["max_tokens"] = output_max

    def _rendered(self, asked: dict[str, Any], target: Target) -> bytes:
        if target.model is not None:
            asked["model"] = target.model
        if target.adapter is not None:
            asked["lora"] = [{"id": target.adapter, "scale": 1.0}]
        if self.is_stream or self.choices > 1:
            asked["stream"] = True
            options = asked.get("stream_options") or {}
            asked |= metering(target)
            asked["stream_options"] = options | asked["stream_options"]
        else:
            asked.pop("stream_options", None)
        return orjson.dumps(asked)

    @property
    def can_continue(self) -> bool:
        return self.is_stream and self.choices == 1 and self.fields.keys() <= _CONTINUABLE

    def _count(self, prompts: int) -> None:
        """Take over what the fields say of choices, stream and lengths."""
        fields = self.fields
        self.is_stream = bool(fields.get("stream"))
        self.choices_per_prompt = fields.get("n") or 1
        self.choices = self.choices_per_prompt * prompts
        for name in _LENGTHS:
            value = fields.get(name)
            if value is not None and value >= 0:
                self.output_bound = max(value, self.output_bound or 0)


class Chat(Generation):
    """A request to /v1/chat/completions, or one that became such a request."""

    __slots__ = ("is_plain",)

    is_plain: bool
    """Whether all messages are plain texts and nothing is wished of the answer's form."""

    def is_passed(self, target: Target) -> bool:
        return self.is_plain and super().is_passed(target)

    def asked(self, target: Target) -> dict[str, Any]:
        asked = super().asked(target)
        if "functions" in asked or "function_call" in asked:
            raise unknown_to(target, "functions", "Use 'tools' and 'tool_choice'.")
        return constrain.constrained(asked, target, self.output_bound)

    def translation(self, target: Target) -> Translation | None:
        return None if self.is_plain else constrain.translation(self.fields, target)

    def continuation(self, target: Target, text: str, output_max: int | None = None) -> bytes:
        if not self.can_continue or not can(target, "prefill"):
            raise cannot(target, "messages", "prefill")
        asked = self.asked(target)
        messages = list(asked["messages"])
        if messages[-1].get("role") == "assistant":
            messages[-1] = messages[-1] | {"content": f"{messages[-1].get('content') or ''}{text}"}
        else:
            messages.append({"role": "assistant", "content": text})
        asked["messages"] = messages
        if target.engine in ("vllm", "sglang"):
            asked |= {"continue_final_message": True, "add_generation_prompt": False}
        if output_max is not None:
            self._bound(asked, output_max)
        return self._rendered(asked, target)


class Completion(Generation):
    """A request to /v1/completions: raw text, no chat template."""

    __slots__ = ()

    def path(self, target: Target) -> str:
        return fim.INFILL if self.fields.get("suffix") and fim.is_infill(target) else self.endpoint.path

    def asked(self, target: Target) -> dict[str, Any]:
        fields = self.fields
        if fields.get("best_of") is not None and fields["best_of"] == self.choices_per_prompt:
            fields = {name: value for name, value in fields.items() if name != "best_of"}
        if fields.get("logprobs") is not None and not can(target, "logprobs"):
            raise cannot(target, "logprobs", "logprobs")
        self._check_length(target)
        return fim.asked(fields, target) if fields.get("suffix") else adapted(fields, target)

    def is_passed(self, target: Target) -> bool:
        return isinstance(self.fields["prompt"], str) and super().is_passed(target)

    def _check_length(self, target: Target) -> None:
        """Raise Invalid when the prompt alone, of tokens and so counted, is past the context."""
        prompt = self.fields["prompt"]
        if target.context <= 0 or isinstance(prompt, str):
            return
        prompts = [prompt] if is_integer(prompt[0]) else prompt
        longest = max((len(one) for one in prompts if isinstance(one, list)), default=0)
        if longest > target.context:
            raise too_long(longest, target.context, "prompt")

    def translation(self, target: Target) -> Translation | None:
        if self.fields.get("suffix") and fim.is_infill(target):
            return fim.InfillTranslation(self.model, wants_usage=self.wants_usage)
        return LogprobsTranslation() if self.fields.get("logprobs") and target.engine == "llamacpp" else None

    @property
    def can_continue(self) -> bool:
        return isinstance(self.fields["prompt"], str) and super().can_continue

    def continuation(self, target: Target, text: str, output_max: int | None = None) -> bytes:
        if not self.can_continue:
            raise Invalid("This completion cannot be continued.", field="prompt")
        asked = self.asked(target)
        asked["prompt"] += text
        if output_max is not None:
            self._bound(asked, output_max)
        return self._rendered(asked, target)


class Embedding(Order):
    """A request to /v1/embeddings."""

    __slots__ = ()

    def body(self, target: Target, output_max: int | None = None) -> bytes:
        if self.fields.get("dimensions") is not None and target.engine == "llamacpp":
            raise unknown_to(target, "dimensions", "Leave it out.")
        if target.model is None or target.model == self.model:
            return self.data
        return orjson.dumps(self.fields | {"model": target.model})


C = TypeVar("C", bound=Chat)
_STREAM_OWN = frozenset(("stream_options", "timings_per_token", "return_progress"))


def read_chat(endpoint: Endpoint, data: bytes, headers: Headers) -> Chat:
    fields = read_object(data)
    require(fields, "model", "messages")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    return chat_order(Chat, endpoint, data, fields, headers)


def chat_order(kind: type[C], endpoint: Endpoint, data: bytes, fields: dict[str, Any], headers: Headers) -> C:
    """The order of this kind for chat fields that are known to be of the right types; `data` is them as JSON."""
    messages = fields["messages"]
    is_plain = _check_messages(messages) and constrain.asks_for_nothing(fields)
    bound = len(data) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REQUEST
    if not is_plain:
        constrain.check(fields)
        bound = 3 * bound + TOKENS_PER_IMAGE * data.count(b'"image_url"')
    order = kind(endpoint, data, fields, headers, prompt_bound=bound)
    order.is_plain = is_plain
    order._count(1)
    return order


def read_completion(endpoint: Endpoint, data: bytes, headers: Headers) -> Completion:
    fields = read_object(data)
    require(fields, "model", "prompt")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    prompts, bound = _measure(fields["prompt"], data, "prompt")
    order = Completion(endpoint, data, fields, headers, prompt_bound=bound)
    order._count(prompts)
    return order


def read_embedding(endpoint: Endpoint, data: bytes, headers: Headers) -> Embedding:
    fields = read_object(data)
    require(fields, "model", "input")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    _, bound = _measure(fields["input"], data, "input")
    return Embedding(endpoint, data, fields, headers, prompt_bound=bound)


def _measure(prompt: Any, data: bytes, field: str) -> tuple[int, int]:
    """How many prompts there are, and a bound of their tokens."""
    if isinstance(prompt, str):
        return 1, len(data) + TOKENS_PER_REQUEST
    if is_integer(prompt[0]):
        return 1, len(prompt)
    if len(prompt) > PROMPTS_MAX:
        raise Invalid(f"{field!r} has {len(prompt)} items; at most {PROMPTS_MAX} are allowed.", field=field)
    if isinstance(prompt[0], list):
        return len(prompt), sum(map(len, prompt))
    return len(prompt), len(data) + TOKENS_PER_REQUEST * len(prompt)


_SIMPLE_ROLES = ("user", "assistant", "system")
_ROLES = (*_SIMPLE_ROLES, "tool", "developer", "function")


def _check_messages(messages: list[Any]) -> bool:
    """Whether all are plain texts any chat template knows; raises Invalid for what is no message."""
    if not messages:
        raise Invalid("'messages' must have at least one message.", field="messages")
    is_plain = True
    for index, message in enumerate(messages):
        if type(message) is dict and type(message.get("content")) is str and message.get("role") in _SIMPLE_ROLES:
            is_plain = is_plain and len(message) == 2
        else:
            is_plain = False
            _check_message(f"messages[{index}]", message)
    return is_plain


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise wrong(where, "an object", message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise wrong(f"{where}.role", "a string", role)
    if role not in _ROLES:
        raise wrong(f"{where}.role", f"one of {', '.join(_ROLES)}", role)
    if content is not None and not isinstance(content, str | list):
        raise wrong(f"{where}.content", "a string or a list of parts", content)
    for index, part in enumerate(content if isinstance(content, list) else ()):
        _check_part(f"{where}.content[{index}]", part)
    calls = message.get("tool_calls")
    if calls is not None:
        _check_calls(f"{where}.tool_calls", calls)


def _check_part(where: str, part: Any) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong(where, "an object with a 'type'", part)
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise wrong(f"{where}.text", "a string", part.get("text"))


def _check_calls(where: str, calls: Any) -> None:
    if not isinstance(calls, list):
        raise wrong(where, "a list", calls)
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise wrong(f"{where}[{index}]", "an object with a 'function' that has a 'name'", call)
        if not isinstance(function.get("arguments") or "", str):
            raise wrong(f"{where}[{index}].function.arguments", "a string of JSON", function["arguments"])
