"""How many tokens a request used, read from what the engine says. Knows nothing of where the count goes.

Exactness, as measured with llama.cpp's server:
- An answer that ends well carries `usage`; that is recorded as it is. With several choices a stream carries one usage
  per choice, while a whole answer repeats only the first choice's: such requests are therefore always streamed from
  the engine and put together here (see `whole`).
- Stream events are not tokens: an emoji is three tokens in one event, and text held back by a stop string comes later.
  So the gateway asks for `timings_per_token`: every event then tells `predicted_n`, `prompt_n` and `cache_n` so far,
  and a stream cut off at any event is counted exactly from the last event that was passed on.
- With `return_progress` the engine also sends timings while it reads the prompt, before the first token, so that a
  client leaving during a long prompt is counted too.
An engine that tells none of these is counted by content events, and its prompt only when it ends well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_NUMBER = (int, float)
_COUNT_END = 1 << 53


class Tokens(NamedTuple):
    """Tokens of a request so far; `cached` is the part of `prompt` the engine had in its cache."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


NO_TOKENS = Tokens()


def joined(first: Tokens, then: Tokens) -> Tokens:
    """The bill of an answer that a second stream went on with: the prompt once, as the first one read it.

    The second reads the prompt and the first one's part of the answer, so its prompt tells that of a first one that
    said nothing.
    """
    prompt = first.prompt or max(0, then.prompt - first.completion)
    return Tokens(prompt, first.completion + then.completion, min(first.cached, prompt))


def as_usage(tokens: Tokens) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }


def from_usage(usage: Mapping[str, Any]) -> Tokens:
    """OpenAI's usage object."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Tokens(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached))


def from_timings(timings: Mapping[str, Any]) -> Tokens:
    """llama.cpp's timings object: `prompt_n` were computed, `cache_n` found in the cache."""
    cached = _count(timings.get("cache_n"))
    return Tokens(_count(timings.get("prompt_n")) + cached, _count(timings.get("predicted_n")), cached)


def find_usage(data: bytes) -> Tokens | None:
    """The usage in a JSON text, without parsing the rest of it; None if it has none.

    Inside a JSON string every quote is escaped, so these bytes can only be a key.
    """
    found = None
    start = data.rfind(b'"usage"')
    if start >= 0:
        found = _USAGE.match(data, start)
    return from_usage(orjson.loads(found[1])) if found else None


def total(by_choice: Mapping[int, Tokens], choices_per_prompt: int) -> Tokens:
    """The bill of several choices: every completion, and every prompt once.

    Choice i belongs to prompt i // choices_per_prompt; the choice that found least in the cache did the reading.
    """
    prompts: dict[int, list[Tokens]] = {}
    for index, tokens in by_choice.items():
        prompts.setdefault(index // choices_per_prompt, []).append(tokens)
    return Tokens(
        sum(max(t.prompt for t in group) for group in prompts.values()),
        sum(tokens.completion for tokens in by_choice.values()),
        sum(min(t.cached for t in group) for group in prompts.values()),
    )


def _count(value: object) -> int:
    """A token count as engines send it; anything else counts nothing."""
    if type(value) is int and 0 <= value < _COUNT_END:
        return value  # as it mostly is
    return int(value) if isinstance(value, _NUMBER) and 0 <= value < _COUNT_END else 0
