"""Which rows an erasure means: by document, by source, by a text anywhere in them, by what they were made from.

Texts are found whatever their case, in every string and every run of bytes a row holds, however deep in lists,
structs and maps, plain or as JSON writes them. A text is matched as it stands, also inside a longer word: an erasure
errs on the side of removing. Numbers are not read as texts; ids may be numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from atoll.data.sought import forms_of, is_sample_of

Mask = npt.NDArray[np.bool_]

NAMED_BY = ("id", "document")
"""Columns that hold the id of the document a row is, or was made from."""

FOUND_AT = ("source", "url")
PATTERN_CHARACTERS_MAX = 1 << 12
"""Of the texts sought at once: RE2 searches long alternatives a hundred times slower, and refuses the longest."""

LISTED_IN = "documents"
ERASED = "(erased)"


@dataclass(frozen=True, slots=True)
class Match:
    """What is to go. A source ending in `*` means all that begin so; `digests` are uploads whose rows go."""

    documents: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Sequence[str]]) -> Match:
        return cls(*(tuple(data.get(name, ())) for name in ("documents", "sources", "texts", "digests")))


@dataclass(frozen=True, slots=True)
class Origins:
    """Rows of a version that come from an upload: all of them, or those whose id or source begins so."""

    everything: bool = False
    prefixes: tuple[str, ...] = ()


def origins_of(sources: Sequence[Mapping[str, Any]], digests: Collection[str]) -> Origins:
    """Which rows came from the uploads `digests`, by what the manifest says of its sources.

    Where it does not say enough to tell the rows apart, all of them are meant.
    """
    hit = [index for index, source in enumerate(sources) if source.get("digest") in digests]
    if not hit:
        return Origins()
    if len(hit) == len(sources):
        return Origins(everything=True)
    if all(source.get("kind") == "file" and not source.get("name") for source in sources) and len(sources) == 2:
        return Origins(prefixes=tuple(("train-", "heldout-")[index] for index in hit))
    names = [str(sources[index].get("name") or "") for index in hit]
    if not all(names):
        return Origins(everything=True)
    return Origins(prefixes=tuple(f"{name}{mark}" for name in names for mark in ("/", ":")))


def meant(table: pa.Table, match: Match, origins: Origins) -> Mask:
    """The rows of `table` the match itself means."""
    found = np.full(table.num_rows, origins.everything)
    if match.documents:
        found |= _named(table, pa.array(match.documents, pa.string()))
    for column in _columns(table, FOUND_AT):
        for source in match.sources:
            found |= _is_from(column, source)
    for column in _columns(table, (*NAMED_BY, "source")):
        for prefix in origins.prefixes:
            found |= _true(pc.starts_with(column, prefix))
    if match.texts:
        found |= holding(table, match.texts)
    return found


def derived(table: pa.Table, gone: pa.Array) -> Mask:
    """The rows that are, or were made from, one of the documents `gone` (their ids)."""
    return _named(table, gone)


def ids_of_documents(table: pa.Table, rows: Mask) -> list[str]:
    """The ids of these rows where the rows of the table are documents; none where they are something made of some."""
    is_made = "document" in table.column_names or bool(_listings(table))
    ids = [] if is_made else list(_columns(table, ("id",)))
    return [name for column in ids for name in column.filter(pa.array(rows)).to_pylist() if name is not None]


def holding(table: pa.Table, texts: Sequence[str]) -> Mask:
    """The rows one of whose strings holds one of the texts, whatever the case."""
    patterns = _patterns(tuple(texts))
    found = np.zeros(table.num_rows, bool)
    for column in table.columns:
        for leaf in _leaves(column):
            for pattern in patterns if _is_text(leaf.values.type) else ():
                hits = _true(pc.match_substring_regex(leaf.values, pattern, ignore_case=True))
                found[leaf.rows[hits]] = True
    return found


@functools.cache
def _patterns(texts: tuple[str, ...]) -> list[str]:
    """Expressions that together match what holds one of the texts, some texts each."""
    forms = dict.fromkeys(form.casefold() for text in texts for form in forms_of(text))
    found: list[str] = []
    for form in forms:
        pattern = _unfolding().sub(_unfolded, re.escape(form))
        if found and len(found[-1]) + len(pattern) < PATTERN_CHARACTERS_MAX:
            found[-1] += f"|{pattern}"
        else:
            found.append(pattern)
    return found


def _unfolded(folded: re.Match[str]) -> str:
    return f"(?:{folded[0]}|{'|'.join(_written()[folded[0]])})"


@functools.cache
def _unfolding() -> re.Pattern[str]:
    return re.compile("|".join(sorted(_written(), key=len, reverse=True)))


@functools.cache
def _written() -> dict[str, list[str]]:
    """Letters that become several when case is taken from them (ß: ss), by what they become; RE2 folds none of them."""
    found: dict[str, list[str]] = {}
    for letter in map(chr, range(0x80, 0xFB20)):
        if len(folded := letter.casefold()) > 1:
            found.setdefault(folded, []).append(letter)
    return found


def redacted(value: Any, texts: Sequence[str], gone: Collection[str] = ()) -> Any:
    """A JSON value without the strings that hold one of the texts, or are a sample of a document `gone`."""
    folded = [form.casefold() for text in texts for form in forms_of(text)]

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            return ERASED if is_sample_of(item, gone) or any(text in item.casefold() for text in folded) else item
        if isinstance(item, dict):
            return {name: clean(inner) for name, inner in item.items()}
        return [clean(inner) for inner in item] if isinstance(item, list) else item

    return clean(value)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Values that stand somewhere in a column, and the row each is in."""

    values: pa.Array
    rows: npt.NDArray[np.int64]


def _leaves(column: pa.ChunkedArray) -> Iterator[_Leaf]:
    """The values of a column, out of the lists, structs and maps they stand in; texts as string or binary."""
    first = 0
    for chunk in column.chunks:
        yield from _inside(chunk, np.arange(first, first + len(chunk)))
        first += len(chunk)


def _inside(values: pa.Array, rows: npt.NDArray[np.int64]) -> Iterator[_Leaf]:
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        yield from _inside(values.storage, rows)
    elif pa.types.is_dictionary(kind):
        yield from _inside(values.dictionary_decode(), rows)
    elif pa.types.is_map(kind):
        pairs = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        yield from _inside(values.cast(pairs), rows)
    elif pa.types.is_struct(kind):
        for child in values.flatten():
            yield from _inside(child, rows)
    elif _is_list(kind):
        yield from _inside(pc.list_flatten(values), rows[pc.list_parent_indices(values).to_numpy()])
    elif pa.types.is_string_view(kind):
        yield _Leaf(values.cast(pa.large_string()), rows)
    elif pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        yield _Leaf(values.cast(pa.large_binary()), rows)
    else:
        yield _Leaf(values, rows)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_string or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _columns(table: pa.Table, names: Collection[str]) -> Iterator[pa.ChunkedArray]:
    """The columns that are called so and hold one name a row, as strings."""
    for column, field in zip(table.columns, table.schema, strict=True):
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name in names and not pa.types.is_nested(plain) and not pa.types.is_binary(plain):
            yield pc.cast(column, pa.string())


def _listings(table: pa.Table) -> list[pa.ChunkedArray]:
    """The columns that list the documents a row was made from."""
    pairs = zip(table.columns, table.schema, strict=True)
    return [column for column, field in pairs if field.name == LISTED_IN and _is_list(field.type)]


def _named(table: pa.Table, ids: pa.Array) -> Mask:
    """Rows that are one of the documents `ids`, or say that they were made from one."""
    found = np.zeros(table.num_rows, bool)
    for column in _columns(table, NAMED_BY):
        found |= _true(pc.is_in(column, value_set=ids))
    for column in _listings(table):
        for leaf in _leaves(column):
            if not pa.types.is_nested(leaf.values.type) and not pa.types.is_binary(leaf.values.type):
                found[leaf.rows[_true(pc.is_in(pc.cast(leaf.values, pa.string()), value_set=ids))]] = True
    return found


def _is_from(column: Any, source: str) -> Mask:
    """Whether the source is the one named, with or without the name of the run's source before it."""
    if source.endswith("*"):
        return _true(pc.starts_with(column, source[:-1])) | _holds_after_colon(column, source[:-1])
    return _true(pc.equal(column, source)) | _true(pc.ends_with(column, f":{source}"))


def _holds_after_colon(column: Any, prefix: str) -> Mask:
    return _true(pc.match_substring_regex(column, f"^[A-Za-z0-9_.-]+:{re.escape(prefix)}"))


def _true(values: Any) -> Mask:
    """A column of booleans, null as false."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)
