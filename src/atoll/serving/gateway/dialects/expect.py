"""What a field of a request may be, with the words that say so to whoever sent something else."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from atoll.core.errors import Invalid

CHOICES_MAX = 128
OUTPUT_TOKENS_MAX = 16_777_216
TOP_LOGPROBS_MAX = 20
PROMPTS_MAX = 4096
STOPS_MAX = 64
MODEL_NAME_CHARACTERS_MAX = 256
Check = Callable[[Any], bool]
Expectation = tuple[Check, str]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_token_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_integer(item) for item in value)


def is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value, list)
        and len(value) > 0
        and (is_text_list(value) or is_token_list(value) or all(is_token_list(item) for item in value))
    )


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) or (is_text_list(value) and len(value) <= STOPS_MAX)


FLAG: Expectation = (lambda v: isinstance(v, bool), "true or false")
NUMBER: Expectation = (is_number, "a number")
NOT_NEGATIVE: Expectation = (lambda v: is_number(v) and v >= 0, "a number not below 0")
INTEGER: Expectation = (is_integer, "an integer")
LENGTH: Expectation = (
    lambda v: is_integer(v) and -1 <= v <= OUTPUT_TOKENS_MAX,
    f"an integer from -1 to {OUTPUT_TOKENS_MAX}",
)
AT_LEAST_ONE: Expectation = (
    lambda v: is_integer(v) and 1 <= v <= OUTPUT_TOKENS_MAX,
    f"an integer from 1 to {OUTPUT_TOKENS_MAX}",
)
CHOICES: Expectation = (lambda v: is_integer(v) and 1 <= v <= CHOICES_MAX, f"an integer from 1 to {CHOICES_MAX}")
TOP_LOGPROBS: Expectation = (
    lambda v: is_integer(v) and 0 <= v <= TOP_LOGPROBS_MAX,
    f"an integer from 0 to {TOP_LOGPROBS_MAX}",
)
TEXT: Expectation = (lambda v: isinstance(v, str), "a string")
STOPS: Expectation = (_is_stop, f"a string or a list of at most {STOPS_MAX} strings")
TEXTS: Expectation = (is_text_list, "a list of strings")
OBJECT: Expectation = (lambda v: isinstance(v, dict), "an object")
LIST: Expectation = (lambda v: isinstance(v, list), "a list")
OBJECT_OR_LIST: Expectation = (lambda v: isinstance(v, dict | list), "an object or a list")
TEXT_OR_LIST: Expectation = (lambda v: isinstance(v, str | list), "a string or a list")
TEXT_OR_OBJECT: Expectation = (lambda v: isinstance(v, str | dict), "a string or an object")
PROMPT: Expectation = (is_prompt, "a string, a list of strings, a list of tokens or a list of lists of tokens")


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises Invalid."""
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"The body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise Invalid("The body must be a JSON object.")
    return fields


def check_parameters(known: Mapping[str, Expectation], fields: Mapping[str, Any]) -> None:
    """Raise Invalid for the first field that is not `known` or not what is expected; null is as absent."""
    for name, value in fields.items():
        expectation = known.get(name)
        if expectation is None:
            raise Invalid(f"Unknown parameter {name[:64]!r}.{_perhaps(name, known)}", field=name[:64])
        if value is not None and not expectation[0](value):
            raise Invalid(f"{name!r} must be {expectation[1]}, not {shown(value)}.", field=name)


def require(fields: Mapping[str, Any], *names: str) -> None:
    """Raise Invalid for the first of `names` that is absent."""
    for name in names:
        if fields.get(name) is None:
            raise Invalid(f"You must provide the parameter {name!r}.", field=name)


def check_model(name: str) -> None:
    if len(name) > MODEL_NAME_CHARACTERS_MAX:
        raise Invalid(f"'model' is longer than {MODEL_NAME_CHARACTERS_MAX} characters.", field="model")


def wrong(where: str, expected: str, value: Any) -> Invalid:
    """A nested field is not what it must be."""
    return Invalid(f"'{where}' must be {expected}, not {shown(value)}.", field=where)


def shown(value: Any) -> str:
    """A value as far as an error message should quote it."""
    text = orjson.dumps(value).decode(errors="replace")
    return text if len(text) <= 40 else f"{text[:40]}…"


def _perhaps(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:64], known, 1)
    return f" Did you mean {near[0]!r}?" if near else ""
