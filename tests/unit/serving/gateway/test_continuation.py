"""One answer out of two streams."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from atoll.serving.gateway.continuation import RAW_BYTES_MAX, Splice, Transcript, ending
from atoll.serving.gateway.usage import Tokens, joined

HEAD = {"id": "chatcmpl-first", "object": "chat.completion.chunk", "created": 11, "model": "m"}


def event(text: str | None = None, finish: str | None = None, **head: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps(HEAD | head | {"choices": [choice]})


def role(**head: Any) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
    return b"data: %b\n\n" % orjson.dumps(HEAD | head | {"choices": [choice]})


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(1, 4))
def test_transcript_is_the_text_however_events_were_grouped(pieces: list[str], group: int) -> None:
    transcript = Transcript()
    events = [role(), *map(event, pieces)]
    for at in range(0, len(events), group):
        transcript.add(b"".join(events[at : at + group]))
    assert transcript.text == "".join(pieces)
    assert transcript.text == "".join(pieces), "asked again"
    assert not transcript.is_finished
    assert transcript.head == HEAD


def test_transcript_keeps_text_instead_of_events_when_there_are_many() -> None:
    transcript = Transcript()
    for number in range(5000):
        transcript.add(event(f"{number} "))
        assert transcript._size <= RAW_BYTES_MAX
    assert transcript.text == "".join(f"{number} " for number in range(5000))


def test_transcript_knows_that_the_end_was_told() -> None:
    transcript = Transcript()
    transcript.add(event('not "finish_reason":"stop" yet'))
    assert not transcript.is_finished
    transcript.add(event(None, "stop"))
    assert transcript.is_finished


def test_transcript_of_a_plain_completion_is_its_text() -> None:
    transcript = Transcript()
    transcript.add(b'data: {"choices":[{"text":"a\\u00e9"}]}\r\n\r\ndata: broken\r\n\r\n: comment\r\n\r\n')
    assert transcript.text == "aé"


def test_second_stream_takes_over_the_first_ones_name_and_does_not_begin_again() -> None:
    splice = Splice(HEAD)
    other = {"id": "chatcmpl-second", "created": 99}
    assert splice.feed(role(**other)) == b""
    assert splice.feed(event("x", **other)) == event("x")
    assert splice.feed(event("y", **other) + event(None, "stop", **other)) == event("y") + event(None, "stop")


def test_second_stream_that_begins_with_text_loses_none() -> None:
    splice = Splice(HEAD)
    first = event("x", id="other")
    assert splice.feed(first + event("y", id="other")) == event("x") + event("y")


def test_ending_says_why_and_what_it_cost() -> None:
    transcript = Transcript()
    transcript.add(event("all"))
    events = ending(transcript, Tokens(3, 5, 1), wants_usage=True).split(b"\n\n")
    assert orjson.loads(events[0][6:])["choices"][0]["finish_reason"] == "length"
    assert orjson.loads(events[1][6:])["usage"]["total_tokens"] == 8
    assert events[2] == b"data: [DONE]"
    transcript.add(event(None, "stop"))
    assert ending(transcript, Tokens(), wants_usage=False) == b"data: [DONE]\n\n"


def test_bill_of_two_streams_has_the_prompt_once() -> None:
    assert joined(Tokens(10, 4, 2), Tokens(14, 6, 9)) == Tokens(10, 10, 2)
    assert joined(Tokens(0, 4, 0), Tokens(14, 6, 9)) == Tokens(10, 10, 0)
