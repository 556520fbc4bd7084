"""How errors are told in OpenAI's form, and what an engine's errors mean to a client."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import orjson

from atoll.core.errors import AtollError, Invalid, NotFound, Unavailable
from atoll.serving.gateway.upstream import Broken

_TOO_LONG = (
    re.compile(r"\((?P<prompt>\d+) tokens\) is too large to process.*batch size: (?P<context>\d+)\)"),  # llama.cpp
    re.compile(
        r"maximum context length (?:is|of) (?P<context>\d+).*?(?P<prompt>\d+) (?:input |output )?tokens", re.DOTALL
    ),
    re.compile(r"has (?P<prompt>\d+) tokens, the context is (?P<context>\d+)"),  # our own servers
    re.compile(r"input \((?P<prompt>\d+) tokens\) is longer than the model's context length \((?P<context>\d+)"),
)


def unknown_model(name: str, names: Iterable[str]) -> NotFound:
    """404, naming the models most like `name` among those the caller may use."""
    candidates = sorted(names)[:1000]
    near = difflib.get_close_matches(name, candidates, 3, 0.4) or candidates[:5]
    offer = f" The nearest are: {', '.join(near)}." if near else " There is no model this key may use."
    return NotFound(f"The model {name!r} does not exist.{offer}", code="model_not_found", param="model")


def too_long(prompt: object, context: object, field: str) -> Invalid:
    """400: the prompt is past the context."""
    return Invalid(
        f"This model's maximum context length is {context} tokens, but the request has {prompt} tokens.",
        field=field,
        hint="Shorten it, or choose a model with a longer context.",
        code="context_length_exceeded",
    )


def read_engine_refusal(field: str, status: int, body: bytes) -> AtollError:
    """What an engine's refusal means to the client; our own wrong credentials or path are not the client's fault.

    `field` is the parameter that holds the prompt.
    """
    told = _engine_told(body)
    message = str(told.get("message") or f"The engine answered {status}.")
    past = next((found for pattern in _TOO_LONG if (found := pattern.search(message)) is not None), None)
    if told.get("type") == "exceed_context_size_error" and told.get("n_prompt_tokens") is not None:
        return too_long(told["n_prompt_tokens"], told.get("n_ctx"), field)
    if past is not None:
        return too_long(past["prompt"], past["context"], field)
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
        answer = orjson.loads(body)
        error = answer.get("error") or answer
    except (orjson.JSONDecodeError, AttributeError):
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


def message_of(error: AtollError) -> str:
    return f"{error.message} {error.hint}".rstrip()


def code_of(error: AtollError) -> str:
    return str(error.details.get("code") or error.code)


def render(error: AtollError) -> tuple[int, bytes, bytes]:
    """Status, body and extra header lines of an answer that tells `error`."""
    details = error.details
    param = details.get("param") or details.get("field") or None
    body = error_body(error.http_status, message_of(error), param=param, code=code_of(error))
    return error.http_status, body, header_lines(error)


def break_off(error: AtollError) -> bytes:
    """The last event of a stream that cannot go on."""
    message = f"The answer broke off: {error.message.rstrip('.')}."
    return b"data: %b\n\n" % error_body(error.http_status, message, code=code_of(error))


def header_lines(error: AtollError) -> bytes:
    """What HTTP itself wants to be told beside the body (RFC 9110, 10.2.1, 10.2.3 and 11.6.1)."""
    if error.http_status == 401:
        return b"www-authenticate: Bearer\r\n"
    if error.http_status == 405:
        return b"allow: %b\r\n" % str(error.details["allow"]).encode()
    retry_after_s = error.details.get("retry_after_s")
    return b"" if retry_after_s is None else b"retry-after: %d\r\n" % max(1, round(retry_after_s))
