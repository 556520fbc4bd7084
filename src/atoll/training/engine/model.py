"""The base model in torch: loaded from the converter's folder, with an attention that suits processors.

The model is the one of transformers; only its attention is ours. Positions and masks come with each batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

ATTENTION = "atoll_grouped"


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model, frozen, and its tokenizer. `causal` is a transformers LlamaForCausalLM."""

    causal: Any
    tokenizer: Any
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.precision)


def dtype_of(precision: str) -> torch.dtype:
    """The torch type of a precision by its name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def fast_precision() -> str:
    """bfloat16 where the processor multiplies it natively, else float32."""
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if has_bfloat16 else "float32"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a converted model."""
    return AutoTokenizer.from_pretrained(folder)


def load_base(folder: Path, precision: str) -> Base:
    """The converted model in `folder`, in `precision`, without gradients."""
    AttentionInterface.register(ATTENTION, grouped_attention)
    causal = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype_of(precision), attn_implementation=ATTENTION)
    causal.config.use_cache = False
    causal.requires_grad_(False)
    causal.eval()
    return Base(causal, load_tokenizer(folder), precision)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with shared key and value heads as plain matrix products.

    query [batch, heads, length, width]; key, value [batch, groups, length, width]; mask [batch, 1, length, length] is
    added to the scores. Returns [batch, length, heads, width]. On processors this is faster, backward above all, than
    the fused kernels, and it keeps one copy of the weights instead of several.
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    rows = (query * scaling).reshape(batch, groups, heads // groups * length, width)
    scores = torch.matmul(rows, key.transpose(2, 3)).view(batch, groups, heads // groups, length, length)
    if mask is not None:
        scores = scores.add_(mask.unsqueeze(2))
    weights = torch.softmax(scores, -1).view(batch, groups, heads // groups * length, length)
    return torch.matmul(weights, value).view(batch, heads, length, width).transpose(1, 2), None
