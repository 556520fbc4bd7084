"""The manifest of a dataset: what a dataset version is made of, and how to read it.

A manifest is a small JSON blob that names Parquet shards by digest, so a dataset is immutable and whole as soon as
its manifest exists. It holds no times and no paths of machines: equal work gives equal bytes.
Who produced a dataset and why is lineage, which is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.data.parquet import table_in

if TYPE_CHECKING:
    import pyarrow as pa

    from atoll.core.blobs import BlobStore

FORMAT = "atoll-dataset/1"

DOCUMENT_COLUMNS = {"id": "string", "text": "string", "source": "string"}
QUESTION_COLUMNS = {
    "id": "string",
    "question": "string",
    "answer": "string",
    "document": "string",
    "span_start": "int64",
    "span_end": "int64",
}
CHAT_COLUMNS = {**QUESTION_COLUMNS, "messages": "string"}
"""`messages` is the conversation before the answer as JSON; `question` its last message of the user."""

SPLITS = {
    "train": DOCUMENT_COLUMNS,
    "heldout": DOCUMENT_COLUMNS,
    "qa_train": QUESTION_COLUMNS,
    "qa_heldout": QUESTION_COLUMNS,
}
"""The splits of a curated dataset and the columns of each. `answer` is exactly `text[span_start:span_end]`."""


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHAPES: dict[str, type] = {
    **dict.fromkeys(("counts", "recipe", "schema", "privacy", "languages", "passed_over"), dict),
    **dict.fromkeys(("funnel", "sources", "parents"), list),
    "licence": str,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file of a split."""

    digest: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Split:
    """The shards of a split, in order."""

    shards: tuple[Shard, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole dataset. `funnel` says what was dropped by which rule, with samples; `parents` are manifest digests.

    `tables` hold what is known about documents rather than the documents: `notes` (every document, its reason and
    statistics) and `rejected` (what was dropped, with its text). `privacy` counts by kind and action what was found in
    the documents kept, `languages` those documents by language. `passed_over` counts by suffix the files that were
    there but are no documents by their names.
    """

    splits: dict[str, Split]
    counts: dict[str, int]
    funnel: list[dict[str, Any]]
    recipe: dict[str, Any]
    licence: str
    sources: list[dict[str, Any]]
    parents: list[str] = field(default_factory=list)
    schema: dict[str, dict[str, str]] = field(default_factory=lambda: dict(SPLITS))
    tables: dict[str, Split] = field(default_factory=dict)
    privacy: dict[str, dict[str, int]] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    format: str = FORMAT

    def encode(self) -> bytes:
        """The manifest as JSON. The order of fields is kept, for a schema's columns have one."""
        return orjson.dumps(asdict(self))


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in `data`; raises Invalid when it is not one this version reads."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the dataset manifest is not JSON: {error}", field="dataset") from error
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        hint = f"give the digest of a manifest of format {FORMAT}"
        raise Invalid(f"this is not a dataset manifest (format {found!r})", field="dataset", hint=hint)
    try:
        splits = {name: _split(split) for name, split in value["splits"].items()}
        tables = {name: _split(table) for name, table in value.get("tables", {}).items()}
        return _checked(Manifest(**{**value, "splits": splits, "tables": tables}))
    except (AttributeError, KeyError, TypeError) as error:
        raise Invalid(f"the dataset manifest is damaged: {error!r}", field="dataset") from error


def write_manifest(store: BlobStore, manifest: Manifest) -> str:
    """Store `manifest`, return its digest; from here on the dataset exists."""
    return store.put_bytes(manifest.encode()).digest


def read_manifest(store: BlobStore, digest: str) -> Manifest:
    """The manifest stored as `digest`; NotFound when absent, Invalid when it is something else."""
    return decode_manifest(store.read(digest))


def open_split(store: BlobStore, manifest: Manifest, split: str) -> Iterator[dict[str, Any]]:
    """The rows of `split` in order, one shard in memory at a time; every shard's checksum is verified."""
    for shard in split_of(manifest, split).shards:
        yield from read_shard(store, shard).to_pylist()


def read_split(store: BlobStore, manifest_digest: str, split: str) -> pa.Table:
    """All rows of `split` as one Arrow table with the columns of `SPLITS[split]`, verified."""
    import pyarrow as pa

    manifest = read_manifest(store, manifest_digest)
    tables = [read_shard(store, shard) for shard in split_of(manifest, split).shards]
    return pa.concat_tables(tables) if tables else arrow_schema(manifest.schema[split]).empty_table()


def read_shard(store: BlobStore, shard: Shard) -> pa.Table:
    """One shard as an Arrow table, its checksum verified; IntegrityError when it is no Parquet."""
    import pyarrow as pa

    data = store.read(shard.digest)
    try:
        return table_in(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"shard {shard.digest} cannot be read as Parquet: {error}") from error


def split_of(manifest: Manifest, split: str) -> Split:
    """The named split or table; NotFound lists those there are."""
    parts = {**manifest.tables, **manifest.splits}
    try:
        return parts[split]
    except KeyError as error:
        there_are = ", ".join(sorted(parts))
        raise NotFound(f"the dataset has no split {split!r}", hint=f"splits: {there_are}") from error


def arrow_schema(columns: dict[str, str]) -> pa.Schema:
    """The Arrow schema of columns written as name -> type."""
    import pyarrow as pa

    return pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    inner = kind.removeprefix("list<").removesuffix(">").removeprefix("item: ").removeprefix("element: ")
    return pa.list_(_arrow_type(inner)) if kind.startswith("list<") else pa.type_for_alias(kind)


def _split(value: dict[str, Any]) -> Split:
    split = Split(tuple(Shard(**shard) for shard in value["shards"]), value["rows"])
    figures = [split.rows, *(figure for shard in split.shards for figure in (shard.rows, shard.bytes))]
    if not all(isinstance(figure, int) and 0 <= figure < 1 << 63 for figure in figures):
        raise TypeError("rows and bytes are whole numbers")
    if not all(isinstance(shard.digest, str) and _DIGEST.fullmatch(shard.digest) for shard in split.shards):
        raise TypeError("a shard's digest is sha256: and 64 hex digits")
    return split


def _checked(manifest: Manifest) -> Manifest:
    """The manifest, if its fields are shaped as they should be: many come from elsewhere. TypeError names one."""
    for name, kind in _SHAPES.items():
        if not isinstance(getattr(manifest, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    if not all(isinstance(columns, dict) for columns in manifest.schema.values()):
        raise TypeError("schema holds something else than columns")
    if not all(isinstance(source, dict) for source in manifest.sources):
        raise TypeError("sources holds something else than sources")
    return manifest
