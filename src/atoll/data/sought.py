"""What an erasure looks for in texts: which forms a text may stand in, and whether a value holds one of them.

Pure. How it is looked for in tables of Parquet is the engine's, and means the same.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


def forms_of(text: str) -> list[str]:
    """A text as it stands, with accents in one character or their own, and as JSON strings hold it, plain or ASCII."""
    spelled = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]
    packed = [form for plain in spelled for form in (orjson.dumps(plain).decode()[1:-1], json.dumps(plain)[1:-1])]
    return list(dict.fromkeys([*spelled, *packed]))


@dataclass(frozen=True, slots=True)
class Sought:
    """What an erasure means, for records: texts whatever their case, names of documents, sources, ids of files."""

    texts: tuple[str, ...] = ()
    documents: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()
    gone: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Ids of the documents that left versions, by dataset."""

    @classmethod
    def of(cls, match: Mapping[str, Sequence[str]], gone: Mapping[str, Iterable[str]] | None = None) -> Sought:
        forms = [form.casefold() for text in match["texts"] for form in forms_of(text)]
        names = {dataset: frozenset(ids) for dataset, ids in (gone or {}).items()}
        documents, files = frozenset(match["documents"]), frozenset(match["files"])
        return cls(tuple(dict.fromkeys(forms)), documents, tuple(match["sources"]), files, names)

    def is_in(self, *values: Any) -> bool:
        """Whether one of the texts stands in a string anywhere in the values, plain or as JSON writes it."""
        return bool(self.texts) and any(
            t in s.casefold() for value in values for s in strings(value) for t in self.texts
        )

    def is_sampled_in(self, dataset: str, *values: Any) -> bool:
        """Whether a sample somewhere in the values is of a document that is named, or left a version of `dataset`."""
        ids = self.documents | self.gone.get(dataset, frozenset())
        return bool(ids) and any(is_sample_of(s, ids) for value in values for s in _samples(value))

    def is_from(self, source: str) -> bool:
        """Whether `source` is one of the sources, with or without the name of a run's source before it."""
        _, _, rest = source.partition(":")
        return any(_is_one(place, wanted) for place in (source, rest) for wanted in self.sources)


def _is_one(place: str, wanted: str) -> bool:
    return place.startswith(wanted[:-1]) if wanted.endswith("*") else place == wanted


def is_sample_of(text: str, ids: Collection[str]) -> bool:
    """Whether `text` is one of the ids, or a sample of such a document: its id, a colon, and how it begins."""
    stop = text.find(": ")
    while stop >= 0:
        if text[:stop] in ids:
            return True
        stop = text.find(": ", stop + 1)
    return text in ids


def _samples(value: Any) -> Iterator[str]:
    """Every string of a list that is called `samples`, anywhere in a JSON value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from strings(inner) if name == "samples" else _samples(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _samples(inner)


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, names of fields among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield name
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
