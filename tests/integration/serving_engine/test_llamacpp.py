"""The llama.cpp engine, running: what clients get from it, and how it starts, ends and refuses."""

from __future__ import annotations

import json
import math
import signal
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import httpx
import numpy as np
import openai
import pytest

import tiny_gguf
import tiny_reranker
from atoll.core.blobs import BlobStore
from atoll.core.errors import Unavailable
from atoll.serving.engine.base import Health
from atoll.serving.engine.lifecycle import keep_watch
from atoll.serving.engine.llamacpp import Server
from running_engine import MODULE, Running, wait_until
from task_folder import TaskFolder

Start = Callable[..., Running]
HELLO = [{"role": "user", "content": "hello"}]
PERMANENT = 3
FIM_TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


# -- what clients get ----------------------------------------------------------------------------------------------


def test_a_ready_engine_tells_where_and_what_it_serves(engine: Running) -> None:
    assert engine.url.startswith("http://127.0.0.1:")
    able = {"chat", "completion", "json_schema", "grammar", "logprobs", "timings", "prefill"}
    assert set(engine.endpoint["capabilities"]) == able
    assert stat.S_IMODE((engine.folder.path / "endpoint.json").stat().st_mode) == 0o600
    progress = engine.folder.read("progress.json")
    assert progress is not None
    assert (progress["stage"], progress["unit"], progress["done"]) == ("load", "byte", progress["total"])


def test_nobody_is_served_without_the_key(engine: Running) -> None:
    assert httpx.post(f"{engine.url}/v1/completions", json={"prompt": "a"}, timeout=60.0).status_code == 401
    assert httpx.get(f"{engine.url}/metrics", timeout=60.0).status_code == 401


def test_a_chat_is_streamed_to_the_official_client(engine: Running) -> None:
    with engine.client() as client:
        stream = client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            stream=True,
            max_tokens=16,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        chunks = list(stream)
    finished = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finished[-1] == "length" and set(finished[:-1]) == {None}
    usage = chunks[-1].usage
    assert usage is not None and usage.completion_tokens == 16 and usage.prompt_tokens > 5


def test_a_completion_is_answered_with_its_usage(engine: Running) -> None:
    with engine.client() as client:
        answer = client.completions.create(
            model="tiny", prompt="the thing", max_tokens=8, extra_body={"ignore_eos": True}
        )
    assert answer.usage is not None and answer.usage.completion_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_more_clients_than_slots_are_all_served(engine: Running) -> None:
    body = {"prompt": "an apple", "max_tokens": 32, "ignore_eos": True}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: engine.post("/v1/completions", body), range(8)))
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [32] * 8


def test_health_is_told_while_all_slots_are_busy(engine: Running) -> None:
    is_over = threading.Event()

    def listen(_: int) -> None:
        body = {"prompt": "a", "max_tokens": 60_000, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{engine.url}/v1/completions", json=body, headers=engine.headers, timeout=60.0) as r:
            next(line for line in r.iter_lines() if is_over.is_set())

    with ThreadPoolExecutor(12) as pool:
        streams = [pool.submit(listen, number) for number in range(12)]
        try:
            wait_until(lambda: engine.busy_slots() == 4, "all slots are busy")
            assert httpx.get(f"{engine.url}/health", timeout=60.0).json() == {"status": "ok"}
        finally:
            is_over.set()
    assert [stream.exception() for stream in streams] == [None] * 12
    wait_until(lambda: engine.busy_slots() == 0, "the slots are free again")


def test_a_client_that_leaves_frees_its_slot(engine: Running) -> None:
    with engine.client() as client:
        stream = client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, max_tokens=60_000, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        assert engine.busy_slots() == 1
        stream.close()
        wait_until(lambda: engine.busy_slots() == 0, "the slot is free")


def test_an_answer_can_be_held_to_a_schema(engine: Running) -> None:
    schema = {"type": "object", "properties": {"fine": {"type": "boolean"}}, "required": ["fine"]}
    named = {"name": "answer", "schema": schema | {"additionalProperties": False}, "strict": True}
    with engine.client() as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            max_tokens=2000,
            response_format={"type": "json_schema", "json_schema": named},
        )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["fine"], bool)


def test_a_prompt_longer_than_the_context_is_refused_not_cut(start: Start, tiny: Path) -> None:
    running = start(tiny, context=256)
    with running.client() as client, pytest.raises(openai.BadRequestError, match="exceed"):
        client.completions.create(model="tiny", prompt="x " * 1000, max_tokens=1)


def test_every_slot_has_the_whole_context(engine: Running) -> None:
    slots = httpx.get(f"{engine.url}/slots", headers=engine.headers, timeout=60.0).json()
    assert [slot["n_ctx"] for slot in slots] == [1 << 16] * 4


# -- adapters and embeddings ---------------------------------------------------------------------------------------


def test_an_adapter_changes_what_the_model_computes(start: Start, engine: Running, tiny: Path, tmp_path: Path) -> None:
    adapted = start(tiny, tiny_gguf.write_adapter(tmp_path / "adapter.gguf"))
    body = {"prompt": "in the inn and then", "max_tokens": 1, "temperature": 0, "logprobs": 5}
    plain, tuned = (r.post("/v1/completions", body)["choices"][0]["logprobs"] for r in (engine, adapted))
    assert plain["content"][0]["logprob"] != pytest.approx(tuned["content"][0]["logprob"], abs=1e-6)


def test_an_embedding_server_gives_unit_vectors(start: Start, tiny: Path) -> None:
    running = start(tiny, task="embed")
    assert running.endpoint["capabilities"] == ["embedding"]
    with running.client() as client:
        answer = client.embeddings.create(model="tiny", input=["one", "another text"], encoding_format="float")
    vectors = [item.embedding for item in answer.data]
    assert [len(vector) for vector in vectors] == [tiny_gguf.EMBEDDING] * 2
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert answer.usage.prompt_tokens > 0


def _own_input(start: Start, tiny: Path, tmp_path: Path) -> Running:
    """An engine with an adapter of its own and another beside it."""
    own = tiny_gguf.write_adapter(tmp_path / "own.gguf", seed=1)
    other = tiny_gguf.write_adapter(tmp_path / "other.gguf", seed=2)
    store = BlobStore(str(tmp_path / "engine-0" / "blobs"))
    files = {path.stem: {"name": path.name, "digest": store.put_file(path).digest} for path in (own, other)}
    adapters = [{"name": "tiny", "file": files["own"]}, {"name": "legal", "file": files["other"]}]
    return start(tiny, adapters=adapters)


def test_the_own_adapter_is_on_and_another_is_switched_on_by_request(
    start: Start, engine: Running, tiny: Path, tmp_path: Path
) -> None:
    running = _own_input(start, tiny, tmp_path)
    assert "lora" in running.endpoint["capabilities"]
    body = {"prompt": "in the inn and then", "max_tokens": 1, "temperature": 0, "logprobs": 5}

    def first(asked: Running, **more: object) -> float:
        answer = asked.post("/v1/completions", body | more)
        return float(answer["choices"][0]["logprobs"]["content"][0]["logprob"])

    own, same = first(running), first(running, lora=[{"id": 0, "scale": 1.0}])
    other, none = first(running, lora=[{"id": 1, "scale": 1.0}]), first(running, lora=[{"id": 0, "scale": 0.0}])
    assert own == pytest.approx(same, abs=1e-5) and none == pytest.approx(first(engine), abs=1e-5)
    assert abs(own - other) > 1e-6 and abs(other - none) > 1e-6
    assert first(running) == pytest.approx(own, abs=1e-5)


def test_a_reranker_orders_documents(start: Start, tmp_path: Path) -> None:
    running = start(tiny_reranker.write_reranker(tmp_path / "rank.gguf"), task="rerank", context=128)
    assert running.endpoint["capabilities"] == ["rerank"]
    answer = running.post("/v1/rerank", {"query": "a cat", "documents": ["cat", "a dog runs", "zzz"]})
    scores = [result["relevance_score"] for result in answer["results"]]
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    assert answer["usage"]["prompt_tokens"] > 10


def test_a_model_that_can_fill_gaps_says_so(start: Start, tmp_path: Path) -> None:
    running = start(tiny_gguf.write_model(tmp_path / "fim.gguf", special=FIM_TOKENS))
    assert "fim" in running.endpoint["capabilities"]
    filled = running.post("/infill", {"input_prefix": "the", "input_suffix": "inn", "n_predict": 4})
    assert filled["tokens_predicted"] > 0


def test_warm_up_prompts_are_kept_in_the_cache(start: Start, tiny: Path) -> None:
    prompt = "in the beginning there was an inn and in the inn " * 3
    running = start(tiny, warm_up={"enabled": True, "prompts": [prompt]})
    timings = running.post("/v1/completions", {"prompt": prompt + "then", "max_tokens": 1})["timings"]
    assert timings["cache_n"] > timings["prompt_n"]


def test_a_warm_up_prompt_that_does_not_fit_is_a_permanent_failure(tmp_path: Path, tiny: Path) -> None:
    code, error, _ = _refused(tmp_path, tiny, warm_up={"prompts": ["x " * 999]})
    assert (code, error["code"]) == (PERMANENT, "invalid") and "warm-up prompt 0 is refused" in error["message"]


def test_options_of_llama_cpp_reach_it_by_name(start: Start, tiny: Path, tmp_path: Path) -> None:
    running = start(tiny, engine_options={"cache_type_k": "bf16", "speculative.types": "ngram_simple"})
    assert running.post("/v1/completions", {"prompt": "the " * 20, "max_tokens": 8})["usage"]["completion_tokens"]
    code, error, _ = _refused(tmp_path, tiny, engine_options={"cache_type_q": "q8_0"})
    assert code == PERMANENT and "did you mean 'cache_type_" in error["message"] + str(error.get("hint"))


# -- ending --------------------------------------------------------------------------------------------------------


def test_an_idle_engine_stops_at_once(start: Start, tiny: Path) -> None:
    running = start(tiny)
    assert running.stop() == 0


def test_a_stopping_engine_finishes_what_it_is_streaming(start: Start, tiny: Path) -> None:
    running = start(tiny, context=1 << 14, grace_s=60.0)
    reasons = []
    with running.client() as client:
        stream = client.completions.create(
            model="tiny", prompt="a", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
        )
        for chunk in stream:
            if not reasons:
                running.process.send_signal(signal.SIGTERM)
            reasons.append(chunk.choices[0].finish_reason)
    assert reasons[-1] == "length"
    assert running.process.wait(60.0) == 0


def test_a_stopping_engine_does_not_wait_longer_than_its_grace(start: Start, tiny: Path) -> None:
    running = start(tiny, context=1 << 19, slots=1, grace_s=2.5)
    with running.client() as client:
        stream = client.completions.create(
            model="tiny", prompt="a", max_tokens=500_000, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60.0) == 0


def test_a_server_that_does_not_answer_ends_the_watch_with_failure() -> None:
    gone = Server(None, "http://127.0.0.1:9", "key")
    with pytest.raises(Unavailable, match="does not answer /health"):
        gone.call("GET", "/health")
    assert keep_watch(gone, threading.Event(), 0.0, Health(every_s=0.001)) == 1


# -- refusing ------------------------------------------------------------------------------------------------------


def _refused(root: Path, model: Path, *, damage: bool = False, **changes: object) -> tuple[int, dict[str, str], str]:
    """Exit code, error and log of an engine that must not start."""
    folder = TaskFolder(root, MODULE)
    digest = folder.store.put_file(model).digest
    stored = folder.store.local_path(digest)
    assert stored is not None
    if damage:
        whole = bytearray(stored.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        stored.write_bytes(bytes(whole))
    spec = {"model": {"name": model.name, "digest": digest}, "alias": "tiny", "context": 128, "slots": 1, "threads": 1}
    code, result = folder.run(spec | changes)
    assert folder.read("endpoint.json") is None
    return code, result["error"], folder.log


def test_a_damaged_model_never_reaches_llama_cpp(tmp_path: Path, tiny: Path) -> None:
    code, error, log = _refused(tmp_path, tiny, damage=True)
    assert (code, error["code"]) == (PERMANENT, "integrity")
    assert "llama" not in log


def test_a_file_that_is_no_model_never_reaches_llama_cpp(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(tiny.read_bytes()[:3000])
    code, error, log = _refused(tmp_path, path)
    assert (code, error["code"]) == (PERMANENT, "integrity")
    assert "wrong.gguf is truncated" in error["message"] and "llama.cpp" not in log


def test_an_architecture_llama_cpp_does_not_know_is_a_permanent_failure(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "strange.gguf", "strange")
    for key in ("block_count", "context_length", "embedding_length", "attention.head_count"):
        writer.add_uint32(f"strange.{key}", 256)
    writer.add_tensor("x", np.zeros((4, 32), np.float32))
    path = tiny_gguf.finished(writer, tmp_path / "strange.gguf")
    code, error, _ = _refused(tmp_path, path)
    assert (code, error["code"]) == (PERMANENT, "invalid")
    assert "strange.gguf" in error["message"] and "'strange'" in error["hint"]


def test_what_does_not_fit_into_memory_is_refused_with_the_numbers(tmp_path: Path) -> None:
    path = tiny_gguf.write_model(tmp_path / "tiny.gguf", context=1 << 24)
    code, error, _ = _refused(tmp_path, path, context=1 << 24, slots=256)
    assert (code, error["code"]) == (PERMANENT, "capacity")
    assert "needs 1" in error["message"] and "GiB are available: it does not fit" in error["message"]


def test_a_bad_input_is_refused_by_its_field(tmp_path: Path, tiny: Path) -> None:
    code, error, _ = _refused(tmp_path, tiny, slots=0)
    assert (code, error["code"]) == (PERMANENT, "invalid") and "slots" in error["message"]
