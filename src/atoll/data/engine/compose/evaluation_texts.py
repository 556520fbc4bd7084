"""The texts of evaluation sets: files of lines or records, or datasets of the platform, portion by portion.

Of a record every string in it is a text of its own, however deep: question, choices and answer alike. Which of them
matter is not known here; short ones are harmless, for they are compared as wholes only.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from atoll.core.errors import Invalid, Unavailable
from atoll.data.manifest import read_manifest, read_shard
from atoll.data.parquet import batches_in, open_parquet

if TYPE_CHECKING:
    from atoll.core.blobs import BlobStore

PORTION_CHARACTERS = 1 << 20
FIELD = "recipe.decontaminate.sets"
COLUMNS = ("text", "question", "answer")
"""What is read of a dataset of the platform."""


def texts_of(reference: str, store: BlobStore | None = None) -> Iterator[list[str]]:
    """The texts of a set in portions of about PORTION_CHARACTERS.

    reference: a file (.txt: one text a line; .jsonl; .parquet; each but the last also .gz or .zst), or the digest of a
    manifest in `store`. Invalid names the file and the line that cannot be read.
    """
    texts = _of_dataset(reference, store) if reference.startswith("sha256:") else _of_file(Path(reference))
    portion: list[str] = []
    size = 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if size >= PORTION_CHARACTERS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _of_dataset(digest: str, store: BlobStore | None) -> Iterator[str]:
    if store is None:
        raise Invalid(f"{digest} is a dataset, and there is no platform here", field=FIELD, hint="give a file")
    for split in read_manifest(store, digest).splits.values():
        for shard in split.shards:
            table = read_shard(store, shard)
            for name in COLUMNS:
                if name in table.column_names:
                    yield from table[name].to_pylist()


def _of_file(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise Invalid(f"there is no evaluation set {str(path)!r}", field=FIELD, hint="a file, or a dataset version")
    endings = [ending for ending in path.suffixes if ending not in (".gz", ".zst")]
    kind = endings[-1] if endings else ""
    if kind == ".parquet":
        return _of_parquet(path)
    if kind not in (".txt", ".jsonl", ".ndjson"):
        hint = "give a .txt with one text a line, a .jsonl or a .parquet"
        raise Invalid(f"{path} is of no format that evaluation sets are read from", field=FIELD, hint=hint)
    return _of_lines(path) if kind == ".txt" else _of_records(path)


def _of_lines(path: Path) -> Iterator[str]:
    with _opened(path) as file:
        for line in file:
            if text := line.decode(errors="replace").strip("\r\n\ufeff"):
                yield text


def _of_records(path: Path) -> Iterator[str]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise Invalid(f"{path}, line {number}: is not JSON: {error}", field=FIELD) from error
            yield from strings_in(value)


def _of_parquet(path: Path) -> Iterator[str]:
    try:
        file = open_parquet(path)
    except pa.ArrowInvalid as error:
        raise Invalid(f"{path} is not Parquet: {error}", field=FIELD) from error
    with file:
        for batch in batches_in(file, 1000):
            yield from strings_in(batch.to_pylist())


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a value of JSON, in order; names of fields are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if path.suffix != ".zst":
        return path.open("rb")
    try:
        import zstandard
    except ImportError as error:
        hint = "pip install atoll[data], or unpack the file"
        raise Unavailable(f"{path} needs the package zstandard", hint=hint) from error
    return io.BufferedReader(zstandard.open(path))
