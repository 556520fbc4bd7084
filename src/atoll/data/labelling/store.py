"""The items of labelling tasks and what was said about them, in a database; each belonging to one project.

    labels = Labels(database, clock, "default")
    labels.append(uid, terms, items)             idempotent by key
    labels.next(uid, terms, "user:ada", 1, 600)   leases
    labels.answer(uid, terms, "user:ada", key, values)

Every statement names project and task. A task's writers come one after the other; a task is known by its resource's
uid, so one made anew under a name begins empty. Who may do what is not known here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, func, insert, literal_column, select
from sqlalchemy.exc import IntegrityError as DuplicateError

from atoll.core.clock import Clock, SystemClock
from atoll.core.database import Database
from atoll.core.errors import Conflict, NotFound
from atoll.data.labelling.assignment import (
    ANSWERED,
    DISPUTED,
    FINAL,
    LEASED,
    OPEN,
    SKIPPED,
    TAKEN,
    Terms,
    joined,
    standing,
)
from atoll.data.labelling.entries import Appended, Handed, new_rows, prelabelled
from atoll.data.labelling.rows import FIND_TASK, ITEM, LOCK_TASK, Claim, Row, Sheet, answers_in, dump, first_rows, own
from atoll.data.labelling.schema import Item, Prelabel
from atoll.data.labelling.tables import (
    COUNTS,
    TABLES,
    label_claims,
    label_items,
    label_people,
    label_tallies,
    label_tasks,
)
from atoll.data.labelling.tallies import Cell, tally
from atoll.data.labelling.values import Values, check_values

HELD_MAX = 100
PAGE_CHARACTERS = 8 << 20
DROPPED_AT_ONCE = 5000
OPENINGS_TRIED = 30

_HIGHEST = select(func.coalesce(func.max(label_tasks.c.task), 0)).where(
    label_tasks.c.project == bindparam("the_project")
)


class Labels:
    """Labelling in one project."""

    def __init__(self, database: Database, clock: Clock, project: str) -> None:
        self._database = database
        self._clock = clock
        self._project = project

    # items

    def append(self, uid: str, terms: Terms, items: Sequence[Item]) -> Appended:
        """Add items; those whose key is known already are left as they are, whatever else they say.

        Invalid names the first item that cannot be labelled by the task's schema; then none is added.
        """
        rows, answered = new_rows(terms, items)
        with self._sheet(uid) as sheet:
            known = sheet.known([row.key for row in rows])
            new = [row for row in rows if row.key not in known]
            sheet.add(new)
            for item in answered:
                if item.key not in known and item.answer is not None:
                    said = item.answer
                    self._answer(sheet, terms, f"by:{said.by}", item.key, said.values, said.comment, 0.0)
        return Appended(len(new), len(items) - len(new))

    def prelabel(self, uid: str, terms: Terms, said: Mapping[str, Prelabel]) -> dict[str, int]:
        """Write what a model said of items, by key; how many were written, the same already, and not known."""
        with self._sheet(uid) as sheet:
            found = sheet.items(list(said))
            claims = sheet.claims([row.seq for row in found])
            moves = [(row, prelabelled(terms, row, said[row.key])) for row in found]
            changed = [(before, after) for before, after in moves if before != after]
            for before, after in changed:
                answers = answers_in(claims[before.seq])
                sheet.recount(_cells(terms, answers, before), _cells(terms, answers, after))
            sheet.move(changed)
        written = len(changed)
        return {"written": written, "same": len(found) - written, "unknown": len(said) - len(found)}

    def remove(self, uid: str, terms: Terms, keys: Sequence[str]) -> int:
        """Take items out for good, with everything that was said of them; how many there were."""
        with self._sheet(uid) as sheet:
            return _removed(sheet, terms, sheet.items(keys))

    def remove_at(self, uid: str, terms: Terms, seqs: Sequence[int]) -> int:
        """As `remove`, of items by their numbers."""
        with self._sheet(uid) as sheet:
            return _removed(sheet, terms, sheet.items_at(seqs))

    # labelling

    def next(self, uid: str, terms: Terms, labeller: str, count: int, lease_s: float) -> list[Handed]:
        """Up to `count` items for `labeller` until `lease_s` from now: what they hold already, then new ones.

        Nobody gets an item again that they answered or skipped, and no item has more leases and answers than the
        task wants. Higher priority goes first, then what others have begun, then the order of adding.
        """
        until = self._clock.now() + lease_s
        with self._sheet(uid) as sheet:
            sheet.give_back_expired(_reopened)
            person = sheet.person(labeller)
            held = sheet.held(person, count)
            sheet.renew(held, until)
            rows = sheet.items_at([claim.seq for claim in held]) if held else []
            while len(rows) < count and (found := sheet.waiting_for(person, count - len(rows))):
                rows += self._lease(sheet, terms, person, found, until)
        return [Handed(row, until) for row in rows]

    def answer(
        self,
        uid: str,
        terms: Terms,
        labeller: str,
        key: str,
        values: Mapping[str, Any],
        comment: str = "",
        seconds: float = 0.0,
    ) -> Row:
        """Take an answer, or the revision of one's own; the item as it stands then.

        Conflict when all places of the item are taken by others, or an adjudicator has decided.
        """
        with self._sheet(uid) as sheet:
            return self._answer(sheet, terms, labeller, key, values, comment, seconds)

    def skip(self, uid: str, terms: Terms, labeller: str, key: str, comment: str = "") -> Row:
        """Leave an item to others; Conflict when it was answered already."""
        with self._sheet(uid) as sheet:
            before, claims = self._found(sheet, key)
            person = sheet.person(labeller)
            mine = claims.get(person)
            if mine is not None and mine.state == SKIPPED:
                return before
            if mine is not None and mine.state == ANSWERED:
                raise Conflict(f"item {key!r} was answered by {labeller} already", hint="answer again to revise it")
            if mine is None and before.state != OPEN:
                raise _taken(before)
            claim = Claim(before.seq, person, SKIPPED, comment=comment, at=sheet.now)
            sheet.put([claim], mine)
            sheet.credit(person, skips=1)
            leased = before.leased - (mine is not None)
            moved = replace(before, leased=leased, skipped=before.skipped + 1, people=joined(before.people, person))
            return self._settle(sheet, terms, before, moved, claims | {person: claim}, claims)

    def adjudicate(
        self, uid: str, terms: Terms, adjudicator: str, key: str, values: Mapping[str, Any], comment: str = ""
    ) -> Row:
        """Decide an item for good; whoever decided may decide again. Conflict while it waits for labellers.

        Who still has it in hand, of a dispute over skips, has it no longer: nothing they do could change it.
        """
        with self._sheet(uid) as sheet:
            before, claims = self._found(sheet, key)
            person = sheet.person(adjudicator)
            if before.state in (OPEN, TAKEN):
                raise Conflict(f"item {key!r} still waits for answers", hint="adjudicate what is disputed or decided")
            if before.state == FINAL and before.decider != person:
                raise Conflict(f"item {key!r} was decided by another adjudicator", hint="it is final")
            decided = check_values(terms.fields, values, before.text)
            final = dump({"values": decided, "comment": comment})
            sheet.end_leases(claim for claim in claims.values() if claim.state == LEASED)
            after = replace(before, state=FINAL, final=final, decider=person, leased=0)
            sheet.move([(before, after)])
            sheet.credit(person, decisions=int(before.state != FINAL))
            return after

    # the task as a whole

    def open(self, uid: str) -> None:
        """Make room for a task; once, however often asked and by however many at once."""
        for _ in range(OPENINGS_TRIED):
            if self._is_open(uid):
                return
            try:
                with self._database.writing() as connection:
                    number = int(connection.execute(_HIGHEST, {"the_project": self._project}).scalar_one()) + 1
                    zeros = dict.fromkeys((*COUNTS, "labellers", "last_seq"), 0)
                    row = {"project": self._project, "task": number, "uid": uid, **zeros}
                    connection.execute(insert(label_tasks), row)
                return
            except DuplicateError:
                continue  # somebody opened this task, or another with the number meant for it, since it was looked for
        raise Conflict("other labelling tasks began at the same moment, again and again", hint="try again")

    def _is_open(self, uid: str) -> bool:
        with self._database.reading() as connection:
            return connection.execute(FIND_TASK, self._named(uid)).first() is not None

    def drop(self, uid: str) -> None:
        """Forget all of a task, some rows at a time, so that others may write in between."""
        with self._database.reading() as connection:
            task = connection.execute(FIND_TASK, self._named(uid)).first()
        if task is None:
            return
        for end in range(DROPPED_AT_ONCE, task.last_seq + DROPPED_AT_ONCE, DROPPED_AT_ONCE):
            with self._database.writing() as connection:
                for statement in (_DROP_CLAIMS, _DROP_ITEMS):
                    connection.execute(statement, self._scope(task) | {"end": end})
        with self._database.writing() as connection:
            for statement in _DROP_REST:
                connection.execute(statement, self._scope(task))

    def counts(self, uid: str) -> dict[str, int]:
        """Every count of the task; zeros before it has begun."""
        with self._database.reading() as connection:
            row = connection.execute(FIND_TASK, self._named(uid)).first()
        return {name: int(getattr(row, name)) if row is not None else 0 for name in (*COUNTS, "labellers")}

    def people(self, uid: str, limit: int = 1000) -> list[dict[str, Any]]:
        """The labellers in the order of their numbers, with what each did."""
        with self._database.reading() as connection:
            task = self._task(connection, uid)
            rows = connection.execute(_PEOPLE, self._scope(task) | {"most": limit}).all()
        return [{name: getattr(row, name) for name in _PERSON_FIELDS} for row in rows]

    def cells(self, uid: str) -> Counter[Cell]:
        """The tallies of the task, for `tallies.people` and `tallies.model`."""
        with self._database.reading() as connection:
            task = self._task(connection, uid)
            rows = connection.execute(_TALLIES, self._scope(task)).all()
        return Counter({Cell(*row[:-1]): int(row[-1]) for row in rows})

    def page(self, uid: str, after: int, limit: int, *, disputed: bool = False) -> list[tuple[Row, dict[int, Claim]]]:
        """Items with their claims, those numbered after `after`, in order; only those disputed, when wanted.

        Fewer than `limit` where they are long; none when there are no more.
        """
        query = _DISPUTED if disputed else _PAGE
        with self._database.reading() as connection:
            task = self._task(connection, uid)
            streamed = connection.execution_options(stream_results=True)
            with closing(streamed.execute(query, self._scope(task) | {"after": after, "most": limit})) as rows:
                found = first_rows(rows, PAGE_CHARACTERS)
            sheet = Sheet(connection, self._project, task, self._clock.now())
            claims = sheet.claims([row.seq for row in found])
        return [(row, claims[row.seq]) for row in found]

    # what these are made of

    @contextmanager
    def _sheet(self, uid: str) -> Iterator[Sheet]:
        """The task's rows, locked until the block ends."""
        self.open(uid)
        with self._database.writing() as connection:
            task = connection.execute(LOCK_TASK, self._named(uid)).first()
            if task is None:
                raise _gone()
            sheet = Sheet(connection, self._project, task, self._clock.now())
            yield sheet
            sheet.close()

    def _lease(self, sheet: Sheet, terms: Terms, person: int, rows: Sequence[Row], until: float) -> list[Row]:
        claims = [Claim(row.seq, person, LEASED, until, at=sheet.now) for row in rows]
        sheet.put(claims)
        answered = {seq: len(answers_in(found)) for seq, found in sheet.claims([row.seq for row in rows]).items()}
        after = [
            replace(
                row,
                leased=row.leased + 1,
                people=joined(row.people, person),
                state=TAKEN if answered[row.seq] + row.leased + 1 >= terms.labels_per_item else OPEN,
            )
            for row in rows
        ]
        sheet.move(zip(rows, after, strict=True))
        sheet.take_from_groups()
        return after

    def _answer(
        self,
        sheet: Sheet,
        terms: Terms,
        labeller: str,
        key: str,
        values: Mapping[str, Any],
        comment: str,
        seconds: float,
    ) -> Row:
        sheet.give_back_expired(_reopened)
        before, claims = self._found(sheet, key)
        person = sheet.person(labeller)
        mine = claims.get(person)
        if before.state == FINAL:
            raise Conflict(f"item {key!r} was decided by an adjudicator", hint="it is final")
        if (mine is None or mine.state == SKIPPED) and before.state != OPEN:
            raise _taken(before)
        checked = check_values(terms.fields, values, before.text)
        claim = Claim(before.seq, person, ANSWERED, None, dump(checked), comment, seconds, sheet.now)
        sheet.put([claim], mine)
        is_new = mine is None or mine.state != ANSWERED
        sheet.credit(person, answers=int(is_new), seconds=seconds - (mine.seconds if mine else 0.0))
        moved = replace(
            before,
            leased=before.leased - (mine is not None and mine.state == LEASED),
            skipped=before.skipped - (mine is not None and mine.state == SKIPPED),
            people=joined(before.people, person),
        )
        return self._settle(sheet, terms, before, moved, claims | {person: claim}, claims)

    def _settle(
        self, sheet: Sheet, terms: Terms, before: Row, moved: Row, claims: dict[int, Claim], old: dict[int, Claim]
    ) -> Row:
        """Move an item to where it stands with `claims`, and the tallies with it."""
        answers = answers_in(claims)
        now = standing(terms, list(answers.values()), moved.leased, moved.skipped)
        final = None if now.final is None else dump({"values": now.final, "comment": ""})
        after = replace(moved, state=now.state, final=final, agreement=now.agreement)
        sheet.move([(before, after)])
        sheet.recount(_cells(terms, answers_in(old), before), _cells(terms, answers, after))
        return after

    def _found(self, sheet: Sheet, key: str) -> tuple[Row, dict[int, Claim]]:
        row = sheet.item(key)
        if row is None:
            raise NotFound(f"the task has no item {key[:200]!r}", field="item", hint="items are named by their key")
        return row, sheet.claims([row.seq])[row.seq]

    def _task(self, connection: Connection, uid: str) -> Any:
        task = connection.execute(FIND_TASK, self._named(uid)).first()
        if task is None:
            raise _gone()
        return task

    def _named(self, uid: str) -> dict[str, Any]:
        return {"the_project": self._project, "the_uid": uid}

    def _scope(self, task: Any) -> dict[str, Any]:
        return {"the_project": self._project, "the_task": task.task}


_PERSON_FIELDS = ("number", "name", "answers", "skips", "decisions", "seconds")
_PEOPLE = (
    select(*(label_people.c[name] for name in _PERSON_FIELDS))
    .where(*own(label_people))
    .order_by(label_people.c.number)
    .limit(bindparam("most"))
)
_TALLIES = select(*(label_tallies.c[name] for name in (*Cell._fields, "count"))).where(
    *own(label_tallies), label_tallies.c["count"] > 0
)
_PAGE = (
    select(*ITEM)
    .where(*own(label_items), label_items.c.seq > bindparam("after"))
    .order_by(label_items.c.seq)
    .limit(bindparam("most"))
)
_DISPUTED = _PAGE.where(literal_column("state = 3"))
_DROP_ITEMS = delete(label_items).where(*own(label_items), label_items.c.seq <= bindparam("end"))
_DROP_CLAIMS = delete(label_claims).where(*own(label_claims), label_claims.c.seq <= bindparam("end"))
_DROP_REST = [delete(table).where(*own(table)) for table in TABLES]


def forget_tasks(database: Database, living: Collection[str]) -> int:
    """Drop the rows of tasks, of any project, whose uid is not among the `living`; returns how many tasks."""
    with database.reading() as connection:
        found = connection.execute(select(label_tasks.c.project, label_tasks.c.uid)).all()
    dead = [(project, uid) for project, uid in found if uid not in living]
    for project, uid in dead:
        Labels(database, SystemClock(), project).drop(uid)
    return len(dead)


def _cells(terms: Terms, answers: Mapping[int, Values], row: Row) -> Counter[Cell]:
    """What an item adds to the tallies."""
    return tally(terms.fields, answers, None if row.prelabel is None else orjson.loads(row.prelabel))


def _removed(sheet: Sheet, terms: Terms, rows: Sequence[Row]) -> int:
    claims = sheet.claims([row.seq for row in rows])
    for row in rows:
        sheet.recount(_cells(terms, answers_in(claims[row.seq]), row), Counter())
    if rows:
        sheet.remove(rows, claims)
    return len(rows)


def _reopened(row: Row) -> Row:
    return replace(row, state=OPEN) if row.state == TAKEN else row


def _taken(row: Row) -> Conflict:
    words = {TAKEN: "is in the hands of others", DISPUTED: "waits for an adjudicator"}
    said = words.get(row.state, "has all the answers it needs")
    return Conflict(f"item {row.key!r} {said}", hint="ask for the next one")


def _gone() -> NotFound:
    return NotFound("the labelling task has no items yet, or is gone", hint="add items first")
