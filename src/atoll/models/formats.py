"""What a model file says of itself: facts from GGUF and safetensors headers, for the library and the fit estimate.

Reads headers only, never a tensor; everything is bounded and checked (see `gguf`). Anything wrong with a file is
Invalid or IntegrityError. The facts are the file's own claims: it does not know whether they are true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from atoll.core.errors import IntegrityError, Invalid
from atoll.models.gguf import ArrayValue, Header, Value, read_header
from atoll.models.safetensors import read_folder_header

FIELD_MAX = (1 << 31) - 1
BLOCKS_MAX = 1 << 14
METADATA_TEXT_MAX = 256
METADATA_KEYS_MAX = 512
CONFIG_BYTES_MAX = 4 << 20

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
"""general.file_type -> the name people know (llama.h, enum llama_ftype)."""

_ENCODERS = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert"}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers memory depends on. `kv_heads` is the sum over all blocks; lengths are of one head."""

    weights_bytes: int
    blocks: int
    embedding: int
    feed_forward: int
    kv_heads: int
    key_length: int
    value_length: int
    vocabulary: int
    is_encoder: bool = False

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> ModelShape:
        """The shape kept in a model version's metadata under "shape"; Invalid when it is not there."""
        kept = metadata.get("shape")
        names = {field.name for field in fields(cls)}
        if not isinstance(kept, Mapping) or not names - {"is_encoder"} <= kept.keys():
            raise Invalid("the metadata holds no model shape", field="metadata.shape", hint="import the model again")
        return cls(**{name: kept[name] for name in names if name in kept})


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the library records of a model or, by its `kind`, an adapter; `chat_templates` are the texts themselves."""

    kind: str
    format: str
    architecture: str
    parameters: int
    context_length: int
    quantization: str | None
    licence: str | None
    chat_templates: tuple[str, ...]
    metadata: dict[str, Any]
    shape: ModelShape | None


def predictor_facts(size_bytes: int) -> ModelFacts:
    """The facts of a predictor's folder, which says nothing of its inside: it is code and data of the user's own."""
    return ModelFacts(
        kind="model",
        format="predictor",
        architecture="predictor",
        parameters=0,
        context_length=0,
        quantization=None,
        licence=None,
        chat_templates=(),
        metadata={"size_bytes": size_bytes},
        shape=None,
    )


def read_gguf(path: Path, name: str = "") -> ModelFacts:
    """The facts of the GGUF model or adapter at `path`, called `name` in errors.

    Raises IntegrityError when it is truncated, Invalid when its header is wrong or lacks what a model must say.
    """
    claims = _Claims(name or path.name, read_header(path, name))
    kind = claims.kind()
    return ModelFacts(
        kind=kind,
        format="gguf",
        architecture=claims.architecture,
        parameters=sum(tensor.elements for tensor in claims.header.tensors),
        context_length=claims.number("context_length") if kind == "model" else 0,
        quantization=claims.quantization(),
        licence=claims.text("general.license"),
        chat_templates=claims.chat_templates(),
        metadata=claims.metadata(),
        shape=claims.shape() if kind == "model" else None,
    )


def read_safetensors(folder: Path) -> ModelFacts:
    """The facts of a folder with config.json and *.safetensors.

    Raises IntegrityError when a file is truncated, Invalid when a header or the configuration is wrong.
    """
    config = _json_object(folder / "config.json")
    weights = read_folder_header(folder)
    tokenizer = _json_object(folder / "tokenizer_config.json", required=False)
    quantised = config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    return ModelFacts(
        kind="adapter" if (folder / "adapter_config.json").exists() else "model",
        format="safetensors",
        architecture=_architecture(config),
        parameters=weights.elements,
        context_length=_config_number(config, "max_position_embeddings"),
        quantization=str(method) if method else weights.type_name,
        licence=None,
        chat_templates=_folder_templates(folder, tokenizer),
        metadata={"tensors": weights.tensors, "weights_bytes": weights.size_bytes, "type": weights.type_name}
        | {k: v for k, v in config.items() if isinstance(v, int | float | bool)},
        shape=None,
    )


class _Claims:
    """The key-values of one GGUF header, read with checks; errors name the file and the key."""

    def __init__(self, file_name: str, header: Header) -> None:
        self.header = header
        self._file_name = file_name
        architecture = self.text("general.architecture")
        if not architecture or len(architecture) > 64:
            raise self._invalid("general.architecture", f"is {architecture!r}")
        self.architecture: str = architecture

    def kind(self) -> str:
        """ "model" or "adapter"; what is neither, or only a part of one, is refused."""
        kind = self.text("general.type") or "model"
        if kind not in ("model", "adapter"):
            raise self._invalid("general.type", f"is {kind!r}, not a model or an adapter")
        if not self.header.tensors:
            raise self._invalid("tensor_count", "is 0: a vocabulary without weights")
        parts = self.header.values.get("split.count", 1)
        if parts not in (0, 1):
            raise self._invalid(
                "split.count", f"is {parts}: one part of several", "join them: llama-gguf-split --merge"
            )
        return kind

    def text(self, key: str) -> str | None:
        """A string, or None when the key is absent."""
        value = self.header.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._invalid(key, f"is {value!r}, not a string")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        """A positive integer under the architecture's prefix; the largest where it differs by block."""
        numbers = self.numbers(key, default)
        return max(numbers)

    def numbers(self, key: str, default: int | None = None) -> tuple[int, ...]:
        """One positive integer, or one a block (0 allowed there: blocks without attention)."""
        full = f"{self.architecture}.{key}"
        value = self.header.values.get(full, default)
        if value is None:
            raise self._invalid(full, "is missing")
        items = value.items if isinstance(value, ArrayValue) else (value,)
        numbers = tuple(item for item in items or () if isinstance(item, int) and not isinstance(item, bool))
        if not numbers or len(numbers) != len(items or ()) or not 0 < max(numbers) <= FIELD_MAX or min(numbers) < 0:
            raise self._invalid(full, f"is {_shown(value)}, not a number from 1 to {FIELD_MAX}")
        return numbers

    def shape(self) -> ModelShape:
        """The numbers memory depends on."""
        blocks = self.number("block_count")
        embedding, heads = self.number("embedding_length"), self.number("attention.head_count")
        if blocks > BLOCKS_MAX or heads > embedding:
            raise self._invalid("attention.head_count", f"{heads} heads of {embedding} in {blocks} blocks")
        kv_heads = self.numbers("attention.head_count_kv", heads)
        head_length = embedding // heads
        return ModelShape(
            weights_bytes=sum(tensor.size_bytes for tensor in self.header.tensors),
            blocks=blocks,
            embedding=embedding,
            feed_forward=self.number("feed_forward_length", 4 * embedding),
            kv_heads=sum(kv_heads) if len(kv_heads) > 1 else kv_heads[0] * blocks,
            key_length=self.number("attention.key_length", head_length),
            value_length=self.number("attention.value_length", head_length),
            vocabulary=self._vocabulary(),
            is_encoder=self._is_encoder(),
        )

    def _vocabulary(self) -> int:
        tokens = self.header.values.get("tokenizer.ggml.tokens")
        return tokens.length if isinstance(tokens, ArrayValue) else self.number("vocab_size", 1)

    def _is_encoder(self) -> bool:
        is_causal = self.header.values.get(f"{self.architecture}.attention.causal")
        return is_causal is False or self.architecture in _ENCODERS

    def quantization(self) -> str | None:
        """The file type's name, else the tensor type most bytes are in."""
        number = self.header.values.get("general.file_type")
        if isinstance(number, int) and (name := FILE_TYPES.get(number)):
            return name
        shares: dict[str, int] = {}
        for tensor in self.header.tensors:
            shares[tensor.type_name] = shares.get(tensor.type_name, 0) + tensor.size_bytes
        return max(shares, key=lambda name: shares[name])

    def chat_templates(self) -> tuple[str, ...]:
        """Every chat template: the default and the named ones."""
        key = "tokenizer.chat_template"
        keys = (k for k in self.header.values if k == key or k.startswith(key + "."))
        return tuple(text for k in keys if (text := self.text(k)))

    def metadata(self) -> dict[str, Any]:
        """Small values by their own keys, without the tokenizer's tables, and the shape."""
        small = dict(islice(((k, v) for k, v in self.header.values.items() if _is_small(v)), METADATA_KEYS_MAX))
        shape = {"shape": asdict(self.shape())} if self.kind() == "model" else {}
        return small | {"tensors": len(self.header.tensors), "gguf_version": self.header.version} | shape

    def _invalid(self, key: str, what: str, hint: str = "convert the model again") -> Invalid:
        return Invalid(f"{self._file_name}: {key} {what}", field=key, hint=hint)


def _is_small(value: Value) -> bool:
    return not isinstance(value, ArrayValue) and not (isinstance(value, str) and len(value) > METADATA_TEXT_MAX)


def _shown(value: object) -> str:
    return f"an array of {value.length}" if isinstance(value, ArrayValue) else repr(value)


def _json_object(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not path.exists():
        if required:
            raise Invalid(f"{path.name} is missing beside the safetensors files", field=path.name, hint="import it too")
        return {}
    try:
        value = orjson.loads(_small_bytes(path))
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"{path.name} is not JSON: {error}", hint="fetch it again", field=path.name) from error
    if not isinstance(value, dict):
        raise Invalid(f"{path.name} is not a JSON object", field=path.name)
    return value


def _small_bytes(path: Path) -> bytes:
    size_bytes = path.stat().st_size
    if size_bytes > CONFIG_BYTES_MAX:
        raise Invalid(f"{path.name} has {size_bytes} bytes, the limit is {CONFIG_BYTES_MAX}", field=path.name)
    return path.read_bytes()


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else config.get("model_type")
    if not isinstance(first, str) or not first:
        raise Invalid("config.json names no architecture", field="config.json.architectures")
    return first


def _config_number(config: Mapping[str, Any], key: str) -> int:
    nested = config.get("text_config")
    value = config.get(key) or (nested.get(key) if isinstance(nested, dict) else None) or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= FIELD_MAX:
        raise Invalid(f"config.json: {key} is {value!r}", field=f"config.json.{key}")
    return value


def _folder_templates(folder: Path, tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    named = tokenizer.get("chat_template")
    texts = [named] if isinstance(named, str) else []
    if isinstance(named, list):
        named = [item.get("template") for item in named if isinstance(item, dict)]
        texts += [text for text in named if isinstance(text, str)]
    for path in sorted(folder.glob("chat_template*.jinja")):
        texts.append(_small_bytes(path).decode(errors="replace"))
    return tuple(texts)
