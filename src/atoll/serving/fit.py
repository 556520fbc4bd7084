"""How much memory a model needs to be served, and the sentence that says so.

Pure arithmetic on the facts of the model's header. Right within a fifth for llama-family models on processors, where
it is compared with the memory a running engine really has; for architectures with sliding windows, compressed or
recurrent state it is an upper bound. It does not know how much of a model an engine puts on an accelerator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Invalid
from atoll.models.formats import ModelShape

PROMPT_CACHE_BYTES = 128 << 20
"""What an engine may keep of finished prompts, beside the slots."""

BATCH_TOKENS = 512
"""Tokens computed at a time: the batch and micro-batch the engine is started with."""

ENGINE_BYTES = 48 << 20
PYTHON_BYTES = 512 << 20
"""An engine that is a Python program with its libraries, as torch."""

_CONTEXT_STEP = 256
_F16_BYTES, _F32_BYTES = 2, 4
_TOKEN_TEXT_BYTES = 400
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class FitEstimate:
    """Memory one replica needs, bytes: weights (with adapters), the slots' keys and values, buffers and the engine
    itself, prompts kept."""

    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    prompt_cache_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.prompt_cache_bytes


def memory_needed(
    shape: ModelShape,
    context: int,
    slots: int,
    adapters: Sequence[int] = (),
    *,
    embedding: bool = False,
    prompt_cache_bytes: int = PROMPT_CACHE_BYTES,
) -> FitEstimate:
    """Memory to serve a model of `shape` with `slots` requests of `context` tokens each; `adapters` are file sizes.

    Sources: keys and values as llama.cpp allocates them (llama-kv-cache.cpp: one f16 row of every head for every
    token, the context padded to 256); compute buffers as measured on its graph for processors with flash attention:
    per token of a micro-batch the larger of the feed-forward and attention activations or the output logits, and one
    f16 attention mask; the engine itself as measured, with about 400 bytes for each text of the vocabulary.
    The prompt cache keeps at least one prompt whatever its limit (server-task.cpp).
    """
    padded = -(-context // _CONTEXT_STEP) * _CONTEXT_STEP
    slot_kv_bytes = shape.kv_heads * (shape.key_length + shape.value_length) * padded * _F16_BYTES
    cache_bytes = max(prompt_cache_bytes, slot_kv_bytes) if prompt_cache_bytes and not embedding else 0
    return FitEstimate(
        weights_bytes=shape.weights_bytes + sum(adapters),
        kv_bytes=0 if shape.is_encoder else slot_kv_bytes * slots,
        compute_bytes=_compute_bytes(shape, padded, slots, embedding=embedding),
        prompt_cache_bytes=cache_bytes,
    )


def shape_of(model_format: str, metadata: Mapping[str, Any], size_bytes: int) -> ModelShape | None:
    """The shape of a version in the library by its facts; None when it has none (a predictor's files).

    For safetensors from the numbers of config.json, by the names Hugging Face's configurations use. `size_bytes` are
    all its files. Invalid when a GGUF model's facts are incomplete.
    """
    if model_format == "gguf":
        return ModelShape.from_metadata(metadata)
    layers, hidden = _number(metadata, "num_hidden_layers", "n_layer"), _number(metadata, "hidden_size", "n_embd")
    heads = _number(metadata, "num_attention_heads", "n_head")
    if model_format != "safetensors" or not (layers and hidden and heads):
        return None
    head_length = _number(metadata, "head_dim") or hidden // heads
    return ModelShape(
        weights_bytes=_number(metadata, "weights_bytes") or size_bytes,
        blocks=layers,
        embedding=hidden,
        feed_forward=_number(metadata, "intermediate_size", "n_inner") or 4 * hidden,
        kv_heads=layers * (_number(metadata, "num_key_value_heads") or heads),
        key_length=head_length,
        value_length=head_length,
        vocabulary=_number(metadata, "vocab_size") or 1,
    )


def estimate_files(size_bytes: int, adapters: Sequence[int] = ()) -> FitEstimate:
    """Memory for files whose shape is not known: as large as they are, and a Python process."""
    return FitEstimate(size_bytes + sum(adapters), 0, PYTHON_BYTES, 0)


def batch_tokens(shape: ModelShape, context: int, *, embedding: bool) -> int:
    """Tokens the engine computes at a time. An encoder must see a whole text at once."""
    return max(context, 1) if embedding and shape.is_encoder else min(BATCH_TOKENS, context)


def explain(estimate: FitEstimate, available_bytes: int) -> str:
    """One sentence with both numbers and what the need is made of."""
    parts = (
        f"weights {readable(estimate.weights_bytes)}",
        f"context {readable(estimate.kv_bytes)}",
        f"buffers {readable(estimate.compute_bytes)}",
        f"kept prompts {readable(estimate.prompt_cache_bytes)}",
    )
    verb = "fits" if estimate.total_bytes <= available_bytes else "does not fit"
    need, has = readable(estimate.total_bytes), readable(available_bytes)
    return f"needs {need} ({', '.join(parts)}) and {has} are available: it {verb}"


def readable(size_bytes: int) -> str:
    """A size in the unit people would use."""
    for unit_bytes, unit in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} B"


def _number(metadata: Mapping[str, Any], *names: str) -> int:
    found = next((metadata[name] for name in names if metadata.get(name)), 0)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise Invalid(f"{names[0]} of the model's configuration is {found!r}", field=names[0], hint="import it again")
    return found


def _compute_bytes(shape: ModelShape, context: int, slots: int, *, embedding: bool) -> int:
    batch = batch_tokens(shape, context, embedding=embedding)
    activations = 3 * shape.feed_forward + 8 * shape.embedding
    has_logits = not shape.is_encoder
    outputs = batch if embedding else slots
    largest = max(activations, shape.vocabulary) if embedding and has_logits else activations
    mask_bytes = context * batch * _F16_BYTES
    logits_bytes = outputs * shape.vocabulary * _F32_BYTES if has_logits else 0
    return (
        ENGINE_BYTES + shape.vocabulary * _TOKEN_TEXT_BYTES + batch * largest * _F32_BYTES + mask_bytes + logits_bytes
    )
