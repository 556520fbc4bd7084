"""The adapter: one master copy, computed with in the base's precision, removable."""

from pathlib import Path

import pytest
import torch

from atoll.core.errors import Invalid
from atoll.training.engine.lora import Adapter, AdapterShape
from atoll.training.engine.model import Base, load_base

SHAPE = AdapterShape(4, 8.0, ("q_proj", "down_proj"))


def _logits(base: Base) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = base.causal(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return logits.float()


def _scramble(adapter: Adapter) -> None:
    with torch.no_grad():
        adapter.master.copy_(torch.randn(len(adapter.master), generator=torch.Generator().manual_seed(2)))
    adapter.publish()


def test_a_new_adapter_changes_nothing(base: Base) -> None:
    before = _logits(base)
    Adapter(base, SHAPE, seed=1)
    assert torch.equal(_logits(base), before)


def test_the_master_is_what_the_layers_compute_with_until_it_is_disabled(base: Base) -> None:
    before = _logits(base)
    adapter = Adapter(base, SHAPE, seed=1)
    _scramble(adapter)
    assert not torch.allclose(_logits(base), before, atol=0.1)
    with adapter.disabled():
        assert torch.equal(_logits(base), before)


def test_equal_seeds_begin_alike(tiny_folder: Path) -> None:
    first, second, other = (Adapter(load_base(tiny_folder, "float32"), SHAPE, seed) for seed in (1, 1, 2))
    assert torch.equal(first.master, second.master)
    assert not torch.equal(first.master, other.master)


def test_a_narrow_base_still_has_a_wide_master(tiny_folder: Path) -> None:
    base = load_base(tiny_folder, "bfloat16")
    adapter = Adapter(base, SHAPE, seed=1)
    assert adapter.master.dtype == torch.float32
    trained = [p for p in base.causal.parameters() if p.requires_grad]
    assert trained and all(p.dtype == torch.bfloat16 for p in trained)
    _scramble(adapter)
    name, matrix = next(iter(adapter.matrices().items()))
    assert not torch.equal(matrix, matrix.bfloat16().float()), name


def test_gradients_gather_over_several_passes(base: Base) -> None:
    adapter = Adapter(base, SHAPE, seed=1)
    for _ in range(2):
        base.causal(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
        adapter.gather_gradient()
    assert adapter.master.grad is not None
    twice = adapter.master.grad.clone()
    adapter.master.grad.zero_()
    base.causal(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    adapter.gather_gradient()
    assert torch.allclose(twice, 2 * adapter.master.grad)
    assert twice.abs().sum() > 0


def test_an_adapter_of_another_base_is_refused(base: Base) -> None:
    adapter = Adapter(base, SHAPE, seed=1)
    matrices = adapter.matrices()
    name = next(iter(matrices))
    with pytest.raises(Invalid, match="of another shape"):
        adapter.load(matrices | {name: torch.zeros(2, 2)})
    with pytest.raises(Invalid, match=f"lacks {name}"):
        adapter.load({n: m for n, m in matrices.items() if n != name})


def test_loading_takes_every_matrix(tiny_folder: Path, base: Base) -> None:
    adapter = Adapter(base, SHAPE, seed=1)
    _scramble(adapter)
    other_base = load_base(tiny_folder, "float32")
    other = Adapter(other_base, SHAPE, seed=9)
    other.load(adapter.matrices())
    assert torch.equal(_logits(other_base), _logits(base))
