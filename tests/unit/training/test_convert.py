"""Conversion of a base model: refused by name or exact, once, and repaired when damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

import tiny_gguf
from atoll.core.blobs import digest_of_file
from atoll.core.errors import IntegrityError, Invalid
from atoll.training.engine.convert import check_base, converted, is_whole
from atoll.training.engine.model import load_base

DIGEST = "sha256:" + "1" * 64


def _renamed(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy of the file with one equally long text replaced where it first occurs."""
    assert len(old) == len(new)
    data = source.read_bytes()
    assert old in data
    target.write_bytes(data.replace(old, new, 1))
    return target


def test_the_converted_weights_are_those_of_the_file(tiny_model: Path, tiny_folder: Path) -> None:
    base = load_base(tiny_folder, "float32")
    tensors = {t.name: np.asarray(t.data) for t in gguf.GGUFReader(tiny_model).tensors}
    weights = {name: p.numpy() for name, p in base.causal.named_parameters()}
    assert np.array_equal(weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"])
    assert np.array_equal(weights["model.layers.1.self_attn.v_proj.weight"], tensors["blk.1.attn_v.weight"])
    assert np.array_equal(weights["lm_head.weight"], tensors["output.weight"])
    assert base.causal.config.num_key_value_heads == tiny_gguf.KV_HEADS
    assert base.tokenizer.chat_template == tiny_gguf.CHAT_TEMPLATE


def test_a_base_is_converted_once(tiny_model: Path, tiny_folder: Path) -> None:
    weights = tiny_folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = converted(tiny_model, "tiny.gguf", digest_of_file(tiny_model), tiny_folder.parent.parent)
    assert again == tiny_folder
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_damaged_entry_is_made_again(
    tiny_model: Path, tiny_folder: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = tmp_path / "bases" / tiny_folder.name
    shutil.copytree(tiny_folder, entry)
    data = bytearray((entry / file).read_bytes())
    data[len(data) // 2] ^= 1
    (entry / file).write_bytes(data)
    assert not is_whole(entry)
    assert converted(tiny_model, "tiny.gguf", digest_of_file(tiny_model), tmp_path) == entry
    assert is_whole(entry)
    assert (entry / "model.safetensors").read_bytes() == (tiny_folder / "model.safetensors").read_bytes()
    assert "damaged" in capsys.readouterr().err


def test_two_that_convert_at_once_agree_on_one_entry(tiny_model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from atoll.training.engine.convert import converted; "
        "print(converted(Path(sys.argv[1]), 't', sys.argv[2], Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, str(tiny_model), DIGEST, str(tmp_path)]
    two = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    found = {process.communicate(timeout=240)[0].strip() for process in two}
    assert [process.returncode for process in two] == [0, 0]
    (entry,) = (tmp_path / "bases").iterdir()
    assert found == {str(entry)}
    assert is_whole(entry)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"tokenizer.ggml.pre\x08\0\0\0\x05\0\0\0\0\0\0\0gpt-2", b"tokenizer.ggml.pre\x08\0\0\0\x05\0\0\0\0\0\0\0qwen2",
         "'qwen2'"),
        (b"gpt2", b"bert", "'bert'"),
        (b"blk.0.ffn_up.weight", b"blk.0.ffn_up.strang", "blk.0.ffn_up.strang"),
    ],
    ids=["splitter", "vocabulary", "tensor"],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(
    tiny_model: Path, tmp_path: Path, old: bytes, new: bytes, named: str
) -> None:
    path = _renamed(tiny_model, tmp_path / "other.gguf", old, new)
    with pytest.raises(Invalid, match=named) as refusal:
        check_base(path, "other.gguf")
    assert refusal.value.field == "base"
    assert "other.gguf" in refusal.value.message


def test_another_architecture_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "falcon.gguf"
    writer = gguf.GGUFWriter(path, "falcon")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    tiny_gguf.finished(writer, path)
    with pytest.raises(Invalid, match="'falcon'"):
        converted(path, "falcon.gguf", DIGEST, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_base_without_chat_template_is_refused(tmp_path: Path) -> None:
    path = tiny_gguf.write_model(tmp_path / "plain.gguf", template=None)
    with pytest.raises(Invalid, match=r"plain\.gguf has no chat template"):
        check_base(path, "plain.gguf")


def test_a_truncated_file_is_called_so(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:5000])
    with pytest.raises(IntegrityError, match="truncated"):
        check_base(path, "cut.gguf")
