"""An adapter as files: PEFT's safetensors, and the GGUF adapter llama.cpp applies; and back from GGUF.

llama.cpp keeps the rows of the query and key projections of llama models in another order (the two halves of each
head interleaved), so the B matrices of `q_proj` and `k_proj` are permuted alike. Names and metadata follow
llama.cpp's convert_lora_to_gguf. Nothing here knows how the adapter was trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_safetensors

from atoll.core.errors import Invalid
from atoll.core.files import disk_full_named, write_bytes
from atoll.training.engine.lora import PREFIX, AdapterShape

Matrix = NDArray[np.float32]

GGUF_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_TARGETS = {gguf_name: target for target, gguf_name in GGUF_NAMES.items()}
_PEFT_NAME = re.compile(
    re.escape(PREFIX)
    + r"model\.layers\.(?P<block>\d+)\.(?:self_attn|mlp)\.(?P<target>\w+)\.lora_(?P<side>[AB])\.weight"
)
_GGUF_NAME = re.compile(r"blk\.(?P<block>\d+)\.(?P<target>\w+)\.weight\.lora_(?P<side>[ab])")


@dataclass(frozen=True, slots=True)
class Heads:
    """How many query heads and key heads the base model has."""

    query: int
    key: int

    def of(self, target: str) -> int | None:
        """Heads of a projection whose rows llama.cpp reorders, None for the others."""
        return {"q_proj": self.query, "k_proj": self.key}.get(target)


def heads_of(config: Any) -> Heads:
    """The heads of a model by its transformers configuration."""
    return Heads(config.num_attention_heads, config.num_key_value_heads)


def interleave_halves(matrix: Matrix, heads: int) -> Matrix:
    """Rows [head, half, i] become [head, i, half]: transformers' order to llama.cpp's. matrix: [rows, columns]."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def part_halves(matrix: Matrix, heads: int) -> Matrix:
    """The inverse of `interleave_halves`."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(
    path: Path, matrices: Mapping[str, torch.Tensor], shape: AdapterShape, heads: Heads, *, half: bool = True
) -> None:
    """Write the adapter for llama.cpp to `path`, in float16 or float32. matrices: as `Adapter.matrices` names them."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, shape.alpha)
    for name, tensor in matrices.items():
        matrix = tensor.detach().float().numpy()
        found = _parsed(_PEFT_NAME, name)
        count = heads.of(found["target"])
        if count and found["side"] == "B":
            matrix = interleave_halves(matrix, count)
        gguf_name = f"blk.{found['block']}.{GGUF_NAMES[found['target']]}.weight.lora_{found['side'].lower()}"
        writer.add_tensor(gguf_name, np.ascontiguousarray(matrix, dtype=np.float16 if half else np.float32))
    with disk_full_named(path):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read_gguf(path: Path, heads: Heads) -> tuple[AdapterShape, dict[str, torch.Tensor]]:
    """The shape and the matrices (float32, by PEFT's names) of a LoRA adapter for llama.cpp; Invalid if it is none."""
    reader = gguf.GGUFReader(path)
    values = {key: field.contents() for key, field in reader.fields.items() if key.startswith(("general.", "adapter."))}
    kind, alpha = values.get(gguf.Keys.Adapter.TYPE), values.get(gguf.Keys.Adapter.LORA_ALPHA)
    if values.get("general.type") != "adapter" or kind != "lora" or not isinstance(alpha, float):
        raise Invalid(f"{path.name} is not a LoRA adapter", field="adapter", hint="give the adapter of a training run")
    matrices, targets, ranks = {}, set(), set()
    for tensor in reader.tensors:
        found = _parsed(_GGUF_NAME, tensor.name)
        target, side = _TARGETS[found["target"]], found["side"].upper()
        matrix = np.asarray(tensor.data, dtype=np.float32)
        ranks.add(matrix.shape[0 if side == "A" else 1])
        count = heads.of(target)
        if count and side == "B":
            matrix = part_halves(matrix, count)
        matrices[_peft_name(found["block"], target, side)] = torch.from_numpy(matrix.copy())
        targets.add(target)
    if len(ranks) != 1:
        raise Invalid(
            f"{path.name} has matrices of ranks {sorted(ranks)}", field="adapter", hint="one rank is expected"
        )
    return AdapterShape(ranks.pop(), alpha, tuple(sorted(targets))), matrices


def write_peft(path: Path, matrices: Mapping[str, torch.Tensor]) -> None:
    """Write the matrices as PEFT's adapter_model.safetensors."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in matrices.items()}
    # one key of metadata only: safetensors writes several in an order that changes from run to run
    write_bytes(path, save_safetensors(tensors, metadata={"format": "pt"}))


def _peft_name(block: str, target: str, side: str) -> str:
    part = "self_attn" if GGUF_NAMES[target].startswith("attn") else "mlp"
    return f"{PREFIX}model.layers.{block}.{part}.{target}.lora_{side}.weight"


def _parsed(pattern: re.Pattern[str], name: str) -> dict[str, str]:
    found = pattern.fullmatch(name)
    target = found["target"] if found else ""
    if found is None or target not in (_TARGETS if pattern is _GGUF_NAME else GGUF_NAMES):
        raise Invalid(
            f"tensor {name} belongs to no layer of a llama", field="adapter", hint="is it for another family?"
        )
    return found.groupdict()
