"""Which rows an erasure means: by document, by source, by a text anywhere in them, by what they were made from.

Texts are found whatever their case, in every column of strings, plain or as JSON writes them. A text is matched as it
stands, also inside a longer word: an erasure errs on the side of removing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from atoll.data.sought import forms_of

Mask = npt.NDArray[np.bool_]

NAMED_BY = ("id", "document")
"""Columns that hold the id of the document a row is, or was made from."""

FOUND_AT = ("source", "url")
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
    names = set(table.column_names)
    for name in NAMED_BY:
        if name in names and match.documents:
            found |= _is_in(table[name], match.documents)
    if LISTED_IN in names and match.documents:
        found |= _any_in(table[LISTED_IN], lambda column: _is_in(column, match.documents))
    for name in FOUND_AT:
        if name in names:
            for source in match.sources:
                found |= _is_from(table[name], source)
    for name in names & {*NAMED_BY, "source"}:
        for prefix in origins.prefixes:
            found |= _true(pc.starts_with(table[name], prefix))
    if match.texts:
        found |= holding(table, match.texts)
    return found


def derived(table: pa.Table, gone: pa.Array) -> Mask:
    """The rows that are, or were made from, one of the documents `gone` (their ids)."""
    found = np.zeros(table.num_rows, bool)
    for name in NAMED_BY:
        if name in table.column_names:
            found |= _is_in(table[name], gone)
    if LISTED_IN in table.column_names:
        found |= _any_in(table[LISTED_IN], lambda column: _is_in(column, gone))
    return found


def holding(table: pa.Table, texts: Sequence[str]) -> Mask:
    """The rows one of whose strings holds one of the texts, whatever the case."""
    wanted = "|".join(re.escape(form) for text in texts for form in forms_of(text))
    found = np.zeros(table.num_rows, bool)
    for column, kind in zip(table.columns, table.schema.types, strict=True):
        if _is_string(kind):
            found |= _holds(column, wanted)
        elif pa.types.is_list(kind) and _is_string(kind.value_type):
            found |= _any_in(column, lambda values: _holds(values, wanted))
    return found


def redacted(value: Any, texts: Sequence[str], gone: Collection[str] = ()) -> Any:
    """A JSON value without the strings that hold one of the texts, or are a sample of a document `gone`."""
    folded = [form.casefold() for text in texts for form in forms_of(text)]

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            is_sample = item.partition(": ")[0] in gone or item in gone
            return ERASED if is_sample or any(text in item.casefold() for text in folded) else item
        if isinstance(item, dict):
            return {name: clean(inner) for name, inner in item.items()}
        return [clean(inner) for inner in item] if isinstance(item, list) else item

    return clean(value)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds(column: Any, pattern: str) -> Mask:
    return _true(pc.match_substring_regex(column, pattern, ignore_case=True))


def _is_in(column: Any, values: Iterable[str] | pa.Array) -> Mask:
    wanted = values if isinstance(values, pa.Array) else pa.array(list(values), pa.string())
    return _true(pc.is_in(pc.cast(column, pa.string()), value_set=wanted))


def _is_from(column: Any, source: str) -> Mask:
    """Whether the source is the one named, with or without the name of the run's source before it."""
    if source.endswith("*"):
        return _true(pc.starts_with(column, source[:-1])) | _holds_after_colon(column, source[:-1])
    return _true(pc.equal(column, source)) | _true(pc.ends_with(column, f":{source}"))


def _holds_after_colon(column: Any, prefix: str) -> Mask:
    return _true(pc.match_substring_regex(column, f"^[A-Za-z0-9_.-]+:{re.escape(prefix)}"))


def _any_in(lists: Any, test: Any) -> Mask:
    """Rows whose list has an element that passes."""
    found = np.zeros(len(lists), bool)
    column = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    hits = test(pc.list_flatten(column))
    found[parents[hits].astype(np.int64)] = True
    return found


def _true(values: Any) -> Mask:
    """A column of booleans, null as false."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)
