"""Examples in files: texts of one kind, or texts with a label, of JSON lines, Parquet, plain text, folders of these,
and folders with a dataset, such as the export of a labelling task.

Of a dataset's folder the splits are read that have the columns; its tables are no examples. A file that cannot be read
is an error: what a model learns from is chosen, not found.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa

from atoll.core.errors import Invalid
from atoll.data.layout import MANIFEST, path_of
from atoll.data.manifest import decode_manifest
from atoll.data.parquet import batches_in, open_parquet

PLAIN = (".txt", ".md", ".rst", ".html", ".htm")
LINES = (".jsonl", ".jsonl.gz")
LINES_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Label:
    """A column, and which of its labels are good; other labels are of the other kind, no label is no example."""

    column: str
    good: tuple[str, ...]


def read_examples(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a file or folder with `columns`, the first being the text; Invalid names what cannot be read."""
    if not path.exists():
        raise Invalid(f"there is nothing at {path}", field="input", hint="a file or folder of examples")
    if (path / MANIFEST).is_file():
        yield from _of_dataset(path, columns)
    elif path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file, path))
        for file in files:
            yield from read_examples(file, columns)
    elif path.suffix == ".parquet":
        yield from _of_parquet(path, columns)
    elif path.name.endswith(LINES):
        yield from _of_lines(path, columns)
    elif path.suffix in PLAIN and len(columns) == 1:
        yield pa.table({columns[0]: [path.read_text("utf-8", "replace")]})
    else:
        known = (*LINES, ".parquet", *(PLAIN if len(columns) == 1 else ()))
        hint = f"files of {', '.join(known)}, folders of them, or a folder with a dataset"
        raise Invalid(f"cannot read examples from {path}", field="input", hint=hint)


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _of_dataset(folder: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    manifest = decode_manifest((folder / MANIFEST).read_bytes())
    fitting = [name for name in manifest.splits if set(columns) <= set(manifest.schema.get(name, ()))]
    if not fitting:
        there_are = "; ".join(f"{name}: {', '.join(manifest.schema.get(name, ()))}" for name in manifest.splits)
        words = f"no split of the dataset {folder} has the columns {', '.join(columns)}"
        raise Invalid(words, field="input", hint=f"it has {there_are}")
    for name in fitting:
        for number in range(len(manifest.splits[name].shards)):
            yield from _of_parquet(folder / path_of(name, number), columns)


def _of_parquet(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    try:
        with open_parquet(path) as file:
            there_are = file.schema_arrow.names
            for column in columns:
                if column not in there_are:
                    raise _no_column(str(path), column, f"it has {', '.join(there_are)}")
            for batch in batches_in(file, columns=columns):
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise Invalid(f"{path} is not sound Parquet: {error}", field="input", hint="make it again") from error


def _of_lines(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    rows: list[tuple[str | None, ...]] = []
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_row(line, columns, f"{path}:{number}"))
            if len(rows) == LINES_AT_ONCE:
                yield _table(rows, columns)
                rows = []
    yield _table(rows, columns)


def _table(rows: Sequence[tuple[str | None, ...]], columns: Sequence[str]) -> pa.Table:
    values = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(columns, values, strict=True)})


def _row(line: bytes, columns: Sequence[str], where: str) -> tuple[str | None, ...]:
    """The text and what else is wanted of a line; labels become text."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{where} is not JSON: {error}", field="input", hint="one JSON object a line") from error
    text = value.get(columns[0]) if isinstance(value, dict) else None
    if not isinstance(text, str):
        there_are = f"it has {', '.join(value)}; " if isinstance(value, dict) else ""
        raise Invalid(
            f"{where} has no text in {columns[0]!r}", field="input", hint=f"{there_are}name the column: --text-column"
        )
    return (text, *(_label(value.get(name)) for name in columns[1:]))


def _label(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _no_column(where: str, column: str, hint: str) -> Invalid:
    return Invalid(f"{where} has no column {column!r}", field="input", hint=hint)
