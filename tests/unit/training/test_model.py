"""Our attention is the attention of transformers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from atoll.training.engine.model import fast_precision, grouped_attention, load_base


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (3, 1)])
def test_grouped_attention_equals_the_plain_formula(heads: int, groups: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, heads, 5, 8)
    key, value = torch.randn(2, groups, 5, 8), torch.randn(2, groups, 5, 8)
    mask = torch.full((2, 1, 5, 5), -1e9).triu(1)
    found, _ = grouped_attention(SimpleNamespace(), query, key, value, mask, scaling=0.3)  # type: ignore[arg-type]
    wide_key, wide_value = (x.repeat_interleave(heads // groups, 1) for x in (key, value))
    weights = torch.softmax(query @ wide_key.transpose(2, 3) * 0.3 + mask, -1)
    assert torch.allclose(found, (weights @ wide_value).transpose(1, 2), atol=1e-5)


def test_the_model_computes_as_transformers_own(tiny_folder: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager")
    ours = load_base(tiny_folder, "float32").causal
    mask = torch.full((5, 5), torch.finfo(torch.float32).min).triu(1)[None, None]
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=ids, attention_mask=mask).logits, plain(input_ids=ids).logits, atol=1e-4)


def test_the_base_is_frozen(tiny_folder: Path) -> None:
    assert not any(p.requires_grad for p in load_base(tiny_folder, "float32").causal.parameters())


def test_the_fast_precision_is_one_there_is() -> None:
    assert fast_precision() in ("float32", "bfloat16")
