"""Streams of events: what passes, what is taken out, and what is counted, however the bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import IntegrityError
from atoll.serving.gateway import events
from atoll.serving.gateway.events import EventFilter
from atoll.serving.gateway.usage import Tokens

TRAPS = [
    '"usage":{"completion_tokens":9}',
    "[DONE]",
    ',"timings":{"predicted_n":99}',
    "data: null",
    "\n\n",
    '{"}"',
    "😀",
]
texts = st.lists(st.one_of(st.sampled_from(TRAPS), st.text(max_size=8)), max_size=6)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def piece(text: str | None, tokens: int | None, *, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    delta = {} if finish else {"content": text}
    value: dict[str, Any] = {"choices": [{"finish_reason": finish, "index": index, "delta": delta}], "model": "m"}
    if tokens is not None:
        value["timings"] = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 0.5, "predicted_n": tokens}
    return value


def usage(tokens: int) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    counts = {"completion_tokens": tokens, "prompt_tokens": 7, "total_tokens": 7 + tokens}
    return {"choices": [], "model": "m", "usage": counts | details, "timings": {"predicted_n": tokens}}


def untimed(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name != "timings"}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(texts, st.lists(st.integers(0, 10**6), max_size=12), st.booleans())
def test_stream_is_the_same_however_it_is_cut(words: list[str], places: list[int], crlf: bool) -> None:
    pieces = [piece(word, count) for count, word in enumerate(words, 1)]
    progress = piece(None, 0) | {"prompt_progress": {"total": 7, "cache": 3, "processed": 7}}
    end = piece(None, None, finish="stop")
    done = b"data: [DONE]\n\n"
    stream = event(progress) + b"".join(map(event, [*pieces, end, usage(len(words))])) + b": ping\n\n" + done
    expected = b"".join(map(event, [*map(untimed, pieces), end])) + b": ping\n\n"
    if crlf:
        stream, expected, done = (part.replace(b"\n\n", b"\r\n\r\n") for part in (stream, expected, done))
    seen = EventFilter(keeps_usage=False, keeps_timings=False, keeps_progress=False)
    passed = b"".join([seen.feed(part) for part in cut(stream, places)])
    assert passed == expected
    assert seen.tokens() == Tokens(7, len(words), 3)
    assert seen.is_ended
    assert seen.finish() == done


@given(texts, st.integers(0, 10**6))
def test_stream_cut_off_is_counted_to_the_last_event_passed_on(words: list[str], place: int) -> None:
    stream = b"".join(event(piece(word, 2 * count)) for count, word in enumerate(words, 1))
    seen = EventFilter(keeps_usage=False, keeps_timings=False, keeps_progress=False)
    passed = seen.feed(stream[: place % (len(stream) + 1)])
    count = sum(json.loads(line[6:])["choices"] != [] for line in passed.split(b"\n\n") if line)
    assert seen.tokens().completion == 2 * count
    assert not seen.is_ended


@given(texts, st.lists(st.integers(0, 10**6), max_size=12))
def test_everything_passes_untouched_when_everything_was_asked_for(words: list[str], places: list[int]) -> None:
    values = [*(piece(word, count) for count, word in enumerate(words, 1)), usage(len(words))]
    stream, done = b"".join(map(event, values)), b"data: [DONE]\n\n"
    seen = EventFilter()
    assert b"".join([seen.feed(part) for part in cut(stream + done, places)]) == stream
    assert seen.finish() == done


def test_prompt_is_counted_from_the_progress_alone() -> None:
    seen = EventFilter(keeps_progress=False)
    assert seen.feed(event(piece(None, 0) | {"prompt_progress": {"total": 90, "processed": 7}})) == b""
    assert seen.feed(event(piece(None, None))) != b""
    assert seen.tokens() == Tokens(7, 0, 3)


def test_usage_inside_the_last_piece_is_taken_out_of_it() -> None:
    last = {"choices": [{"text": "", "index": 0, "finish_reason": "stop"}], "id": "x"}
    counts = {"usage": usage(4)["usage"], "timings": {"predicted_n": 4}}
    seen = EventFilter(keeps_usage=False, keeps_timings=False)
    assert seen.feed(event(last | counts)) == event(last)
    assert seen.tokens() == Tokens(7, 4, 3)


def test_usage_with_spaces_is_found() -> None:
    seen = EventFilter(keeps_usage=False)
    assert seen.feed(b"data: " + json.dumps(usage(5)).encode() + b"\n\n") == b""
    assert seen.tokens() == Tokens(7, 5, 3)


def test_null_usage_is_no_usage() -> None:
    seen = EventFilter(keeps_usage=False)
    data = event(piece("a", None) | {"usage": None})
    assert seen.feed(data) == data
    assert not seen.is_ended


def test_engine_without_timings_is_counted_by_content() -> None:
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    seen = EventFilter(keeps_usage=False)
    for value in (role, piece("a", None), piece("b", None), piece(None, None, finish="stop")):
        seen.feed(event(value))
    assert seen.tokens() == Tokens(0, 2, 0)


def test_choices_are_counted_one_by_one() -> None:
    seen = EventFilter(keeps_usage=False, keeps_timings=False, choices=2, choices_per_prompt=2)
    for value in (piece("a", 1), piece("x", 1, index=1), piece("b", 2), piece("y", 2, index=1), piece("z", 3, index=1)):
        seen.feed(event(value))
    assert seen.tokens() == Tokens(7, 5, 3)
    seen.feed(event(piece(None, None, finish="stop")) + event(usage(3)))
    assert seen.tokens() == Tokens(7, 6, 3)


def test_one_usage_for_all_choices_is_the_whole_bill() -> None:
    seen = EventFilter(choices=2, choices_per_prompt=2)
    for value in (piece("a", None), piece("x", None, index=1), usage(9)):
        seen.feed(event(value))
    assert seen.tokens() == Tokens(7, 9, 3)


def test_event_without_end_is_passed_on_at_the_end() -> None:
    seen = EventFilter()
    assert seen.feed(b"data: {}") == b""
    assert seen.finish() == b"data: {}"


def test_event_without_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENT_BYTES_MAX", 100)
    with pytest.raises(IntegrityError):
        EventFilter().feed(b"x" * 101)
