"""Facts of a model from its header, for the library and for the estimate of memory."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny_gguf
from atoll.core.errors import IntegrityError, Invalid
from atoll.models.formats import FILE_TYPES, ModelShape, read_gguf, read_safetensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_gguf.write_model(tmp_path / "tiny.gguf")


def _llama(path: Path, **numbers: int) -> Path:
    """A GGUF with one tensor and the given `llama.*` numbers."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in numbers.items():
        writer.add_uint32(f"llama.{key.replace('__', '.')}", value)
    writer.add_tensor("x", np.zeros((4, 32), np.float16))
    return tiny_gguf.finished(writer, path)


def _folder(folder: Path, **config: object) -> Path:
    folder.mkdir()
    save_file({"a": np.zeros((4, 8), np.float16), "b": np.zeros(3, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512} | config)
    )
    return folder


def test_a_gguf_model_tells_its_facts(model: Path) -> None:
    facts = read_gguf(model)
    assert (facts.kind, facts.format, facts.architecture) == ("model", "gguf", "llama")
    assert (facts.context_length, facts.quantization, facts.licence) == (tiny_gguf.CONTEXT, "F32", "MIT")
    assert facts.parameters == sum(int(t.n_elements) for t in gguf.GGUFReader(model).tensors)
    assert facts.chat_templates == (tiny_gguf.CHAT_TEMPLATE,)
    assert "tokenizer.ggml.tokens" not in facts.metadata


def test_the_shape_holds_what_memory_depends_on(model: Path) -> None:
    shape = read_gguf(model).shape
    assert shape is not None
    assert (shape.blocks, shape.embedding, shape.feed_forward) == (2, 64, 128)
    assert (shape.kv_heads, shape.key_length, shape.value_length) == (4, 16, 16)
    assert shape.vocabulary == 263
    assert shape.weights_bytes == sum(int(t.n_bytes) for t in gguf.GGUFReader(model).tensors)


def test_the_shape_survives_the_metadata_of_a_version(model: Path) -> None:
    facts = read_gguf(model)
    assert ModelShape.from_metadata(json.loads(json.dumps(facts.metadata))) == facts.shape
    with pytest.raises(Invalid, match="import the model again"):
        ModelShape.from_metadata({"shape": {"blocks": 1}})


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    facts = read_gguf(tiny_gguf.write_adapter(tmp_path / "adapter.gguf"))
    assert (facts.kind, facts.shape, facts.context_length) == ("adapter", None, 0)


def test_heads_may_differ_from_block_to_block(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(3)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_head_count([4, 4, 4])
    writer.add_head_count_kv([2, 0, 2])
    writer.add_tensor("x", np.zeros((4, 32), np.float16))
    shape = read_gguf(tiny_gguf.finished(writer, tmp_path / "m.gguf")).shape
    assert shape is not None and shape.kv_heads == 4


@pytest.mark.parametrize("missing", ["block_count", "context_length", "embedding_length", "attention__head_count"])
def test_a_model_without_a_needed_number_is_refused_by_its_key(tmp_path: Path, missing: str) -> None:
    numbers = {"block_count": 1, "context_length": 1, "embedding_length": 4, "attention__head_count": 1}
    del numbers[missing]
    with pytest.raises(Invalid, match="is missing") as caught:
        read_gguf(_llama(tmp_path / "m.gguf", **numbers))
    assert caught.value.field == f"llama.{missing.replace('__', '.')}"


@pytest.mark.parametrize(
    ("key", "value"), [("block_count", 0), ("block_count", 1 << 30), ("embedding_length", (1 << 32) - 1)]
)
def test_a_number_out_of_range_is_refused(tmp_path: Path, key: str, value: int) -> None:
    numbers = {"block_count": 1, "context_length": 1, "embedding_length": 4, "attention__head_count": 1} | {key: value}
    with pytest.raises(Invalid):
        read_gguf(_llama(tmp_path / "m.gguf", **numbers))


def test_one_part_of_a_split_model_is_refused_with_the_way_to_join_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("x", np.zeros((4, 32), np.float16))
    with pytest.raises(Invalid, match="--merge"):
        read_gguf(tiny_gguf.finished(writer, tmp_path / "m.gguf"))


def test_quantisation_is_the_commonest_type_where_the_file_does_not_say(tmp_path: Path) -> None:
    numbers = {"block_count": 1, "context_length": 1, "embedding_length": 4, "attention__head_count": 1}
    assert read_gguf(_llama(tmp_path / "m.gguf", **numbers)).quantization == "F16"


def test_the_names_of_file_types_are_the_reference_ones() -> None:
    reference = {int(t): t.name.removeprefix("ALL_").removeprefix("MOSTLY_") for t in gguf.LlamaFileType}
    assert {k: v for k, v in reference.items() if k in FILE_TYPES} == FILE_TYPES


def test_a_safetensors_folder_tells_its_facts(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    facts = read_safetensors(folder)
    assert (facts.format, facts.architecture, facts.context_length) == ("safetensors", "LlamaForCausalLM", 512)
    assert (facts.parameters, facts.quantization) == (35, "F16")
    assert facts.chat_templates == ("{{ messages }}", "{{ 1 }}")


def test_a_quantised_safetensors_folder_names_its_method(tmp_path: Path) -> None:
    facts = read_safetensors(_folder(tmp_path / "m", quantization_config={"quant_method": "gptq"}))
    assert facts.quantization == "gptq"


@pytest.mark.parametrize(
    ("text", "error"), [("{", IntegrityError), ("[]", Invalid), ("{}", Invalid), ('{"architectures": [1]}', Invalid)]
)
def test_a_bad_configuration_is_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    folder = _folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    with pytest.raises(error, match=r"config\.json"):
        read_safetensors(folder)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "m")
    (folder / "config.json").unlink()
    with pytest.raises(Invalid, match=r"config\.json is missing"):
        read_safetensors(folder)
