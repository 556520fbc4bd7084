"""Bound answers are read back as tool calls and content, however they are cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import IntegrityError
from atoll.serving.gateway.dialects.calls import CallReader, CallTranslation
from atoll.serving.gateway.dialects.stream import sse, sse_values

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, json_values, max_size=3)
calls = st.lists(st.tuples(texts, arguments), min_size=1, max_size=3)


def read(text: str, cuts: list[int]) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls of an answer fed in pieces."""
    reader, content, found = CallReader(), "", []
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        for delta in reader.feed(text[start:end]):
            content += delta.get("content", "")
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(found)
                    found.append((call["function"]["name"], call["function"]["arguments"]))
                else:
                    name, before = found[call["index"]]
                    found[call["index"]] = (name, before + call["function"]["arguments"])
    return content, found


@given(calls, st.lists(st.integers(0, 10_000), max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_calls_are_read_back(told: list[tuple[str, Any]], cuts: list[int], is_ascii: bool, indent: Any) -> None:
    value = {"tool_calls": [{"name": name, "arguments": values} for name, values in told]}
    _, found = read(json.dumps(value, ensure_ascii=is_ascii, indent=indent), cuts)
    assert [(name, json.loads(text)) for name, text in found] == told


@given(texts, st.lists(st.integers(0, 10_000), max_size=5), st.booleans())
def test_content_is_read_back(text: str, cuts: list[int], is_ascii: bool) -> None:
    content, found = read(json.dumps({"content": text}, ensure_ascii=is_ascii), cuts)
    assert (content, found) == (text, [])


@given(arguments, st.lists(st.integers(0, 10_000), max_size=5))
def test_content_bound_to_a_schema_stays_json(value: Any, cuts: list[int]) -> None:
    content, _ = read(json.dumps({"content": value}), cuts)
    assert json.loads(content) == value


def test_answer_cut_off_gives_what_there_is() -> None:
    assert read('{"content": "half an ans', []) == ("half an ans", [])
    assert read('{"tool_calls": [{"name": "f", "arguments": {"a": 1', []) == ("", [("f", '{"a": 1')])
    assert read('{"tool_calls": [{"name": "f', []) == ("", [])
    assert read("```js", []) == ("", [])


def test_a_fence_before_the_answer_is_passed_over() -> None:
    assert read('```json\n{"content": "a"}\n```', [2, 4]) == ("a", [])


@pytest.mark.parametrize("text", ["hello", '{"other": 1}', "[1]", '{"content": 3}', '{"tool_calls": {}}'])
def test_what_is_no_bound_answer_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        CallReader().feed(text)


def test_choices_of_a_stream_are_read_apart() -> None:
    translation = CallTranslation()
    text = '{"tool_calls": [{"name": "f", "arguments": {}}]}'
    events = [
        {"choices": [{"index": index, "delta": {"content": letter}, "finish_reason": None}]}
        for letter in text
        for index in (0, 1)
    ]
    events += [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in (0, 1)]
    told = sse_values(translation.events(b"".join(map(sse, events))))
    for index in (0, 1):
        mine = [event["choices"][0] for event in told if event["choices"][0]["index"] == index]
        assert mine[0]["delta"]["tool_calls"][0]["function"]["name"] == "f"
        assert mine[-1]["finish_reason"] == "tool_calls"
