"""Items of labelling tasks, as an erasure goes through them: what was labelled, and what was said of it.

An item goes when a text stands anywhere in it or in what models and people said of it, when it is one of the documents
or was made from one, when it is from one of the sources, or when its task's items came from one of the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from atoll.core.clock import Clock
from atoll.core.database import Database
from atoll.core.resources import Resource
from atoll.core.store import Store
from atoll.data.labelling.resources import terms_of
from atoll.data.labelling.rows import Claim, Row
from atoll.data.labelling.store import Labels
from atoll.data.records import Page
from atoll.data.sought import Sought

ITEMS_AT_ONCE = 500
MADE_FROM = ("id", "document", "documents")
FOUND_AT = ("source", "url")


class LabelRecords:
    """The items of all labelling tasks of a project. A mark is the task's uid and the item's number."""

    name = "label items"

    def __init__(self, store: Store, database: Database, clock: Clock) -> None:
        self._store = store
        self._database = database
        self._clock = clock

    def look(self, project: str, sought: Sought, after: str) -> Page:
        uid, _, seq = after.partition("/")
        tasks = sorted((task for task in self._tasks(project).values() if task.uid >= uid), key=lambda task: task.uid)
        for task in tasks:
            labels = Labels(self._database, self._clock, project)
            start = int(seq or 0) if task.uid == uid else 0
            rows = labels.page(task.uid, start, ITEMS_AT_ONCE) if labels.counts(task.uid)["items"] else []
            if rows:
                doomed = [f"{task.uid}/{row.seq}" for row, claims in rows if _is_meant(task, row, claims, sought)]
                return Page(len(rows), doomed, f"{task.uid}/{rows[-1][0].seq}")
        return Page()

    def remove(self, project: str, marks: Sequence[str]) -> None:
        tasks = self._tasks(project)
        numbers: dict[str, list[int]] = {}
        for mark in marks:
            uid, _, seq = mark.partition("/")
            numbers.setdefault(uid, []).append(int(seq))
        for uid, seqs in numbers.items():
            if uid in tasks:
                Labels(self._database, self._clock, project).remove_at(uid, terms_of(tasks[uid].spec), seqs)

    def _tasks(self, project: str) -> dict[str, Resource]:
        return {task.uid: task for task in self._store.scope(project).find_all("LabelTask")}


def _is_meant(task: Resource, row: Row, claims: Mapping[int, Claim], sought: Sought) -> bool:
    item = orjson.loads(row.item)
    meta = item.get("meta") or {}
    source = task.spec["source"] or {}
    if source.get("file") and source["file"] in sought.files:
        return True
    named = {row.key, *(name for column in MADE_FROM for name in _listed(meta.get(column)))}
    if not named.isdisjoint(sought.documents) or not named.isdisjoint(_gone(source.get("dataset") or "", sought)):
        return True
    if any(sought.is_from(str(meta[column])) for column in FOUND_AT if meta.get(column)):
        return True
    said = [orjson.loads(text) for text in (row.prelabel, row.final) if text is not None]
    return sought.is_in(row.key, item, said, *((claim.values, claim.comment) for claim in claims.values()))


def _gone(reference: str, sought: Sought) -> frozenset[str]:
    """The documents that left the dataset an item's task got its items from."""
    name = reference.partition("@")[0]
    return sought.gone.get(name) or sought.gone.get(re.sub(r"\.v[0-9]+$", "", name)) or frozenset()


def _listed(value: Any) -> list[str]:
    return [str(inner) for inner in (value if isinstance(value, list) else [value]) if inner is not None]
