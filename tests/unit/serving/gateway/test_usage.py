"""Counts, read from what engines say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.gateway.usage import Tokens, find_usage, from_timings, from_usage, total

counts = st.integers(0, 10**9)


@given(counts, counts, counts, st.text(), st.booleans())
def test_usage_is_found_in_any_answer(prompt: int, completion: int, cached: int, text: str, first: bool) -> None:
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    rest = {"choices": [{"message": {"content": f'{text} "usage":{{"prompt_tokens":1}}'}}]}
    value = {"usage": usage} | rest if first else rest | {"usage": usage}
    assert find_usage(json.dumps(value).encode()) == Tokens(prompt, completion, cached)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"usage":null}', b'{"content":"usage"}', b'{"usage":', b"not json"])
def test_no_usage_is_none(data: bytes) -> None:
    assert find_usage(data) is None


def test_embeddings_have_no_completion() -> None:
    assert from_usage({"prompt_tokens": 3, "total_tokens": 3}) == Tokens(3, 0, 0)


@pytest.mark.parametrize("value", [None, "7", [], -5, {}])
def test_nonsense_counts_nothing(value: Any) -> None:
    assert from_usage({"prompt_tokens": value, "prompt_tokens_details": value}) == Tokens()


def test_timings_split_the_prompt() -> None:
    assert from_timings({"cache_n": 24, "prompt_n": 12, "predicted_n": 5}) == Tokens(36, 5, 24)


def test_prompts_are_billed_once_and_completions_each() -> None:
    by_choice = {0: Tokens(10, 5, 4), 1: Tokens(10, 6, 9), 2: Tokens(20, 7, 0), 3: Tokens(20, 8, 19)}
    assert total(by_choice, 2) == Tokens(30, 26, 4)
