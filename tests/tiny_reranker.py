"""A two-layer BERT with a head that ranks, as a GGUF file: random weights, one token a letter."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

import tiny_gguf

BLOCKS, EMBEDDING, FEED_FORWARD, HEADS, CONTEXT = 2, 32, 64, 2, 512
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_reranker(path: Path, *, seed: int = 0) -> Path:
    """Write the model to `path`."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    vocabulary = _add_tokenizer(writer)
    blocks = [f"blk.{block}." for block in range(BLOCKS)]
    sizes = {
        "token_embd": (vocabulary, EMBEDDING),
        "position_embd": (CONTEXT, EMBEDDING),
        "token_types": (2, EMBEDDING),
    }
    for name, shape in sizes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    square, up = (EMBEDDING, EMBEDDING), (FEED_FORWARD, EMBEDDING)
    linear = {f"{block}{name}": square for block in blocks for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    linear |= {f"{block}ffn_up": up for block in blocks} | {f"{block}ffn_down": up[::-1] for block in blocks}
    linear |= {"cls": square, "cls.output": (1, EMBEDDING)}
    norms = [f"{block}{name}" for block in blocks for name in ("attn_output_norm", "layer_output_norm")]
    for name, shape in linear.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))
    for name in ("token_embd_norm", *norms):
        writer.add_tensor(f"{name}.weight", np.ones(EMBEDDING, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(EMBEDDING, np.float32))
    return tiny_gguf.finished(writer, path)


def _add_tokenizer(writer: gguf.GGUFWriter) -> int:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *(f"\u2581{letter}" for letter in LETTERS), *LETTERS]
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    return len(tokens)
