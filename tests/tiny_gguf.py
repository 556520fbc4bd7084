"""A two-layer llama with a byte-level tokeniser as a GGUF file: random weights, small, and real enough to be served.

It goes on as long as it may: nothing but a limit or a grammar ends its texts, so that tests can count.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

ENDS = 3
"""Control tokens behind all others; those that end a text are among them."""

BLOCKS, EMBEDDING, FEED_FORWARD, HEADS, KV_HEADS, CONTEXT = 2, 64, 128, 4, 2, 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_letters() -> list[str]:
    """The printable letter each of the 256 bytes has in byte-level BPE."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def write_model(
    path: Path,
    *,
    template: str | None = CHAT_TEMPLATE,
    seed: int = 0,
    context: int = CONTEXT,
    special: tuple[str, ...] = (),
) -> Path:
    """Write the model to `path`; its vocabulary has the control tokens `special` beside those of its own."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_name("tiny")
    writer.add_license("MIT")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(context)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = _add_tokenizer(writer, template, special)
    for name, values in _tensors(len(tokens), np.random.default_rng(seed)):
        writer.add_tensor(name, values)
    return finished(writer, path)


def write_adapter(path: Path, *, architecture: str = "llama", rank: int = 2, seed: int = 1) -> Path:
    """Write a LoRA adapter for the model to `path`."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for block in range(BLOCKS):
        name = f"blk.{block}.attn_q.weight"
        writer.add_tensor(f"{name}.lora_a", random.normal(size=(rank, EMBEDDING)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random.normal(size=(EMBEDDING, rank)).astype(np.float32))
    return finished(writer, path)


def finished(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, template: str | None, more: tuple[str, ...]) -> list[str]:
    letters = byte_letters()
    merges = ["t h", "th e", "i n", "a n"]
    special = [*more, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), *special]
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(special)) + [gguf.TokenType.CONTROL] * len(special)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    return tokens


def _tensors(vocabulary: int, random: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    def weights(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * 0.02).astype(np.float32)

    kv = EMBEDDING // HEADS * KV_HEADS
    tensors = [("token_embd.weight", weights(vocabulary, EMBEDDING)), ("output.weight", weights(vocabulary, EMBEDDING))]
    tensors[1][1][-ENDS:] = 0  # never among the 40 likeliest, of which the next token is drawn
    tensors.append(("output_norm.weight", np.ones(EMBEDDING, np.float32)))
    for block in range(BLOCKS):
        sized = {"attn_q": (EMBEDDING, EMBEDDING), "attn_k": (kv, EMBEDDING), "attn_v": (kv, EMBEDDING)}
        sized |= {"attn_output": (EMBEDDING, EMBEDDING), "ffn_gate": (FEED_FORWARD, EMBEDDING)}
        sized |= {"ffn_up": (FEED_FORWARD, EMBEDDING), "ffn_down": (EMBEDDING, FEED_FORWARD)}
        tensors += [(f"blk.{block}.{name}.weight", weights(*shape)) for name, shape in sized.items()]
        tensors += [
            (f"blk.{block}.{name}.weight", np.ones(EMBEDDING, np.float32)) for name in ("attn_norm", "ffn_norm")
        ]
    return tensors
