"""Where a model comes from: the three kinds of source, and which of the files found there are the model.

Pure: names in, decisions out. It does not know how files are fetched (see `engine`), nor whether a source exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from atoll.core.errors import Invalid, NotFound
from atoll.core.origins import source as origins
from atoll.core.origins.source import Source, listed, matches, short_names

__all__ = ["Source", "choose", "parse", "short_names"]

FILES_MAX = 1000
PREDICTOR_MANIFEST = "atoll-predictor.yaml"
"""What makes a folder a predictor's; see serving/predictor.py."""

POOLING = "1_Pooling/config.json"
FOLDER_PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*.jinja",
)
"""What belongs to a safetensors model: weights, configuration, tokeniser, chat templates."""


def parse(text: str) -> Source:
    """The source `text` names; Invalid when it names none."""
    return origins.parse(text, "model source")


def choose(names: Iterable[str], patterns: Sequence[str] | None, source: str) -> list[str]:
    """The names among `names` that are the model, sorted.

    With patterns: what matches one of them, by path or by file name. Without: the whole folder of a predictor, else the
    one GGUF file, else a safetensors model. NotFound when nothing fits, Invalid when several GGUF files do: the caller
    must then say which.
    """
    present = sorted(set(names))
    if patterns:
        chosen = [name for name in present if matches(name, patterns)]
    elif predictor := _predictor_files(present):
        return _bounded(predictor, source)
    else:
        chosen = [name for name in present if name.lower().endswith(".gguf")] or _folder_files(present)
    if not chosen:
        wanted = ", ".join(patterns) if patterns else "*.gguf, *.safetensors"
        raise NotFound(f"{source} holds no file like {wanted}", hint=f"it holds: {listed(present)}")
    models = [name for name in chosen if name.lower().endswith(".gguf")]
    if len(models) > 1:
        raise Invalid(f"{source} holds {len(models)} GGUF files", field="files", hint=f"name one: {listed(models)}")
    return _bounded(chosen, source)


def _bounded(chosen: list[str], source: str) -> list[str]:
    if len(chosen) > FILES_MAX:
        raise Invalid(f"{source} holds {len(chosen)} files, the limit is {FILES_MAX}", field="files")
    return chosen


def _predictor_files(names: Sequence[str]) -> list[str]:
    """Everything in and below the folder that has a predictor's manifest; nothing when none or several have one."""
    folders = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == PREDICTOR_MANIFEST]
    return [n for n in names if folders[0] in PurePosixPath(n).parents] if len(folders) == 1 else []


def _folder_files(names: Sequence[str]) -> list[str]:
    """The files of the safetensors model: those beside the weights, and how sentence embeddings are pooled."""
    folders = {str(PurePosixPath(name).parent) for name in names if name.endswith(".safetensors")}
    if len(folders) > 1:
        raise Invalid(
            f"safetensors files lie in {len(folders)} folders",
            field="files",
            hint=f"name one: {listed(sorted(folders))}",
        )
    pooling = {str(PurePosixPath(folder) / POOLING) for folder in folders}
    beside = {n for n in names if str(PurePosixPath(n).parent) in folders and matches(n, FOLDER_PATTERNS)}
    return [n for n in names if n in beside or n in pooling]
