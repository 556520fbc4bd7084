"""OpenAI's parameters of generation, asked with the official client of a real llama.cpp server."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from integration.dialects.conftest import CAPABILITIES, CONTEXT, add_model, follow, openai_of
from integration.gateway.conftest import Running
from integration.gateway.control import Control

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ENDLESS = {"ignore_eos": True, "grammar": "root ::= [a-z ]*"}
"""Letters only: the model's random bytes would be no text."""


def said(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_the_same_seed_says_the_same_whole_and_streamed(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 7, "max_tokens": 12}
        asked["extra_body"] = ENDLESS
        first = client.chat.completions.create(**asked).choices[0].message.content
        again = client.chat.completions.create(**asked).choices[0].message.content
        other = client.chat.completions.create(**asked | {"seed": 8}).choices[0].message.content
        streamed = said(list(client.chat.completions.create(**asked, stream=True)))
    assert first == again == streamed
    assert first != other


def test_stream_ends_with_usage_only_when_asked(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 5, "stream": True}
        without = list(client.chat.completions.create(**asked))
        chunks = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert all(c.usage is None and c.choices for c in without)
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 5


def test_output_is_bound_by_either_name(tiny: Running) -> None:
    with openai_of(tiny) as client:
        for name in ("max_tokens", "max_completion_tokens"):
            answer = client.chat.completions.create(model="tiny", messages=HELLO, extra_body={name: 3} | ENDLESS)
            assert answer.usage is not None and answer.usage.completion_tokens == 3
            assert answer.choices[0].finish_reason == "length"


def test_chat_logprobs_come_whole_and_streamed(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 4, "logprobs": True}
        asked |= {"top_logprobs": 3, "seed": 1, "extra_body": ENDLESS}
        answer = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True))
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [3] * 4
    streamed = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    assert sum(len(entry.content or ()) for entry in streamed) == 4


def test_completion_logprobs_have_openais_own_form(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "prompt": "hello", "max_tokens": 4, "logprobs": 2, "seed": 1}
        answer = client.completions.create(**asked, extra_body=ENDLESS)
        chunks = list(client.completions.create(**asked, stream=True, extra_body=ENDLESS))
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.top_logprobs is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs or ()) == len(logprobs.text_offset or ()) == 4
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    streamed = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    assert [token for entry in streamed for token in entry.tokens or ()] == logprobs.tokens


def test_several_prompts_and_choices_are_all_answered(tiny: Running) -> None:
    with openai_of(tiny) as client:
        answer = client.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=2, extra_body=ENDLESS)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage is not None and answer.usage.completion_tokens == 8
        tokens = client.completions.create(model="tiny", prompt=[104, 101, 108], max_tokens=1, extra_body=ENDLESS)
        assert tokens.usage is not None and tokens.usage.prompt_tokens == 3


def test_stop_ends_the_answer_before_it(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 7, "max_tokens": 40}
        text = client.chat.completions.create(**asked, extra_body=ENDLESS).choices[0].message.content or ""
        stop = text[10:12]
        answer = client.chat.completions.create(**asked, stop=[stop], extra_body=ENDLESS)
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"min_tokens": 4}, "min_tokens"),
        ({"regex": "a+"}, "regex"),
    ],
)
def test_what_llama_cpp_cannot_do_is_refused_by_name(tiny: Running, extra: dict[str, Any], field: str) -> None:
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="a", extra_body=extra)
    assert caught.value.param == field
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("extra", "numbers"),
    [
        ({"n": 1000}, ("128", "1000")),
        ({"max_tokens": 10**12}, ("16777216", "1000000000000")),
        ({"logprobs": True, "top_logprobs": 500}, ("20", "500")),
    ],
)
def test_absurd_numbers_are_told_beside_the_limit(
    tiny: Running, extra: dict[str, Any], numbers: tuple[str, str]
) -> None:
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, extra_body=extra)
    assert all(number in str(caught.value) for number in numbers)


def test_max_tokens_beyond_the_context_is_the_engines_to_end(tiny: Running) -> None:
    with openai_of(tiny) as client:
        answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=CONTEXT * 4, seed=1)
    assert answer.usage is not None and answer.usage.total_tokens <= CONTEXT


def test_token_list_past_the_context_is_refused_with_both_numbers(tiny: Running) -> None:
    with openai_of(tiny) as client, pytest.raises(openai.BadRequestError, match=r"2048 tokens.* 3000 tokens") as caught:
        client.completions.create(model="tiny", prompt=[65] * 3000)
    assert caught.value.code == "context_length_exceeded"


def test_synonyms_of_other_engines_are_understood(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 3, "max_tokens": 30}
        ours = client.chat.completions.create(**asked, extra_body={"repeat_penalty": 5.0})
        theirs = client.chat.completions.create(**asked, extra_body={"repetition_penalty": 5.0})
        plain = client.chat.completions.create(**asked)
    assert ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.choices[0].message.content != plain.choices[0].message.content


def test_moderations_say_that_there_is_no_policy_engine(tiny: Running) -> None:
    with openai_of(tiny) as client, pytest.raises(openai.InternalServerError, match="no policy engine") as caught:
        client.moderations.create(input="hello")
    assert caught.value.status_code == 501


def test_fill_in_uses_the_models_own_tokens(tiny: Running, control: Control, fim_llama: str) -> None:
    add_model(control, "coder", fim_llama, capabilities=[*CAPABILITIES, "fim"])
    follow(tiny, control)
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "coder", "prompt": "def f(", "suffix": "return x", "max_tokens": 5, "seed": 1}
        answer = client.completions.create(**asked, extra_body=ENDLESS)
        chunks = list(client.completions.create(**asked, stream=True, extra_body=ENDLESS))
    assert answer.object == "text_completion" and answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert "".join(c.choices[0].text for c in chunks if c.choices) == answer.choices[0].text


def test_fill_in_is_billed_whole_and_streamed_alike(tiny: Running, control: Control, fim_llama: str) -> None:
    add_model(control, "coder", fim_llama, capabilities=[*CAPABILITIES, "fim"])
    follow(tiny, control)
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "coder", "prompt": "def f(", "suffix": "return x", "max_tokens": 5, "seed": 1}
        client.completions.create(**asked, extra_body=ENDLESS)
        list(client.completions.create(**asked, stream=True, extra_body=ENDLESS))
    first, second = control.wait_for_usage(2)
    assert [record["status"] for record in (first, second)] == ["ok", "ok"]
    assert first["prompt_tokens"] == second["prompt_tokens"] > 0
    assert (first["completion_tokens"], second["completion_tokens"]) == (5, 5)


def test_stream_is_json_events_to_the_end(tiny: Running) -> None:
    with openai_of(tiny) as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 3, "stream": True}
        with client.chat.completions.with_streaming_response.create(**asked) as answer:
            lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] for line in lines[:-1])
