"""The memory estimate: formulas that can be checked by hand, and a sentence people can act on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.models.formats import ModelShape
from atoll.serving.fit import BATCH_TOKENS, PYTHON_BYTES, batch_tokens, estimate_files, explain, memory_needed, readable

SHAPE = ModelShape(
    weights_bytes=96_576_768,
    blocks=30,
    embedding=576,
    feed_forward=1536,
    kv_heads=90,
    key_length=64,
    value_length=64,
    vocabulary=49_152,
)
"""SmolLM2-135M."""


def test_keys_and_values_are_what_llama_cpp_allocates() -> None:
    assert memory_needed(SHAPE, 2048, 4).kv_bytes == 180 << 20
    assert memory_needed(SHAPE, 2048, 1).kv_bytes == 45 << 20
    assert memory_needed(SHAPE, 129, 1).kv_bytes == memory_needed(SHAPE, 256, 1).kv_bytes


def test_adapters_are_counted_with_the_weights() -> None:
    assert memory_needed(SHAPE, 256, 1, [10, 20]).weights_bytes == SHAPE.weights_bytes + 30


def test_the_whole_is_the_sum_of_its_parts() -> None:
    e = memory_needed(SHAPE, 2048, 4)
    assert e.total_bytes == e.weights_bytes + e.kv_bytes + e.compute_bytes + e.prompt_cache_bytes


@given(st.integers(1, 1 << 17), st.integers(1, 64), st.booleans())
def test_more_context_or_slots_never_need_less(context: int, slots: int, embedding: bool) -> None:
    one = memory_needed(SHAPE, context, slots, embedding=embedding)
    assert memory_needed(SHAPE, context + 1, slots, embedding=embedding).total_bytes >= one.total_bytes
    assert memory_needed(SHAPE, context, slots + 1, embedding=embedding).total_bytes > one.total_bytes


def test_the_prompt_cache_keeps_one_prompt_whatever_its_limit() -> None:
    assert memory_needed(SHAPE, 8192, 1, prompt_cache_bytes=1 << 20).prompt_cache_bytes == 180 << 20
    assert memory_needed(SHAPE, 8192, 1, prompt_cache_bytes=0).prompt_cache_bytes == 0
    assert memory_needed(SHAPE, 8192, 1, embedding=True).prompt_cache_bytes == 0


def test_embeddings_of_a_text_model_need_logits_for_every_token() -> None:
    text, vectors = memory_needed(SHAPE, 2048, 4), memory_needed(SHAPE, 2048, 4, embedding=True)
    assert vectors.compute_bytes - text.compute_bytes > BATCH_TOKENS * SHAPE.vocabulary * 4


def test_an_encoder_has_no_context_to_keep_and_sees_a_text_at_once() -> None:
    encoder = replace(SHAPE, is_encoder=True)
    assert memory_needed(encoder, 512, 4, embedding=True).kv_bytes == 0
    assert batch_tokens(encoder, 2048, embedding=True) == 2048
    assert batch_tokens(SHAPE, 2048, embedding=True) == BATCH_TOKENS
    assert batch_tokens(SHAPE, 100, embedding=False) == 100


def test_the_explanation_holds_both_numbers_and_the_parts() -> None:
    estimate = memory_needed(SHAPE, 2048, 4)
    refusal = explain(estimate, 256 << 20)
    assert f"needs {readable(estimate.total_bytes)}" in refusal
    assert "weights 92.1 MiB, context 180.0 MiB" in refusal
    assert refusal.endswith("256.0 MiB are available: it does not fit")
    assert explain(estimate, 1 << 40).endswith("1024.0 GiB are available: it fits")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (int(1.5 * (1 << 30)), "1.5 GiB")],
)
def test_sizes_are_readable(size_bytes: int, text: str) -> None:
    assert readable(size_bytes) == text


def test_files_of_no_known_shape_are_counted_as_large_as_they_are() -> None:
    estimate = estimate_files(100, [10, 1])
    assert (estimate.weights_bytes, estimate.kv_bytes, estimate.total_bytes) == (111, 0, 111 + PYTHON_BYTES)
