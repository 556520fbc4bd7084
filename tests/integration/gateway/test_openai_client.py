"""The official OpenAI client is content with the gateway."""

from __future__ import annotations

from collections.abc import Callable

import openai
import pytest

from integration.gateway.conftest import Running
from integration.gateway.control import Control
from integration.gateway.engine import CACHED_TOKENS, PROMPT_TOKENS, WORDS, Engine

Start = Callable[..., Running]
TEXT = "".join(WORDS)
HELLO = [{"role": "user", "content": "hello"}]


def test_models_are_listed_and_found(gateway: Running) -> None:
    with gateway.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").owned_by == "default"


def test_chat_answers_whole(gateway: Running, engine: Engine) -> None:
    with gateway.client() as client:
        answer = client.chat.completions.create(model="tiny", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None and answer.usage.completion_tokens == len(WORDS)
    assert engine.headers[0]["authorization"] == "Bearer engine-key"
    assert engine.requests[0] == {"model": "tiny", "messages": HELLO}


def test_chat_streams_without_what_was_not_asked_for(gateway: Running, engine: Engine) -> None:
    with gateway.client() as client:
        chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert all(c.choices and c.usage is None for c in chunks)
    assert not any("timings" in (c.model_extra or {}) or "prompt_progress" in (c.model_extra or {}) for c in chunks)
    assert engine.requests[0]["stream_options"] == {"include_usage": True}


def test_chat_streams_usage_when_asked(gateway: Running) -> None:
    with gateway.client() as client:
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == PROMPT_TOKENS


def test_chat_streams_timings_when_asked(gateway: Running) -> None:
    with gateway.client() as client:
        extra = {"timings_per_token": True}
        chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True, extra_body=extra))
    assert any("timings" in (c.model_extra or {}) for c in chunks)


def test_stream_is_whole_when_events_arrive_in_pieces(gateway: Running, engine: Engine) -> None:
    engine.chunks_split = True
    with gateway.client() as client:
        chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT


def test_completion_answers_and_streams(gateway: Running) -> None:
    with gateway.client() as client:
        assert client.completions.create(model="tiny", prompt="hello").choices[0].text == TEXT
        chunks = list(client.completions.create(model="tiny", prompt="hello", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == TEXT
    assert all(c.usage is None for c in chunks)


def test_several_choices_come_whole_with_the_whole_bill(gateway: Running) -> None:
    with gateway.client() as client:
        answer = client.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert [c.message.content for c in answer.choices] == [TEXT] * 3
    assert [c.finish_reason for c in answer.choices] == ["stop"] * 3
    assert answer.object == "chat.completion"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 3 * len(WORDS))
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == CACHED_TOKENS


def test_embeddings_answer(control: Control, gateway: Running, engine: Engine) -> None:
    control.add_model("embedder", [engine.url], kind="embedding")
    gateway.follow(control)
    with gateway.client() as client:
        answer = client.embeddings.create(model="embedder", input=["a", "b"], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    (record,) = control.wait_for_usage(1)
    assert (record["endpoint"], record["prompt_tokens"], record["completion_tokens"]) == ("embedding", 4, 0)


def test_wrong_key_is_401(gateway: Running) -> None:
    with gateway.client("sk-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert caught.value.code == "invalid_api_key"


def test_expired_key_is_401(control: Control, gateway: Running) -> None:
    control.add_key("sk-old", "key-old", expires_at=1.0)
    gateway.follow(control)
    with gateway.client("sk-old") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_unknown_model_names_the_nearest(gateway: Running) -> None:
    with gateway.client() as client, pytest.raises(openai.NotFoundError, match="nearest are: tiny") as caught:
        client.chat.completions.create(model="tinny", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_models_of_other_projects_do_not_exist(control: Control, engine: Engine, gateway: Running) -> None:
    control.add_model("secret", [engine.url], project="other")
    gateway.follow(control)
    with gateway.client() as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="secret", messages=HELLO)
    assert "tiny" in str(caught.value)


def test_forbidden_model_is_403(control: Control, engine: Engine, start: Start) -> None:
    control.add_model("tiny", [engine.url])
    control.add_model("large", [engine.url])
    control.add_key("sk-narrow", "key-narrow", models=["tiny"])
    running = start()
    with running.client("sk-narrow") as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="large", messages=HELLO)


def test_wrong_type_names_the_parameter(gateway: Running, engine: Engine) -> None:
    with gateway.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, temperature="hot")  # type: ignore[call-overload]
    assert caught.value.param == "temperature"
    assert engine.requests == []


def test_context_overflow_tells_both_numbers(gateway: Running, engine: Engine) -> None:
    told = b'{"error":{"code":400,"message":"request (3031 tokens) exceeds","type":"exceed_context_size_error",'
    engine.refusals.append((400, told + b'"n_prompt_tokens":3031,"n_ctx":512}}'))
    huge = [{"role": "user", "content": "word " * 2_000_000}]
    with gateway.client() as client, pytest.raises(openai.BadRequestError, match=r"512 tokens.*3031 tokens") as caught:
        client.chat.completions.create(model="tiny", messages=huge)
    assert caught.value.code == "context_length_exceeded"
    assert engine.sizes[0] > 10_000_000


def test_embedding_model_does_not_chat(control: Control, engine: Engine, start: Start) -> None:
    control.add_model("embedder", [engine.url], kind="embedding")
    running = start()
    with running.client() as client, pytest.raises(openai.BadRequestError, match="does not answer") as caught:
        client.chat.completions.create(model="embedder", messages=HELLO)
    assert caught.value.param == "model"


def test_model_without_replica_is_503_with_the_reason(control: Control, start: Start) -> None:
    control.add_model("later", [], reason="waiting for 2 GiB of memory on any node")
    running = start()
    with running.client() as client, pytest.raises(openai.InternalServerError, match="2 GiB of memory") as caught:
        client.chat.completions.create(model="later", messages=HELLO)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1
