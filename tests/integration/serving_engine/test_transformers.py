"""The transformers engine, running on a tiny model: what the official client gets from it, together and alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from running_engine import Running, folder_input, started, wait_until
from task_folder import TaskFolder

pytest.importorskip("transformers", reason="the training extra is not installed (pip install atoll[train])")
pytest.importorskip("llguidance", reason="the serving extra is not installed (pip install atoll[serve])")
tiny_safetensors = pytest.importorskip("tiny_safetensors")

MODULE = "atoll.serving.engine.transformers_server"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PERMANENT = 3
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Rome", "Oslo"]}, "days": {"enum": [1, 2]}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}


def _start(root: Path, model: Path, grace_s: float = 10.0, **changes: Any) -> Running:
    folder = TaskFolder(root, MODULE)
    return started(folder, folder_input(folder, model) | {"context": 4096, "slots": 4} | changes, grace_s)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tiny_safetensors.write_model(tmp_path_factory.mktemp("model"))
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Running]:
    running = _start(tmp_path_factory.mktemp("transformers"), model)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    encoder = tiny_safetensors.write_encoder(tmp_path_factory.mktemp("encoder"), pooling="lasttoken")
    running = _start(tmp_path_factory.mktemp("embedder"), encoder, task="embed", context=64)
    yield running
    running.process.kill()
    running.process.wait()


# -- generating ----------------------------------------------------------------------------------------------------


def test_a_ready_engine_tells_what_it_can(engine: Running) -> None:
    able = {"chat", "completion", "tools", "json_schema", "grammar", "logprobs", "prefill", "continuous_usage"}
    assert set(engine.endpoint["capabilities"]) == able
    assert httpx.post(f"{engine.url}/v1/completions", json={"prompt": "a"}, timeout=60.0).status_code == 401


def test_the_same_seed_gives_the_same_answer_streamed_or_whole(engine: Running) -> None:
    with engine.client() as client:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "seed": 7, "max_tokens": 24}
        extra = {"ignore_eos": True}
        whole = client.chat.completions.create(**asked, extra_body=extra)
        again = client.chat.completions.create(**asked, extra_body=extra)
        other = client.chat.completions.create(**asked | {"seed": 8}, extra_body=extra)
        chunks = list(
            client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}, extra_body=extra
            )
        )
    text = whole.choices[0].message.content
    assert text == again.choices[0].message.content != other.choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert whole.usage is not None and chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 24 and whole.usage.prompt_tokens > 10


def test_answers_computed_together_are_those_computed_alone(engine: Running) -> None:
    prompts = ["a", "the thing in the inn", "xyz " * 40, "an apple", "thin", "in the beginning " * 8]
    body = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
    alone = [engine.post("/v1/completions", body | {"prompt": prompt})["choices"][0]["text"] for prompt in prompts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda prompt: engine.post("/v1/completions", body | {"prompt": prompt}), prompts))
    assert [answer["choices"][0]["text"] for answer in together] == alone


def test_several_prompts_and_answers_come_in_order(engine: Running) -> None:
    with engine.client() as client:
        answer = client.completions.create(
            model="tiny", prompt=["one", "two"], n=2, max_tokens=4, seed=1, extra_body={"ignore_eos": True}
        )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None and answer.usage.completion_tokens == 16
    assert answer.choices[0].text != answer.choices[1].text


def test_a_stop_string_ends_the_answer_and_is_not_told(engine: Running) -> None:
    body = {"prompt": "the thing", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    plain = engine.post("/v1/completions", body)["choices"][0]["text"]
    stop = plain[6:9]
    cut = engine.post("/v1/completions", body | {"stop": [stop]})["choices"][0]
    assert cut["text"] == plain[: plain.index(stop)] and cut["finish_reason"] == "stop"


def test_log_probabilities_are_the_models_own(engine: Running) -> None:
    with engine.client() as client:
        answer = client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0
        )
    told = answer.choices[0].logprobs
    assert told is not None and told.content is not None
    for item in told.content:
        assert item.logprob == pytest.approx(item.top_logprobs[0].logprob) and item.logprob <= 0
        assert item.top_logprobs[0].logprob >= item.top_logprobs[1].logprob


def test_a_bias_forbids_a_token(engine: Running) -> None:
    body = {"prompt": "a", "max_tokens": 1, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    first = engine.post("/v1/completions", body)["choices"][0]
    token = engine.post("/v1/completions", body | {"logit_bias": {str(i): -100 for i in range(200)}})["choices"][0]
    assert first["text"] != token["text"] or first["logprobs"]["tokens"] == token["logprobs"]["tokens"]


def test_an_assistants_words_at_the_end_are_continued(engine: Running) -> None:
    begun = [*HELLO, {"role": "assistant", "content": "It is"}]
    body = {"max_tokens": 2, "temperature": 0, "ignore_eos": True}
    whole = engine.post("/v1/chat/completions", body | {"messages": begun})
    raw = "<|im_start|>user\nhello<|im_end|><|im_start|>assistant\nIt is"
    same = engine.post("/v1/completions", body | {"prompt": raw})
    assert whole["usage"] == same["usage"]
    assert whole["choices"][0]["message"]["content"] == same["choices"][0]["text"]


def test_usage_is_told_with_every_event_when_asked(engine: Running) -> None:
    body = {"prompt": "a", "max_tokens": 5, "stream": True, "ignore_eos": True, "seed": 1}
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    with httpx.stream(
        "POST", f"{engine.url}/v1/completions", json=body | options, headers=engine.headers, timeout=60.0
    ) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    counts = [json.loads(line)["usage"]["completion_tokens"] for line in lines[:-1]]
    assert counts == sorted(counts) and counts[-1] == 5 and lines[-1] == "[DONE]"


# -- constrained ---------------------------------------------------------------------------------------------------


def test_an_answer_is_held_to_a_schema(engine: Running) -> None:
    schema = {"type": "object", "properties": {"fine": {"type": "boolean"}, "many": {"enum": [1, 2, 3]}}}
    schema |= {"required": ["fine", "many"], "additionalProperties": False}
    with engine.client() as client:
        for seed in range(5):
            answer = client.chat.completions.create(
                model="tiny",
                messages=HELLO,
                seed=seed,
                response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
            )
            made = json.loads(answer.choices[0].message.content or "")
            assert isinstance(made["fine"], bool) and made["many"] in (1, 2, 3)
            assert answer.choices[0].finish_reason == "stop"


def test_an_answer_is_held_to_a_grammar(engine: Running) -> None:
    answer = engine.post("/v1/completions", {"prompt": "a", "grammar": 'root ::= "yes" | "no"', "max_tokens": 50})
    assert answer["choices"][0]["text"] in ("yes", "no")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_is_made_with_its_parameters(engine: Running, choice: Any) -> None:
    with engine.client() as client:
        answer = client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[WEATHER], tool_choice=choice, seed=3, max_tokens=400
        )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None and calls[0].type == "function" and calls[0].function.name == "weather"
    made = json.loads(calls[0].function.arguments)
    assert made["town"] in ("Rome", "Oslo") and made["days"] in (1, 2)
    assert answer.choices[0].finish_reason == "tool_calls" and answer.choices[0].message.content is None


def test_a_call_is_streamed_whole_and_never_as_text(engine: Running) -> None:
    with engine.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=HELLO, tools=[WEATHER], tool_choice="required", stream=True, max_tokens=400
            )
        )
    assert not "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert len(calls) == 1 and calls[0].function is not None
    assert json.loads(calls[0].function.arguments or "")["town"] in ("Rome", "Oslo")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_free_choice_is_a_call_or_text(engine: Running) -> None:
    for seed in range(6):
        body = {"messages": HELLO, "tools": [WEATHER], "seed": seed, "max_tokens": 60}
        message = engine.post("/v1/chat/completions", body)["choices"][0]["message"]
        assert message.get("tool_calls") or not message["content"].lstrip().startswith("{")


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/completions", {"prompt": "x" * 9000}, "prompt"),
        ("/v1/completions", {"prompt": [99999]}, "prompt"),
        ("/v1/completions", {"prompt": {}}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"n": 1 << 40}, "n"),
        ("/v1/completions", {"n": 128, "prompt": ["a", "b"]}, "n"),
        ("/v1/completions", {"max_tokens": 0}, "max_tokens"),
        ("/v1/completions", {"temperature": "hot"}, "temperature"),
        ("/v1/completions", {"top_p": 2}, "top_p"),
        ("/v1/completions", {"seed": 1.5}, "seed"),
        ("/v1/completions", {"stop": ["a"] * 99}, "stop"),
        ("/v1/completions", {"logit_bias": {"x": 1}}, "logit_bias"),
        ("/v1/completions", {"suffix": "b"}, "suffix"),
        ("/v1/completions", {"grammar": "root ::= ("}, "grammar"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ("/v1/chat/completions", {"tools": [{}]}, "tools.0"),
        ("/v1/chat/completions", {"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ("/v1/chat/completions", {"response_format": {"type": "xml"}}, "response_format"),
        ("/v1/chat/completions", {"response_format": {"type": "json_schema"}}, None),
    ],
)
def test_a_bad_value_is_refused_by_its_name(engine: Running, path: str, change: dict[str, Any], param: str) -> None:
    body = {"prompt": "a", "messages": HELLO, "max_tokens": 1} | change
    answer = httpx.post(engine.url + path, json=body, headers=engine.headers, timeout=60.0)
    assert answer.status_code == 400, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param


def test_malformed_and_oversized_bodies_are_refused(engine: Running) -> None:
    for content, status in ((b"{", 400), (b"[]", 400), (b"", 400), (b'"' + b"x" * (33 << 20), 413)):
        answer = httpx.post(f"{engine.url}/v1/completions", content=content, headers=engine.headers, timeout=60.0)
        assert answer.status_code == status
    assert httpx.get(f"{engine.url}/v1/nothing", headers=engine.headers, timeout=60.0).status_code == 404


def test_a_schema_that_cannot_be_enforced_is_the_clients_error(engine: Running) -> None:
    with engine.client() as client, pytest.raises(openai.BadRequestError, match=r"enforced|schema"):
        client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}},
        )


def _in_flight(engine: Running) -> int:
    return int(httpx.get(f"{engine.url}/metrics", timeout=60.0).text.split()[-1])


def test_a_client_that_leaves_frees_its_slot(engine: Running) -> None:
    with engine.client() as client:
        streams = [
            client.completions.create(
                model="tiny", prompt="a", stream=True, max_tokens=4000, extra_body={"ignore_eos": True}
            )
            for _ in range(4)
        ]
        for stream in streams:
            next(iter(stream))
        assert _in_flight(engine) == 4
        for stream in streams:
            stream.close()
        wait_until(lambda: _in_flight(engine) == 0, "nothing is in flight")
    assert engine.post("/v1/completions", {"prompt": "a", "max_tokens": 1})["usage"]["completion_tokens"] == 1


def test_a_stopping_engine_finishes_what_it_is_streaming(tmp_path: Path, model: Path) -> None:
    running = _start(tmp_path, model, grace_s=60.0)
    reasons = []
    with running.client() as client:
        stream = client.completions.create(
            model="tiny", prompt="a", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
        )
        for chunk in stream:
            if not reasons:
                running.process.terminate()
            reasons.append(chunk.choices[0].finish_reason)
    assert reasons[-1] == "length" and running.process.wait(60.0) == 0


def test_a_model_transformers_does_not_know_is_a_permanent_failure(tmp_path: Path) -> None:
    strange = tiny_safetensors.write_model(tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps(config | {"model_type": "strange"}))
    folder = TaskFolder(tmp_path / "engine", MODULE)
    code, result = folder.run(folder_input(folder, strange))
    assert code == PERMANENT and "transformers cannot serve tiny" in result["error"]["message"]


def test_an_option_there_is_not_is_refused(tmp_path: Path, model: Path) -> None:
    folder = TaskFolder(tmp_path / "engine", MODULE)
    code, result = folder.run(folder_input(folder, model) | {"engine_options": {"speed": 9}})
    assert code == PERMANENT and result["error"]["details"]["field"] == "engine_options.speed"


# -- embedding -----------------------------------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_and_do_not_depend_on_their_neighbours(embedder: Running) -> None:
    texts = ["one", "another, longer text", "x"]
    with embedder.client() as client:
        answer = client.embeddings.create(model="tiny", input=texts)
        alone = [client.embeddings.create(model="tiny", input=text).data[0].embedding for text in texts]
        short = client.embeddings.create(model="tiny", input=texts, dimensions=8, encoding_format="float")
    assert [math.hypot(*item.embedding) for item in answer.data] == pytest.approx([1.0] * 3, abs=1e-4)
    for item, same in zip(answer.data, alone, strict=True):
        assert item.embedding == pytest.approx(same, abs=1e-4)
    assert [len(item.embedding) for item in short.data] == [8] * 3
    assert answer.usage.prompt_tokens > 20


def test_a_text_longer_than_the_context_is_refused_not_cut(embedder: Running) -> None:
    with embedder.client() as client, pytest.raises(openai.BadRequestError, match="has 65 tokens, the context is 64"):
        client.embeddings.create(model="tiny", input=["a", "b" * 65])


def test_an_embedder_does_not_chat(embedder: Running) -> None:
    with embedder.client() as client, pytest.raises(openai.BadRequestError, match="served to embed"):
        client.chat.completions.create(model="tiny", messages=HELLO)
