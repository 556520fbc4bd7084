"""Tokenizers: texts to token numbers, by a `tokenizer.json` of Hugging Face or by plain bytes.

A text is encoded as it is: no special tokens are put around it, and what looks like one inside a text is taken
literally where the tokenizer can. The token that ends a text is the one the tokenizer's folder names. Models that
keep their vocabulary elsewhere (GGUF, SentencePiece) are not read here.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid, Unavailable
from atoll.data.engine.scan import utf8_of

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

BYTES = "bytes"
FILE = "tokenizer.json"
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "[SEP]")
"""What ends a text when the folder does not say, the first there is."""


class Tokenizer(Protocol):
    """`size` is one more than the greatest token; `end` is the token that ends a text."""

    size: int
    end: int

    def encode(self, texts: pa.StringArray) -> tuple[I32, I64]:
        """The tokens of all texts one after the other, and how many each has (n,); no ends are added."""


class Bytes:
    """Every byte of UTF-8 is a token; 256 ends a text."""

    size, end = 257, 256

    def encode(self, texts: pa.StringArray) -> tuple[I32, I64]:
        data, starts = utf8_of(texts)
        return data.astype(np.int32), np.diff(starts)


class Pieces:
    """The tokenizer of the file `path`."""

    def __init__(self, path: Path) -> None:
        self._inner = _loaded(path)
        self.size = max(self._inner.get_vocab(with_added_tokens=True).values(), default=0) + 1
        self.end = _end_of(self._inner, path)

    def encode(self, texts: pa.StringArray) -> tuple[I32, I64]:
        encoded = self._inner.encode_batch_fast(texts.to_pylist(), add_special_tokens=False)
        parts = [np.array(item.ids, np.int32) for item in encoded]
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        return np.concatenate([np.empty(0, np.int32), *parts]), sizes


@lru_cache(maxsize=4)
def tokenizer_of(reference: str) -> Tokenizer:
    """The tokenizer in the folder or file `reference`, or `bytes`; Invalid says what is missing."""
    path = check_tokenizer(reference)
    return Bytes() if path is None else Pieces(path)


def check_tokenizer(reference: str) -> Path | None:
    """The file of a tokenizer, None for `bytes`; Invalid when there is none. The file is not opened."""
    if reference == BYTES:
        return None
    path = Path(reference)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        hint = f"a folder that holds {FILE}, or `bytes`; a model of the library is recipe.pack.model"
        raise Invalid(f"there is no tokenizer {reference!r}", field="recipe.pack.tokenizer", hint=hint)
    return path


def _loaded(path: Path) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers share the cores already
    try:
        from tokenizers import Tokenizer as Loaded
    except ImportError as error:
        raise Unavailable("the package tokenizers is not installed", hint="pip install atoll[data]") from error
    try:
        inner = Loaded.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise Invalid(f"{path} is not a tokenizer: {error}", field="recipe.pack.tokenizer") from error
    inner.no_padding()
    inner.no_truncation()
    return inner


def _end_of(inner: Any, path: Path) -> int:
    named = [_named_end(path.with_name(name)) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    for name in (*filter(None, named), *ENDS):
        number = inner.token_to_id(name)
        if number is not None:
            return int(number)
    hint = f"name eos_token in tokenizer_config.json beside {path.name}"
    raise Invalid(f"{path} has no token that ends a text", field="recipe.pack.tokenizer", hint=hint)


def _named_end(path: Path) -> str:
    """The end-of-text token a configuration names, or ""."""
    try:
        value = json.loads(path.read_bytes()).get("eos_token") or ""
    except (FileNotFoundError, json.JSONDecodeError, AttributeError):
        return ""
    return str(value.get("content", "") if isinstance(value, dict) else value)
