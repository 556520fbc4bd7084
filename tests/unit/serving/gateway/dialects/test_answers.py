"""Answers are told in the client's dialect; thoughts, cut off answers, broken streams and garbage too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import IntegrityError, Unavailable
from atoll.serving.gateway.dialects.order import PLAIN, Plain, Translation
from atoll.serving.gateway.dialects.routes import COMPLETION, MESSAGES, RERANK, RESPONSES
from atoll.serving.gateway.dialects.stream import sse

TOOL = {"type": "function", "function": {"name": "f"}}
BROKEN = Unavailable("The engine is gone.")
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}


def messages(**fields: Any) -> Translation:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]} | fields
    translation = MESSAGES.read(json.dumps(body).encode(), {}).translation(PLAIN)
    assert translation is not None
    return translation


def responses(**fields: Any) -> Translation:
    body = {"model": "m", "input": "a"} | fields
    translation = RESPONSES.read(json.dumps(body).encode(), {}).translation(PLAIN)
    assert translation is not None
    return translation


def answer(finish: str | None = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": USAGE}).encode()


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: ")]


def test_thoughts_and_texts_are_blocks_of_a_message() -> None:
    told = json.loads(messages().whole(answer(content="yes", reasoning_content="hm")))
    assert [block["type"] for block in told["content"]] == ["thinking", "text"]
    assert told["stop_reason"] == "end_turn"
    assert told["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 4,
    }


def test_each_block_of_a_streamed_message_begins_and_ends() -> None:
    translation = messages()
    data = translation.events(chunk(role="assistant") + chunk(reasoning_content="hm") + chunk(content="ye"))
    data += translation.events(chunk(content="s") + chunk("length"))
    data += translation.finish(sse({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n")
    told = events(data)
    kinds = [event["type"] for event in told]
    assert kinds == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert [event["index"] for event in told if "index" in event] == [0, 0, 0, 1, 1, 1, 1]
    assert told[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert told[-2]["usage"]["output_tokens"] == 4


def test_vllms_stop_reason_is_the_stop_sequence() -> None:
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}
    told = json.loads(messages().whole(json.dumps({"choices": [choice]}).encode()))
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", "END")


def test_a_message_without_anything_is_still_a_message() -> None:
    told = events(messages().finish(b"data: [DONE]\n\n"))
    assert [event["type"] for event in told] == ["message_start", "message_delta", "message_stop"]


def test_broken_streams_say_so_in_their_dialect() -> None:
    (error,) = events(messages().break_off(BROKEN))
    assert (error["type"], error["error"]["type"]) == ("error", "overloaded_error")
    translation = responses()
    before = events(translation.events(chunk(content="half")))
    told = before + events(translation.break_off(BROKEN))
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["response"]["status"] == "failed"


def test_a_response_holds_thoughts_texts_and_calls_in_order() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = answer("tool_calls", content="a", reasoning_content="hm", tool_calls=[call, call | {"id": "c2"}])
    told = json.loads(responses().whole(whole))
    assert [item["type"] for item in told["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.get("call_id") for item in told["output"][2:]] == ["c1", "c2"]
    assert told["usage"]["total_tokens"] == 13 and told["status"] == "completed"


def test_items_of_a_streamed_response_are_numbered() -> None:
    translation = responses()
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    data = translation.events(chunk(reasoning_content="hm") + chunk(content="a") + chunk(tool_calls=[call]))
    data += translation.events(chunk(tool_calls=[more]) + chunk("tool_calls"))
    told = events(data + translation.finish(b""))
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [(event["output_index"], event["item"]["type"]) for event in done] == [
        (0, "reasoning"),
        (1, "message"),
        (2, "function_call"),
    ]
    assert told[-1]["type"] == "response.completed"
    assert [item["id"] for item in told[-1]["response"]["output"]] == [event["item"]["id"] for event in done]


def translations() -> list[Translation]:
    fim = COMPLETION.read(b'{"model":"m","prompt":"a","suffix":"b"}', {})
    likely = COMPLETION.read(b'{"model":"m","prompt":"a","logprobs":1}', {})
    rank = RERANK.read(b'{"model":"m","query":"q","documents":["a"]}', {})
    tools: Any = {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}}
    able = Plain(capabilities=("fim", "rerank"))
    found = [order.translation(able) for order in (fim, likely, rank)] + [rank.translation(PLAIN)]
    return [messages(), responses(), messages(**tools), *(each for each in found if each is not None)]


MEMBERS = "choices message delta content tool_calls function name usage index logprobs data results timings stop"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**60) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS.split(" ")), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_garbage_of_an_engine_is_an_integrity_error(value: Any) -> None:
    for translation in translations():
        for read, data in (
            (translation.whole, json.dumps(value).encode()),
            (translation.events, sse(value)),
            (translation.finish, sse(value)),
        ):
            try:
                assert isinstance(read(data), bytes)
            except IntegrityError:
                continue


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"choices":[]}', b'{"choices":[{}]}'])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    for translation in (messages(), responses()):
        with pytest.raises(IntegrityError):
            translation.whole(body)


def test_an_engines_error_in_the_stream_is_not_passed_on_as_an_answer() -> None:
    for translation in (messages(), responses()):
        with pytest.raises(IntegrityError, match="out of memory"):
            translation.events(b'data: {"error":{"message":"out of memory"}}\n\n')
