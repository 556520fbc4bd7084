"""Answers computed together: the same as alone, whatever the model's cache, and none that outlives its request."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="the training extra is not installed (pip install atoll[train])")
pytest.importorskip("transformers", reason="the training extra is not installed (pip install atoll[train])")
pytest.importorskip("llguidance", reason="the serving extra is not installed (pip install atoll[serve])")

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from atoll.core.errors import Unavailable
from atoll.serving.engine import batcher as batcher_module
from atoll.serving.engine.batcher import PREFILL_TOKENS, Batcher
from atoll.serving.engine.generation import Generation, Piece, TextStream
from atoll.serving.engine.sampling import Sampling

TOKENIZER: Any = pytest.importorskip("tiny_safetensors").tokenizer()
SIZES: dict[str, Any] = {"vocab_size": 263, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}


def _llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, initializer_range=0.5))


def _mistral() -> Any:
    return MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=8, initializer_range=0.5))


def _gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=263, n_embd=32, n_layer=2, n_head=4, n_positions=2048))


def _hybrid() -> Any:
    layers = {"layer_types": ["linear_attention", "full_attention"], "num_experts": 0, "head_dim": 8}
    linear = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    return Qwen3NextForCausalLM(Qwen3NextConfig(**SIZES, **HEADS, **layers, **linear, linear_value_head_dim=8))


MODELS = {"llama": _llama, "mistral": _mistral, "gpt2": _gpt2, "hybrid": _hybrid}


def _model(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]().eval()


class Heard:
    """The tokens of one answer, and how it ended."""

    def __init__(self, prompt: list[int], tokens: int, **sampling: Any) -> None:
        self.tokens: list[int | None] = []
        self.last: Piece | None = None
        text, settings = TextStream(TOKENIZER), Sampling(**({"temperature": 0.0} | sampling))
        self.generation = Generation(prompt, tokens, text, self.hear, settings)

    def hear(self, piece: Piece) -> None:
        self.tokens.append(piece.token)
        self.last = piece if piece.finish or piece.error else self.last


def _computed(model: Any, answers: list[Heard], slots: int) -> list[list[int | None]]:
    """The tokens of all answers."""
    batcher = Batcher(model, slots)
    for answer in answers:
        batcher.submit(answer.generation)
    batcher.call(lambda: None)
    batcher.start()
    for answer in answers:
        _wait(batcher, answer)
    batcher.close()
    return [answer.tokens for answer in answers]


def _wait(batcher: Batcher, answer: Heard) -> None:
    for _ in range(60_000):
        if answer.last is not None:
            return
        batcher._thread.join(0.001)
    raise AssertionError("the answer did not end")


def _prompts() -> list[list[int]]:
    return [[5], list(range(20)), [9, 8, 7], list(range(100, 140)), [1, 2], list(range(60, 75))]


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_answers_together_are_answers_alone_whatever_the_cache(name: str) -> None:
    model = _model(name)
    counts = [12, 3, 9, 20, 1, 7]
    alone = [_computed(model, [Heard(p, n)], 1)[0] for p, n in zip(_prompts(), counts, strict=True)]
    together = _computed(model, [Heard(p, n) for p, n in zip(_prompts(), counts, strict=True)], 4)
    assert together == alone and [len(tokens) for tokens in alone] == counts


def test_a_prompt_computed_in_chunks_is_the_prompt() -> None:
    model = _model("llama")
    prompt = [number % 250 for number in range(PREFILL_TOKENS + 77)]
    answer = Heard(prompt, 2)
    with torch.inference_mode():
        wanted = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
    assert _computed(model, [answer, Heard([4], 30)], 2)[0][0] == wanted


def test_a_cancelled_answer_frees_its_place_for_those_who_wait() -> None:
    model = _model("llama")
    endless, waiting = Heard([1], 1 << 30), Heard([2], 3)
    batcher = Batcher(model, 1)
    batcher.submit(endless.generation)
    batcher.submit(waiting.generation)
    batcher.start()
    for _ in range(60_000):
        if endless.tokens:
            break
        batcher._thread.join(0.001)
    assert waiting.tokens == []
    endless.generation.is_cancelled = True
    _wait(batcher, waiting)
    batcher.close()
    assert len(waiting.tokens) == 3


def test_a_model_that_fails_ends_its_answers_and_not_the_engine() -> None:
    model = _model("llama")
    batcher = Batcher(model, 2).start()
    bad = Heard([999_999], 3)
    batcher.submit(bad.generation)
    _wait(batcher, bad)
    assert bad.last is not None and bad.last.error is not None and "the model failed" in bad.last.error.message
    good = Heard([3], 3)
    batcher.submit(good.generation)
    _wait(batcher, good)
    batcher.check()
    batcher.close()
    with pytest.raises(Unavailable, match="has ended"):
        batcher.check()


def test_too_many_that_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "WAITING_MAX", 2)
    batcher = Batcher(_model("llama"), 1)
    for _ in range(2):
        batcher.submit(Heard([1], 1).generation)
    with pytest.raises(Unavailable, match="2 answers are waiting"):
        batcher.submit(Heard([1], 1).generation)
