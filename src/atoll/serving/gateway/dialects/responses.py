"""OpenAI's responses: items become chat messages, answers are told as items; what was said is kept at the centre.

Known are the parameters that have a meaning for any model; OpenAI's own tools, background work and stored prompts are
refused by name. With the centre away a request that refers to nothing is answered all the same, with "store": false.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.dialects.centre import Centre
from atoll.serving.gateway.dialects.expect import (
    FLAG,
    LENGTH,
    LIST,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    TEXT,
    TEXT_OR_LIST,
    TEXT_OR_OBJECT,
    Expectation,
    check_model,
    check_parameters,
    read_object,
    require,
    wrong,
)
from atoll.serving.gateway.dialects.generation import Chat, chat_order
from atoll.serving.gateway.dialects.items import messages_of, stored_input
from atoll.serving.gateway.dialects.order import Endpoint, Headers, Target, Translation
from atoll.serving.gateway.dialects.responses_answer import ResponseTranslation

RESPONSES: Mapping[str, Expectation] = {
    "background": FLAG,
    "conversation": TEXT_OR_OBJECT,
    "include": LIST,
    "input": TEXT_OR_LIST,
    "instructions": TEXT,
    "max_output_tokens": LENGTH,
    "metadata": OBJECT,
    "model": TEXT,
    "parallel_tool_calls": FLAG,
    "previous_response_id": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "reasoning": OBJECT,
    "safety_identifier": TEXT,
    "service_tier": TEXT,
    "store": FLAG,
    "stream": FLAG,
    "stream_options": OBJECT,
    "temperature": NOT_NEGATIVE,
    "text": OBJECT,
    "tool_choice": TEXT_OR_OBJECT,
    "tools": LIST,
    "top_p": NUMBER,
    "truncation": TEXT,
    "user": TEXT,
}
_SAME = {
    "max_output_tokens": "max_tokens",
    "parallel_tool_calls": "parallel_tool_calls",
    "prompt_cache_key": "prompt_cache_key",
    "safety_identifier": "safety_identifier",
    "stream": "stream",
    "temperature": "temperature",
    "top_p": "top_p",
    "user": "user",
}
_ID_CHARACTERS_MAX = 128


class Responses(Chat):
    """A request to /v1/responses as the chat request it means; `final` is what the translation told last."""

    __slots__ = ("_asked", "final", "id", "response")

    _asked: Mapping[str, Any]
    id: str
    response: dict[str, Any]
    """The answer as its translation finished it."""
    final: bytes
    """The end of the last bytes: the whole answer, or the event that holds it."""

    @property
    def needs_centre(self) -> bool:  # type: ignore[override]
        return self.is_stored or self.previous is not None or self.conversation is not None

    @property
    def is_stored(self) -> bool:
        return self._asked.get("store") is not False

    @property
    def previous(self) -> str | None:
        value = self._asked.get("previous_response_id")
        return value if isinstance(value, str) else None

    @property
    def conversation(self) -> str | None:
        value = self._asked.get("conversation")
        return value.get("id") if isinstance(value, Mapping) else value

    @property
    def wants_usage(self) -> bool:
        return True

    @property
    def can_continue(self) -> bool:
        return False

    def path(self, target: Target) -> str:
        return "/v1/chat/completions"

    def translation(self, target: Target) -> Translation:
        return ResponseTranslation(super().translation(target), self)

    def begun(self) -> dict[str, Any]:
        """The response object before there is an answer."""
        asked = self._asked
        conversation = self.conversation
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "conversation": None if conversation is None else {"id": conversation},
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": asked.get("metadata") or {},
            "model": self.model,
            "output": [],
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "previous_response_id": self.previous,
            "reasoning": {"effort": (asked.get("reasoning") or {}).get("effort"), "summary": None},
            "store": self.is_stored,
            "temperature": asked.get("temperature", 1.0),
            "text": asked.get("text") or {"format": {"type": "text"}},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "top_p": asked.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
            "user": asked.get("user"),
        }

    async def prepare(self, centre: Centre, project: str, key_id: str) -> None:
        """Put what was said before in front. Raises NotFound, or Unavailable when the centre is away."""
        if self.previous is not None:
            earlier = await centre.ask("GET", f"/api/v1/gateway/responses/{quote(project)}/{quote(self.previous)}")
        elif self.conversation is not None:
            path = f"/api/v1/gateway/conversations/{quote(project)}/{quote(self.conversation)}"
            earlier = await centre.ask("GET", path)
        else:
            return
        self._lead_by(earlier.get("items") or [])

    def _lead_by(self, earlier: list[dict[str, Any]]) -> None:
        messages = self.fields["messages"]
        leading = 1 if self._asked.get("instructions") else 0
        said = [message for message in earlier if message.get("role") != "system"] if leading else earlier
        self.fields["messages"] = [*messages[:leading], *said, *messages[leading:]]
        renewed = chat_order(Responses, self.endpoint, orjson.dumps(self.fields), self.fields, self.headers)
        self.data, self.is_plain, self.prompt_bound = renewed.data, renewed.is_plain, renewed.prompt_bound

    async def epilogue(self, centre: Centre, project: str, key_id: str, rest: bytes) -> bytes:
        """Keep the response; one that cannot be kept says so."""
        if not self.is_stored or not self.response:
            return rest
        kept = {
            "project": project,
            "key_id": key_id,
            "id": self.id,
            "previous_response_id": self.previous,
            "conversation": self.conversation,
            "input": stored_input(self._asked["input"]),
            "output": self.response["output"],
            "response": self.response,
        }
        try:
            await centre.ask("POST", "/api/v1/gateway/responses", kept)
        except AtollError:
            changed = self.final.replace(orjson.dumps(self.response), orjson.dumps(self.response | {"store": False}))
            return rest[: len(rest) - len(self.final)] + changed
        return rest


def read_responses(endpoint: Endpoint, data: bytes, headers: Headers) -> Responses:
    fields = read_object(data)
    require(fields, "model", "input")
    check_parameters(endpoint.parameters, fields)
    check_model(fields["model"])
    _refuse(fields)
    chat = chat_fields(fields)
    order = chat_order(Responses, endpoint, orjson.dumps(chat), chat, headers)
    order._asked = fields
    order.id = f"resp_{secrets.token_hex(24)}"
    order.response, order.final = {}, b""
    return order


def _refuse(fields: Mapping[str, Any]) -> None:
    """Raise Invalid for what would make another answer than the one there is."""
    if fields.get("background"):
        raise Invalid("Responses in the background are not available; use a batch.", field="background")
    if fields.get("truncation") not in (None, "disabled"):
        raise Invalid("'truncation' can only be 'disabled': nothing is left out of a prompt.", field="truncation")
    conversation = fields.get("conversation")
    name = conversation.get("id") if isinstance(conversation, Mapping) else conversation
    for field, value in (("conversation", name), ("previous_response_id", fields.get("previous_response_id"))):
        if value is None and fields.get(field) is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS_MAX:
            raise wrong(field, f"an id of at most {_ID_CHARACTERS_MAX} characters", value)
    if conversation is not None and fields.get("previous_response_id") is not None:
        raise Invalid("'previous_response_id' and 'conversation' exclude each other.", field="previous_response_id")


def chat_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that a responses request means. Raises Invalid naming what has no such meaning."""
    messages = messages_of(fields["input"])
    if fields.get("instructions"):
        messages.insert(0, {"role": "system", "content": fields["instructions"]})
    chat: dict[str, Any] = {"model": fields["model"], "messages": messages}
    for name, ours in _SAME.items():
        if fields.get(name) is not None:
            chat[ours] = fields[name]
    if fields.get("tools"):
        chat["tools"] = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(fields["tools"])]
    if fields.get("tool_choice") is not None:
        chat["tool_choice"] = _choice(fields["tool_choice"])
    if (fields.get("text") or {}).get("format") is not None:
        chat["response_format"] = _form(fields["text"]["format"])
    effort = (fields.get("reasoning") or {}).get("effort")
    if isinstance(effort, str):
        chat["reasoning_effort"] = effort
    return chat


def _tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise wrong(where, "an object", tool)
    if tool.get("type") != "function":
        raise Invalid(
            f"The tool type {str(tool.get('type'))[:64]!r} is not available here; only 'function' is.",
            field=f"{where}.type",
        )
    if not isinstance(tool.get("name"), str):
        raise wrong(f"{where}.name", "a string", tool.get("name"))
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        tools = [{"type": "function", "function": tool} for tool in choice["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
    raise wrong("tool_choice.type", "'function' or 'allowed_tools'", choice.get("type"))


def _form(form: Any) -> dict[str, Any]:
    if not isinstance(form, Mapping):
        raise wrong("text.format", "an object", form)
    if form.get("type") != "json_schema":
        return {"type": form.get("type")}
    if not isinstance(form.get("schema"), Mapping):
        raise wrong("text.format.schema", "a JSON schema", form.get("schema"))
    names = ("name", "schema", "strict", "description")
    return {"type": "json_schema", "json_schema": {name: form[name] for name in names if name in form}}
