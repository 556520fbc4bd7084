"""Whatever a body holds, reading it gives an order or a refusal that names a field; asking an engine likewise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import AtollError, Invalid
from atoll.serving.gateway.dialects.order import Endpoint, Plain
from atoll.serving.gateway.dialects.routes import ENDPOINTS, endpoint_of

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}}
PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
SAID = [
    {"role": "developer", "content": "a"},
    {"role": "user", "content": PARTS},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "r"},
]
BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "a"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "b"}]}],
    },
]
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "r"},
]
VALID: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": SAID, "tools": [TOOL], "tool_choice": "auto", "response_format": FORM}
    | {"stream": True, "stream_options": {}, "stop": ["a"], "n": 2, "logprobs": True, "top_logprobs": 2},
    "completion": {"model": "m", "prompt": [[1, 2], [3]], "suffix": "b", "stop": "x", "logprobs": 1, "best_of": 1},
    "embedding": {"model": "m", "input": ["a", "b"], "dimensions": None},
    "responses": {"model": "m", "input": ITEMS, "instructions": "a", "tools": [{"type": "function", "name": "f"}]}
    | {"text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "conversation": {"id": "c"}},
    "messages": {"model": "m", "max_tokens": 3, "messages": BLOCKS, "system": [{"type": "text", "text": "s"}]}
    | {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}, "stop_sequences": ["a"]}
    | {"thinking": {"type": "disabled"}, "output_config": {"format": None}, "metadata": {"user_id": "u"}},
    "count_tokens": {"model": "m", "messages": BLOCKS},
    "rerank": {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1},
    "moderation": {"input": "a"},
    "infer": {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}], "id": "1"},
}
INFER = endpoint_of(b"/v2/models/m/infer")
TARGETS = [
    Plain(context=2048),
    Plain(engine="vllm", capabilities=("tools", "fim"), context=2048, model="other"),
    Plain(engine="transformers", context=512),
    Plain(engine="openai", model="other"),
    Plain(capabilities=("tools", "fim", "rerank"), adapter=1),
]
NAMES = st.sampled_from(["type", "name", "id", "content", "function", "schema"])
PARAMETERS = st.sampled_from(["model", "messages", "input", "prompt", "tools", "x"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["text", "function", "auto", "json_schema", "user", "tool_result", "message", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def everywhere(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [inner for key, part in parts for inner in everywhere(part, (*path, key))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with the part at `path` replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def attempt(endpoint: Endpoint, data: bytes) -> None:
    try:
        order = endpoint.read(data, {})
    except Invalid as error:
        assert error.field, error
        assert endpoint.render_error(error)[0] == 400
        return
    except AtollError as error:
        assert error.http_status == 501
        return
    assert order.prompt_bound >= 0 and order.choices >= order.choices_per_prompt >= 1
    assert order.affinity_key is not None and isinstance(order.user, str)
    for target in TARGETS:
        try:
            body, path = order.body(target, 9), order.path(target)
        except Invalid as error:
            assert error.field, error
            continue
        assert path.startswith("/") and isinstance(json.loads(body), dict)
        order.translation(target)


@pytest.mark.parametrize("name", VALID)
def test_the_examples_themselves_are_orders(name: str) -> None:
    endpoint = next((e for e in (*ENDPOINTS, INFER) if e is not None and e.name == name), None)
    assert endpoint is not None
    if name != "moderation":
        endpoint.read(json.dumps(VALID[name]).encode(), {})


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_part_of_any_kind_is_read_or_named(name: str, data: Any) -> None:
    endpoint = next(e for e in (*ENDPOINTS, INFER) if e is not None and e.name == name)
    body: Any = VALID[name]
    for _ in range(data.draw(st.integers(1, 3))):
        body = changed(body, data.draw(st.sampled_from(everywhere(body))), data.draw(json_values))
        if not everywhere(body):
            break
    attempt(endpoint, json.dumps(body).encode())


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["model", "messages", "input", "prompt", "tools", "x"]), json_values, max_size=5)
)
def test_any_object_is_read_or_named(name: str, body: dict[str, Any]) -> None:
    attempt(next(e for e in (*ENDPOINTS, INFER) if e is not None and e.name == name), json.dumps(body).encode())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_are_refused(data: bytes) -> None:
    for endpoint in ENDPOINTS:
        with pytest.raises(Invalid):
            endpoint.read(data, {})


def test_deep_nesting_is_refused() -> None:
    deep = b'{"model":"m","messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for endpoint in ENDPOINTS:
        with pytest.raises(Invalid):
            endpoint.read(deep, {})
