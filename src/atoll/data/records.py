"""Records: texts that lie in tables of the database, as far as an erasure goes through them.

Who keeps such texts is `Records`. It is looked through page by page; what is meant is noted by marks that name nobody,
then removed, then counted, so a step that was killed is repeated to the same end and nothing is counted twice.
It does not know what kinds of records there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import select, update

from atoll.core.database import Database
from atoll.core.tables import changes
from atoll.data.sought import Sought

ERASED = "(erased)"
CHARACTERS_AT_ONCE = 8 << 20
ROWS_AT_ONCE = 1_000
PAGES_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Page:
    """What a look found: how many records it saw, marks of those that go, and where to look on ("" at the end)."""

    seen: int = 0
    doomed: list[str] = field(default_factory=list)
    after: str = ""


class Records(Protocol):
    """Texts of projects in tables."""

    @property
    def name(self) -> str:
        """What they are, in the plural, as certificates call them."""
        ...

    def look(self, project: str, sought: Sought, after: str) -> Page:
        """A page of a bounded size, in an order that later records do not disturb."""
        ...

    def remove(self, project: str, marks: Sequence[str]) -> None:
        """Take what the marks of a page name out for good; what is gone already is passed over."""
        ...


def began() -> dict[str, Any]:
    """Where going through records stands at first: `place` among them, `after` which of its records, what is noted."""
    return {"place": 0, "after": "", "is_last": False, "pending": [], "seen": {}, "removed": {}}


def go_on(state: Mapping[str, Any], records: Sequence[Records], project: str, sought: Sought) -> dict[str, Any]:
    """The next state; it must be kept before this is asked again. It is at its end when `place` is beyond the last."""
    kept = records[state["place"]]
    if state["pending"]:
        kept.remove(project, state["pending"])
        removed = _plus(state["removed"], kept.name, len(state["pending"]))
        return _onward({**state, "removed": removed, "pending": []})
    seen, after = 0, state["after"]
    for _ in range(PAGES_AT_ONCE):
        page = kept.look(project, sought, after)
        seen, after = seen + page.seen, page.after
        if page.doomed or not after:
            break
    told = {**state, "seen": _plus(state["seen"], kept.name, seen), "removed": _plus(state["removed"], kept.name, 0)}
    told |= {"pending": page.doomed, "after": after, "is_last": not after}
    return told if page.doomed else _onward(told)


def _onward(state: dict[str, Any]) -> dict[str, Any]:
    if not state["is_last"]:
        return state
    return state | {"place": state["place"] + 1, "after": "", "is_last": False}


def _plus(counts: Mapping[str, int], name: str, more: int) -> dict[str, int]:
    return {**counts, name: counts.get(name, 0) + more}


def first_of(rows: Iterable[Any], *columns: str) -> list[Any]:
    """The first rows, until these columns of them have CHARACTERS_AT_ONCE together; one at least, if there is one."""
    found, left = [], CHARACTERS_AT_ONCE
    for row in rows:
        found.append(row)
        left -= sum(len(getattr(row, column)) for column in columns)
        if left <= 0:
            break
    return found


class Events:
    """What was said of resources as they changed: an engine's last words may quote a text."""

    name = "events"

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, project: str, sought: Sought, after: str) -> Page:
        column = changes.c
        query = select(column.seq, column.message).where(column.project == project, column.seq > int(after or 0))
        with self._database.reading() as connection:
            rows = first_of(connection.execute(query.order_by(column.seq).limit(ROWS_AT_ONCE)), "message")
        doomed = [str(row.seq) for row in rows if sought.is_in(row.message)]
        return Page(len(rows), doomed, str(rows[-1].seq) if rows else "")

    def remove(self, project: str, marks: Sequence[str]) -> None:
        column = changes.c
        mine = (column.project == project, column.seq.in_([int(mark) for mark in marks]))
        with self._database.writing() as connection:
            connection.execute(update(changes).where(*mine).values(message=ERASED))
