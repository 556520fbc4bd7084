"""How much memory a folder of safetensors needs to be served, from the numbers of its config.json.

Pure arithmetic, for engine `transformers` on a processor: weights as float32 unless said otherwise, keys and values of
full attention in the same type, and what PyTorch itself takes, as measured. vLLM and SGLang take the share of their
accelerators they are told to and fit what they can; for them the weights and one context are the least. It is an upper
bound for sliding windows and too high for recurrent models; it does not know experts kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.core.errors import Invalid
from atoll.serving.fit import FitEstimate, shape_of

PYTORCH_BYTES = 384 << 20
"""What the process takes with PyTorch and transformers loaded and no model."""

PREFILL_TOKENS = 512
_TYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}


def folder_memory(
    metadata: Mapping[str, Any],
    size_bytes: int,
    context: int,
    slots: int,
    *,
    dtype: str = "float32",
    embedding: bool = False,
) -> FitEstimate:
    """Memory engine `transformers` needs with `slots` requests of `context` tokens each, bytes.

    `metadata` is the version's (config.json's numbers), `size_bytes` of all its files. Invalid when it has no shape.
    """
    shape = shape_of("safetensors", metadata, size_bytes)
    if shape is None:
        raise Invalid("the model's config.json does not tell its shape", field="metadata", hint="import it again")
    stored_bytes = _BYTES_OF.get(str(metadata.get("type", "F32")), 4)
    value_bytes = _TYPE_BYTES.get(dtype, stored_bytes)
    states = shape.kv_heads * (shape.key_length + shape.value_length) * context * value_bytes
    activations = min(PREFILL_TOKENS, context) * (3 * shape.feed_forward + 8 * shape.embedding) * 4
    return FitEstimate(
        weights_bytes=shape.weights_bytes * value_bytes // stored_bytes,
        kv_bytes=0 if embedding else states * slots,
        compute_bytes=PYTORCH_BYTES + activations + (0 if embedding else slots * shape.vocabulary * 4),
        prompt_cache_bytes=0,
    )
