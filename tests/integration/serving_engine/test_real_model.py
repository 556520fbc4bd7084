"""The engine on a real model, where one is at hand: it chats, it is freed, it takes the memory it was said to take."""

from __future__ import annotations

from pathlib import Path

from atoll.models.formats import read_gguf
from atoll.serving.fit import explain, memory_needed
from running_engine import Running, wait_until


def test_a_chat_streams_words(smollm: Running) -> None:
    with smollm.client() as client:
        stream = client.chat.completions.create(
            model="smollm",
            messages=[{"role": "user", "content": "Name a colour."}],
            stream=True,
            max_tokens=24,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip()
    assert chunks[-1].usage is not None and 0 < chunks[-1].usage.completion_tokens <= 24


def test_a_client_that_leaves_frees_its_slot(smollm: Running) -> None:
    with smollm.client() as client:
        stream = client.completions.create(
            model="smollm", prompt="Once", stream=True, max_tokens=1900, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        assert smollm.busy_slots() == 1
        stream.close()
        wait_until(lambda: smollm.busy_slots() == 0, "the slot is free")


def test_memory_is_within_a_fifth_of_the_estimate(smollm: Running) -> None:
    spec = smollm.folder.read("input.json")
    assert spec is not None
    path = smollm.folder.store.local_path(spec["model"]["digest"])
    shape = read_gguf(path if path is not None else Path()).shape
    assert shape is not None
    smollm.post("/v1/completions", {"prompt": "word " * 600, "max_tokens": 1})
    needed = memory_needed(shape, spec["context"], spec["slots"], prompt_cache_bytes=0)
    measured_bytes = smollm.memory_bytes()
    assert 0.8 < needed.total_bytes / measured_bytes < 1.2, explain(needed, measured_bytes)
