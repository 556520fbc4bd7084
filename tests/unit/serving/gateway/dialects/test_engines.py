"""Each engine gets the parameters it knows, under its own names; what it cannot do is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.gateway.dialects.order import Plain
from atoll.serving.gateway.dialects.routes import CHAT, COMPLETION, EMBEDDING, MESSAGES

HELLO = [{"role": "user", "content": "hi"}]
ANY = {"type": "object"}
obj = {"type": "object", "properties": {"x": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f"}}
LLAMA = Plain(context=2048)
VLLM = Plain(engine="vllm", capabilities=("tools",), context=2048)
SGLANG = Plain(engine="sglang", context=2048)
TRANSFORMERS = Plain(engine="transformers", context=2048)
PROVIDER = Plain(engine="openai", model="gpt-x")


def asked(target: Plain, output_max: int | None = None, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "messages": HELLO} | fields).encode()
    value: dict[str, Any] = json.loads(CHAT.read(body, {}).body(target, output_max))
    return {name: part for name, part in value.items() if name not in ("model", "messages")}


@pytest.mark.parametrize(
    ("target", "metering"),
    [
        (
            LLAMA,
            {"stream_options": {"include_usage": True}, "timings_per_token": True, "return_progress": True},
        ),
        (VLLM, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
        (SGLANG, {"stream_options": {"include_usage": True}}),
        (TRANSFORMERS, {"stream_options": {"include_usage": True}}),
        (PROVIDER, {"stream_options": {"include_usage": True}}),
    ],
)
def test_a_stream_tells_its_tokens_in_the_engines_way(target: Plain, metering: dict[str, Any]) -> None:
    assert asked(target, stream=True) == {"stream": True} | metering
    assert asked(target, stream=True, stream_options={"include_usage": False}) == {"stream": True} | metering
    assert asked(target, stream=True, n=2) == {"stream": True, "n": 2} | metering


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        (LLAMA, "min_tokens", 5),
        (LLAMA, "regex", "a"),
        (LLAMA, "stop_token_ids", [1]),
        (VLLM, "mirostat", 2),
        (VLLM, "ebnf", "x"),
        (SGLANG, "dry_multiplier", 0.5),
        (TRANSFORMERS, "repetition_penalty", 1.2),
        (TRANSFORMERS, "top_n_sigma", 1.0),
        (PROVIDER, "mirostat", 1),
        (LLAMA, "functions", [{"name": "f"}]),
        (LLAMA, "audio", {"voice": "x"}),
        (VLLM, "web_search_options", {}),
        (TRANSFORMERS, "response_format", {"type": "json_object"}),
        (TRANSFORMERS, "logprobs", True),
    ],
)
def test_what_an_engine_cannot_do_is_refused_by_name(target: Plain, field: str, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        asked(target, **{field: value})
    assert caught.value.field == field
    assert caught.value.details["code"] == "unsupported_parameter"


def test_refusal_names_the_engines_that_can() -> None:
    with pytest.raises(Invalid, match=r"served by vLLM, which cannot do it\. It is known to llama\.cpp"):
        asked(VLLM, mirostat=2)


@pytest.mark.parametrize(
    ("target", "given", "expected"),
    [
        (LLAMA, {"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        (VLLM, {"repeat_penalty": 1.2}, {"repetition_penalty": 1.2}),
        (VLLM, {"n_predict": 5}, {"max_tokens": 5}),
        (SGLANG, {"grammar": "root ::= [a]"}, {"ebnf": "root ::= [a]"}),
        (VLLM, {"grammar": "root ::= [a]"}, {"structured_outputs": {"grammar": "root ::= [a]"}}),
        (
            VLLM,
            {"json_schema": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}},
                }
            },
        ),
    ],
)
def test_synonyms_are_translated(target: Plain, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asked(target, **given) == expected


@pytest.mark.parametrize("target", [LLAMA, VLLM, SGLANG, TRANSFORMERS, PROVIDER])
def test_what_changes_no_answer_is_never_refused(target: Plain) -> None:
    asked(
        target,
        metadata={"a": "b"},
        user="u",
        service_tier="auto",
        store=False,
        prompt_cache_key="k",
        modalities=["text"],
        reasoning_effort="low",
        verbosity="low",
        min_p=0,
        repetition_penalty=1,
        parallel_tool_calls=True,
        tool_choice="auto",
    )


def test_upstream_name_and_adapter_are_told() -> None:
    order = CHAT.read(json.dumps({"model": "m", "messages": HELLO}).encode(), {})
    assert json.loads(order.body(Plain(model="served", adapter=2))) == {
        "model": "served",
        "messages": HELLO,
        "lora": [{"id": 2, "scale": 1.0}],
    }
    embedding = EMBEDDING.read(b'{"model":"m","input":"a"}', {})
    assert json.loads(embedding.body(PROVIDER)) == {"model": "gpt-x", "input": "a"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 50),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": None}, 50),
        ({"max_tokens": -1}, 50),
        ({"n_predict": -1, "max_tokens": None}, 50),
        ({"stream": True}, 50),
        ({"stream": True, "max_tokens": None}, 50),
        ({"tools": [], "response_format": {"type": "text"}}, 50),
    ],
)
def test_output_is_clamped_only_where_the_client_gave_no_bound(fields: dict[str, Any], expected: int) -> None:
    assert asked(LLAMA, 50, **fields)["max_tokens"] == expected
    assert asked(Plain(adapter=1), 50, **fields)["max_tokens"] == expected


def test_output_bound_is_the_largest_that_was_asked_for() -> None:
    def bound(**fields: Any) -> int | None:
        return CHAT.read(json.dumps({"model": "m", "messages": HELLO} | fields).encode(), {}).output_bound

    assert bound() is None and bound(max_tokens=-1) is None
    assert bound(max_tokens=0) == 0
    assert bound(max_tokens=5, max_completion_tokens=9) == 9


def test_developers_messages_become_the_systems_except_for_providers() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "developer", "content": "a"}, *HELLO]}).encode()
    order = CHAT.read(body, {})
    assert json.loads(order.body(LLAMA))["messages"][0]["role"] == "system"
    assert json.loads(order.body(PROVIDER))["messages"][0]["role"] == "developer"


def test_plain_text_goes_on_where_it_broke_off() -> None:
    able = Plain(capabilities=("prefill",))
    order = CHAT.read(json.dumps({"model": "m", "messages": HELLO, "stream": True}).encode(), {})
    assert order.can_continue
    asked = json.loads(order.continuation(able, "Once upon", 9))
    assert asked["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert (asked["max_tokens"], asked["stream"]) == (9, True)
    on_vllm = json.loads(order.continuation(Plain(engine="vllm", capabilities=("prefill",)), "Once", None))
    assert (on_vllm["continue_final_message"], on_vllm["add_generation_prompt"]) == (True, False)
    with pytest.raises(Invalid, match="prefill"):
        order.continuation(Plain(engine="vllm"), "Once", 9)
    text = COMPLETION.read(b'{"model":"m","prompt":"Once","stream":true}', {})
    assert json.loads(text.continuation(LLAMA, " upon", 3))["prompt"] == "Once upon"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 2},
        {"grammar": "root ::= [a]"},
        {"stream": False},
    ],
)
def test_bound_answers_cannot_be_continued(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": HELLO, "stream": True} | fields).encode()
    assert not CHAT.read(body, {}).can_continue


def test_prompt_bound_is_above_the_tokens_and_exact_for_token_lists() -> None:
    text = "héllo 🌴 " * 50
    order = CHAT.read(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode(), {})
    assert order.prompt_bound >= len(text.encode()) + 32 + 256
    assert COMPLETION.read(b'{"model":"m","prompt":[1,2,3]}', {}).prompt_bound == 3
    assert COMPLETION.read(b'{"model":"m","prompt":[[1,2],[3]]}', {}).prompt_bound == 3


def test_sessions_and_affinity_come_from_the_request() -> None:
    body = json.dumps({"model": "m", "messages": HELLO, "prompt_cache_key": "k", "user": "me"}).encode()
    assert CHAT.read(body, {b"x-atoll-session": b"s"}).session == "s"
    order = CHAT.read(body, {})
    assert (order.session, order.user) == ("k", "me")
    assert order.affinity_key.startswith(b'"messages"')
    assert CHAT.read(b'{"model":"m","messages":[{"role":"user","content":"a"}]}', {}).session is None


def test_fill_in_needs_a_model_that_can() -> None:
    order = COMPLETION.read(b'{"model":"m","prompt":"a","suffix":"b","max_tokens":4}', {})
    with pytest.raises(Invalid) as caught:
        order.body(LLAMA)
    assert (caught.value.field, "fim" in caught.value.message) == ("suffix", True)
    able = Plain(capabilities=("fim",))
    assert order.path(able) == "/infill"
    asked = json.loads(order.body(able))
    assert (asked["input_prefix"], asked["input_suffix"], asked["prompt"]) == ("a", "b", "")
    assert order.path(PROVIDER) == "/v1/completions" and json.loads(order.body(PROVIDER))["suffix"] == "b"


def test_tools_go_to_an_engine_that_knows_them_as_they_are() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": obj}} for name in "ab"]
    named = {"type": "function", "function": {"name": "a"}}
    assert asked(VLLM, tools=tools, tool_choice=named) == {"tools": tools, "tool_choice": named}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tools[1]]}}
    assert asked(VLLM, tools=tools, tool_choice=allowed) == {"tools": tools[1:], "tool_choice": "required"}
    assert asked(VLLM, tools=tools, tool_choice="none") == {}
    able = Plain(capabilities=("tools",), context=2048)
    assert asked(able, tools=tools)["tools"] == tools
    assert "tools" not in asked(able, tools=tools, tool_choice="required")


def test_tools_are_refused_where_nothing_can_hold_an_answer_to_them() -> None:
    with pytest.raises(Invalid, match="lacks the capability 'tools'"):
        asked(TRANSFORMERS, tools=[{"type": "function", "function": {"name": "f"}}])
    held = asked(Plain(engine="transformers", capabilities=("json_schema",)), tools=[TOOL], tool_choice="required")
    assert held["response_format"]["type"] == "json_schema" and "tools" not in held


def test_references_in_a_tools_schema_are_written_out() -> None:
    parameters = {"$defs": {"c": {"type": "string", "maxLength": 9}}, "type": "object"}
    parameters |= {"properties": {"city": {"$ref": "#/$defs/c"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    for target in (LLAMA, SGLANG, Plain(context=100_000)):
        assert "$ref" not in json.dumps(asked(target, tools=[tool], tool_choice="required")["response_format"])


def test_thinking_is_asked_of_chat_templates_only() -> None:
    body = {"model": "m", "max_tokens": 9, "messages": HELLO, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    order = MESSAGES.read(json.dumps(body).encode(), {})
    assert json.loads(order.body(VLLM))["chat_template_kwargs"] == {"enable_thinking": True}
    assert "chat_template_kwargs" not in json.loads(order.body(PROVIDER))


def test_an_answer_without_bound_is_llama_cpps_way_alone() -> None:
    assert asked(LLAMA, max_tokens=-1) == {"max_tokens": -1}
    for target in (VLLM, SGLANG, TRANSFORMERS, PROVIDER):
        assert asked(target, max_tokens=-1) == {}
