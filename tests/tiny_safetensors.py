"""A two-layer llama with a byte-level tokeniser as a folder of safetensors: random weights, small, and real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

import tiny_gguf

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EMBEDDING, BLOCKS, CONTEXT = 64, 2, 4096


def write_model(folder: Path, *, template: str | None = tiny_gguf.CHAT_TEMPLATE, **config: Any) -> Path:
    """Write a causal model and its tokeniser to `folder`."""
    _seeded(LlamaForCausalLM, config).save_pretrained(folder)
    return _with_tokenizer(folder, template)


def write_encoder(folder: Path, *, pooling: str | None = None, **config: Any) -> Path:
    """Write a model without a head, and how sentence-transformers would pool it."""
    _seeded(LlamaModel, config).save_pretrained(folder)
    if pooling is not None:
        modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "lasttoken")}
        modules = [
            {"idx": 0, "path": "", "type": "x.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "x.Pooling"},
        ]
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
        (folder / "modules.json").write_text(json.dumps(modules))
    return _with_tokenizer(folder, None)


def tokenizer() -> Tokenizer:
    """Bytes, four merges and three special tokens."""
    letters = tiny_gguf.byte_letters()
    merges = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(merge) for merge in merges)])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return made


def _seeded(kind: type[Any], config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": EMBEDDING, "intermediate_size": 128, "num_hidden_layers": BLOCKS}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 263}
    ends = {"bos_token_id": 260, "eos_token_id": 262, "max_position_embeddings": CONTEXT}
    return kind(LlamaConfig(**(sizes | heads | ends | {"initializer_range": 0.3} | config)))


def _with_tokenizer(folder: Path, template: str | None) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token=SPECIAL[0], eos_token=SPECIAL[2])
    if template is not None:
        fast.chat_template = template
    fast.save_pretrained(folder)
    return folder
