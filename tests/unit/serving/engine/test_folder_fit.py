"""Memory of a folder of safetensors, by its config.json."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.folder_fit import PYTORCH_BYTES, folder_memory

QWEN: dict[str, Any] = {
    "weights_bytes": 988_000_000,
    "type": "BF16",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
}


def test_keys_and_values_are_those_of_all_layers() -> None:
    one = folder_memory(QWEN, 0, 1024, 1, dtype="bfloat16")
    assert one.kv_bytes == 24 * 2 * (64 + 64) * 1024 * 2
    assert folder_memory(QWEN, 0, 1024, 4, dtype="bfloat16").kv_bytes == 4 * one.kv_bytes
    assert folder_memory(QWEN, 0, 1024, 4, embedding=True).kv_bytes == 0


def test_half_precision_is_twice_as_much_on_a_processor() -> None:
    assert folder_memory(QWEN, 0, 1, 1).weights_bytes == 2 * QWEN["weights_bytes"]
    assert folder_memory(QWEN, 0, 1, 1, dtype="auto").weights_bytes == QWEN["weights_bytes"]
    assert folder_memory(QWEN, 0, 1, 1).compute_bytes > PYTORCH_BYTES


def test_a_folder_without_a_shape_is_refused() -> None:
    with pytest.raises(Invalid, match="does not tell its shape"):
        folder_memory({"weights_bytes": 1}, 1, 1, 1)
