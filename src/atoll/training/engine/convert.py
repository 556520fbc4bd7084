"""A GGUF base model as a torch model: converted once, kept in the node's cache, verified whenever it is used.

Only what is known to convert exactly is accepted: the llama family with a byte-level BPE vocabulary; anything else is
refused by name from the header alone, before any work. The numbers are those of the file, quantisation undone.
A cache entry is a folder named by the file's digest and the converter's version; damage is found by checksum and the
entry made again, and of two processes that make the same entry one wins. A process loads one model at a time:
transformers switches the tying of weights off while it loads, for the whole process, and of two loads side by side the
later one may leave it off.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from atoll.core.blobs import digest_of_file
from atoll.core.errors import Invalid
from atoll.core.files import disk_full_named, read_json, sync, write_json
from atoll.models.gguf import Header, read_header

CONVERTER_VERSION = 1
MANIFEST = "manifest.json"
ARCHITECTURES = ("llama",)
VOCABULARIES = ("gpt2",)
SPLITTERS = ("gpt-2", "smollm")
"""Values of tokenizer.ggml.pre whose splitting transformers and llama.cpp agree on."""

_TENSORS = re.compile(
    r"token_embd\.weight|output_norm\.weight|output\.weight"
    r"|blk\.\d+\.(attn_norm|attn_q|attn_k|attn_v|attn_output|ffn_norm|ffn_gate|ffn_up|ffn_down)\.weight"
)


def check_base(path: Path, name: str) -> Header:
    """The header of the model at `path`; Invalid says what this engine cannot train, `name` being the file's name."""
    header = read_header(path)
    _check_value(header, name, "general.architecture", ARCHITECTURES)
    _check_value(header, name, "tokenizer.ggml.model", VOCABULARIES)
    _check_value(header, name, "tokenizer.ggml.pre", SPLITTERS)
    if "tokenizer.chat_template" not in header.values:
        hint = "take the instruct variant of the model"
        raise Invalid(f"{name} has no chat template, so questions cannot be put to it", field="base", hint=hint)
    strange = next((t.name for t in header.tensors if not _TENSORS.fullmatch(t.name)), None)
    if strange:
        raise Invalid(f"{name} has a tensor {strange}, which a plain llama has not", field="base", hint=_way_out())
    return header


def converted(source: Path, name: str, digest: str, cache: Path) -> Path:
    """The folder with the torch form (safetensors, configuration, tokenizer) of the GGUF file at `source`.

    Raises Invalid when it cannot be converted, ResourceExhausted when the cache has no room.
    """
    check_base(source, name)
    folder = cache / "bases" / f"{digest.removeprefix('sha256:')}-{CONVERTER_VERSION}"
    if folder.exists() and not is_whole(folder):
        sys.stderr.write(f"cached base model {folder} is damaged; converting again\n")
        shutil.rmtree(folder)
    if not folder.exists():
        _make(source, name, folder)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether every file of the entry is there with its checksum."""
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if manifest else None
    if not isinstance(files, dict) or not files:
        return False
    return all((folder / file).is_file() and digest_of_file(folder / file) == d for file, d in files.items())


def _make(source: Path, name: str, folder: Path) -> None:
    with disk_full_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
        try:
            _convert(source, name, made)
            files = {path.name: digest_of_file(path) for path in sorted(made.iterdir())}
            write_json(made / MANIFEST, {"converter": CONVERTER_VERSION, "source": name, "files": files})
            _publish(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _publish(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not is_whole(folder):  # else another process was faster with the same entry
            raise
    sync(folder.parent)


def _convert(source: Path, name: str, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model, loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise Invalid(f"{name} cannot be converted: {error}", field="base", hint=_way_out()) from error
    if loaded["missing_keys"]:  # transformers would fill them with random numbers
        missing = ", ".join(sorted(loaded["missing_keys"])[:5])
        raise Invalid(f"{name} cannot be converted: it has no weights for {missing}", field="base", hint=_way_out())
    # transformers keeps a model loaded from GGUF marked as quantised and then refuses to save it
    model.hf_quantizer = None
    model._weight_conversions = None
    model.is_quantized = False
    del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _check_value(header: Header, name: str, key: str, accepted: tuple[str, ...]) -> None:
    found = header.values.get(key)
    if found not in accepted:
        what = f"{name}: {key} is {found!r}, which cannot be trained here"
        raise Invalid(what, field="base", hint=f"accepted: {', '.join(accepted)}; {_way_out()}", key=key)


def _way_out() -> str:
    return "take a base model of the llama family such as SmolLM2"
