"""Descent: what a document is called in the versions that were made from its own.

A curation of several sources puts a source's name before the ids of its documents; else ids stay. Where a version
does not say which of its parents a source was, a document of any of them is meant. Pure.
It does not know what was kept, cut or changed on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Descent:
    """Versions by what they were made from, and the ids of documents that left them."""

    def __init__(self, versions: Sequence[Mapping[str, Any]], had: Mapping[str, Sequence[str]]) -> None:
        """versions: {name, manifest, parents: names}. had: digests of manifests, now and before, by the version."""
        self._versions = {version["name"]: version for version in versions}
        self._gone: dict[str, set[str]] = {}
        self._names: dict[str, set[str]] = {}
        for name, digests in had.items():
            for digest in digests:
                self._names.setdefault(digest, set()).add(name)

    def ordered(self) -> list[Mapping[str, Any]]:
        """Every version once, behind those it was made from."""
        found: dict[str, Mapping[str, Any]] = {}
        waiting = list(reversed(self._versions))
        begun: set[str] = set()
        while waiting:
            name = waiting[-1]
            before = [] if name in begun else [p for p in self._parents(name) if p in self._versions and p not in begun]
            begun.add(name)
            if before:
                waiting += before
            else:
                found.setdefault(name, self._versions[waiting.pop()])
        return list(found.values())

    def left(self, gone: Mapping[str, Iterable[str]]) -> None:
        """Note ids of documents that left, by the name of the version."""
        for name, ids in gone.items():
            self._gone.setdefault(name, set()).update(ids)

    def inherited(self, name: str, sources: Sequence[Mapping[str, Any]]) -> set[str]:
        """Ids in version `name`, whose manifest tells of `sources`, of documents that left what it was made from."""
        parents = self._parents(name)
        taken = [source for source in sources if source.get("kind") == "dataset"]
        if not taken:
            return {id_ for parent in parents for id_ in self._gone.get(parent, ())}
        found: set[str] = set()
        for source in taken:
            prefix = f"{source.get('name')}/" if len(sources) > 1 else ""
            for parent in self._names.get(source.get("reference", ""), parents):
                found.update(prefix + id_ for id_ in self._gone.get(parent, ()))
        return found

    def _parents(self, name: str) -> Sequence[str]:
        return self._versions[name].get("parents", ())  # type: ignore[no-any-return]
