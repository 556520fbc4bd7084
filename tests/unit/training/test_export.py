"""An adapter survives the way to llama.cpp's file and back, and its files are what others read."""

from pathlib import Path

import gguf
import numpy as np
import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors import safe_open

import tiny_gguf
from atoll.core.errors import Invalid
from atoll.models import formats
from atoll.training.engine.export import (
    Heads,
    heads_of,
    interleave_halves,
    part_halves,
    read_gguf,
    write_gguf,
    write_peft,
)
from atoll.training.engine.lora import Adapter, AdapterShape, peft_config
from atoll.training.engine.model import Base
from atoll.training.recipes import TARGETS

SHAPE = AdapterShape(4, 12.0, TARGETS)


@pytest.fixture
def adapter(base: Base) -> Adapter:
    adapter = Adapter(base, SHAPE, seed=1)
    with torch.no_grad():
        adapter.master.copy_(torch.randn(len(adapter.master), generator=torch.Generator().manual_seed(2)))
    return adapter


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
def test_parting_undoes_interleaving(heads: int, half: int, columns: int) -> None:
    matrix = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(-1, columns)
    assert np.array_equal(part_halves(interleave_halves(matrix, heads), heads), matrix)


def test_the_rows_of_a_head_are_interleaved_as_llamacpp_has_them() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert interleave_halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_an_adapter_comes_back_from_gguf_as_it_was(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    path, heads = tmp_path / "adapter.gguf", heads_of(base.causal.config)
    write_gguf(path, adapter.matrices(), SHAPE, heads, half=False)
    shape, matrices = read_gguf(path, heads)
    assert (shape.rank, shape.alpha, set(shape.targets)) == (4, 12.0, set(TARGETS))
    assert matrices.keys() == adapter.matrices().keys()
    assert all(torch.equal(matrices[name], matrix) for name, matrix in adapter.matrices().items())


def test_float16_halves_the_file_and_rounds(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    path, heads = tmp_path / "adapter.gguf", heads_of(base.causal.config)
    write_gguf(path, adapter.matrices(), SHAPE, heads)
    _, matrices = read_gguf(path, heads)
    assert path.stat().st_size < 0.75 * 4 * len(adapter.master)
    assert all(torch.equal(matrices[n], m.half().float()) for n, m in adapter.matrices().items())


def test_equal_adapters_are_equal_bytes(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, adapter.matrices(), SHAPE, heads_of(base.causal.config))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_the_library_knows_it_for_an_adapter(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    write_gguf(path, adapter.matrices(), SHAPE, heads_of(base.causal.config))
    facts = formats.read_gguf(path, path.name)
    assert (facts.kind, facts.architecture, facts.parameters) == ("adapter", "llama", len(adapter.master))
    assert facts.metadata["adapter.lora.alpha"] == 12.0


def test_peft_reads_its_configuration_and_its_tensors(adapter: Adapter, tmp_path: Path) -> None:
    config = peft_config(adapter)
    (tmp_path / "adapter_config.json").write_bytes(orjson.dumps(config))
    write_peft(tmp_path / "adapter_model.safetensors", adapter.matrices())
    read = LoraConfig.from_pretrained(str(tmp_path))
    assert (read.r, read.lora_alpha, set(read.target_modules)) == (4, 12.0, set(TARGETS))
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert set(file.keys()) == set(adapter.matrices())


def test_a_model_is_not_an_adapter(tiny_model: Path) -> None:
    with pytest.raises(Invalid, match="is not a LoRA adapter"):
        read_gguf(tiny_model, Heads(4, 2))


def test_an_adapter_of_layers_no_llama_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_tensor("blk.0.ssm_in.weight.lora_a", np.zeros((2, 8), np.float32))
    tiny_gguf.finished(writer, path)
    with pytest.raises(Invalid, match="ssm_in"):
        read_gguf(path, Heads(4, 2))
