"""One task's rows inside one transaction: read, moved, and counted in the same breath.

A sheet holds the task's row locked, so what it reads stays true until it commits. Counts, groups and tallies are
gathered while rows move and written once at the end. What a move means is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection, Select, Table, bindparam, delete, func, insert, literal_column, select, update

from atoll.core.errors import Invalid
from atoll.data.labelling.assignment import ANSWERED, LEASED, OPEN, STATES, left
from atoll.data.labelling.tables import (
    COUNTS,
    label_claims,
    label_groups,
    label_items,
    label_people,
    label_tallies,
    label_tasks,
)
from atoll.data.labelling.tallies import Cell
from atoll.data.labelling.values import Values

EXPIRED_AT_ONCE = 200
_KINDS = ("leases", "answers", "skips")
"""What claims of each state are counted as."""


@dataclass(frozen=True, slots=True)
class Row:
    """An item as it is kept."""

    seq: int
    key: str
    priority: int
    people: str
    state: int
    leased: int
    skipped: int
    item: str
    prelabel: str | None = None
    prelabel_by: str | None = None
    final: str | None = None
    agreement: float | None = None
    decider: int | None = None

    @property
    def text(self) -> str:
        return str(orjson.loads(self.item).get("text", ""))


@dataclass(frozen=True, slots=True)
class Claim:
    """What one labeller has to do with one item; `answer` are values as JSON."""

    seq: int
    labeller: int
    state: int
    expires_at: float | None = None
    answer: str | None = None
    comment: str = ""
    seconds: float = 0.0
    at: float = 0.0

    @property
    def values(self) -> Values:
        found: Values = orjson.loads(self.answer or "{}")
        return found


def dump(value: object, field: str = "values") -> str:
    """`value` as JSON text; Invalid when it holds what JSON in UTF-8 cannot."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        hint = "texts that are valid Unicode, whole numbers below 2**63"
        raise Invalid(f"{field} cannot be kept: {error}", field=field, hint=hint) from error


def own(table: Table) -> tuple[Any, ...]:
    """The condition every statement has: the project and the task."""
    return (table.c.project == bindparam("the_project"), table.c.task == bindparam("the_task"))


ITEM = [column for column in label_items.c if column.name not in ("project", "task")]
_CLAIM = [column for column in label_claims.c if column.name not in ("project", "task")]
_MOVED = ("people", "state", "leased", "skipped", "final", "agreement", "decider", "prelabel", "prelabel_by")
_SEQ: Any = bindparam("the_seq")

FIND_TASK = select(label_tasks).where(
    label_tasks.c.project == bindparam("the_project"), label_tasks.c.uid == bindparam("the_uid")
)
LOCK_TASK = FIND_TASK.with_for_update()
_ITEM_OF = select(*ITEM).where(*own(label_items), label_items.c.key == bindparam("the_key"))
_ITEMS_OF = select(*ITEM).where(*own(label_items), label_items.c.key.in_(bindparam("the_keys", expanding=True)))
_ITEMS_AT = select(*ITEM).where(*own(label_items), label_items.c.seq.in_(bindparam("the_seqs", expanding=True)))
_KEYS_AMONG = select(label_items.c.key).where(
    *own(label_items), label_items.c.key.in_(bindparam("the_keys", expanding=True))
)
_WAITING = (
    select(*ITEM)
    .where(
        *own(label_items),
        literal_column("state = 0"),
        label_items.c.priority == bindparam("the_priority"),
        label_items.c.people == bindparam("the_people"),
    )
    .order_by(label_items.c.seq)
    .limit(bindparam("most"))
)
_SET_ITEM = (
    update(label_items)
    .where(*own(label_items), label_items.c.seq == _SEQ)
    .values({name: bindparam(f"new_{name}") for name in _MOVED})
)
_CLAIMS_OF = select(*_CLAIM).where(*own(label_claims), label_claims.c.seq.in_(bindparam("the_seqs", expanding=True)))
_HELD = (
    select(*_CLAIM)
    .where(*own(label_claims), literal_column("state = 0"), label_claims.c.labeller == bindparam("the_labeller"))
    .order_by(label_claims.c.seq)
    .limit(bindparam("most"))
)
_EXPIRED = (
    select(*_CLAIM)
    .where(*own(label_claims), literal_column("state = 0"), label_claims.c.expires_at <= bindparam("now"))
    .order_by(label_claims.c.expires_at)
    .limit(EXPIRED_AT_ONCE)
)
_CLAIM_AT = (label_claims.c.seq == _SEQ, label_claims.c.labeller == bindparam("the_labeller"))
_RENEW = update(label_claims).where(*own(label_claims), *_CLAIM_AT).values(expires_at=bindparam("until"))
_DROP_CLAIM = delete(label_claims).where(*own(label_claims), *_CLAIM_AT)
_DROP_CLAIMS_AT = delete(label_claims).where(
    *own(label_claims), label_claims.c.seq.in_(bindparam("the_seqs", expanding=True))
)
_DROP_ITEMS_AT = delete(label_items).where(
    *own(label_items), label_items.c.seq.in_(bindparam("the_seqs", expanding=True))
)
_PERSON = select(label_people.c.number).where(*own(label_people), label_people.c.name == bindparam("the_name"))
_COUNT_PERSON = (
    update(label_people)
    .where(*own(label_people), label_people.c.number == bindparam("the_labeller"))
    .values(
        {
            name: label_people.c[name] + bindparam(f"more_{name}")
            for name in ("answers", "skips", "decisions", "seconds")
        }
    )
)
_BEST_GROUP = (
    select(label_groups.c.priority, label_groups.c.people)
    .where(*own(label_groups), label_groups.c.people.not_like(bindparam("not_mine")))
    .order_by(label_groups.c.priority.desc(), func.length(label_groups.c.people).desc(), label_groups.c.people)
    .limit(1)
)
_GROUP_AT = (label_groups.c.priority == bindparam("the_priority"), label_groups.c.people == bindparam("the_people"))
_GROW_GROUP = update(label_groups).where(*own(label_groups), *_GROUP_AT)
_GROW_GROUP = _GROW_GROUP.values(open=label_groups.c.open + bindparam("more"))
_DROP_EMPTY = delete(label_groups).where(*own(label_groups), *_GROUP_AT, label_groups.c.open <= 0)
_COUNT_CELL = (
    update(label_tallies)
    .where(*own(label_tallies), *(label_tallies.c[name] == bindparam(f"the_{name}") for name in Cell._fields))
    .values(count=label_tallies.c.count + bindparam("more"))
)
_COUNT_TASK = (
    update(label_tasks)
    .where(*own(label_tasks))
    .values({name: label_tasks.c[name] + bindparam(f"more_{name}") for name in (*COUNTS, "labellers", "last_seq")})
)


class Sheet:
    """The rows of task number `task` of `project`; `counts` are those it had when it was locked."""

    def __init__(self, connection: Connection, project: str, task: Any, now: float) -> None:
        self._connection = connection
        self._project = project
        self._scope = {"the_project": project, "the_task": task.task}
        self._place = {"project": project, "task": task.task}
        self._labellers = int(task.labellers)
        self._last_seq = int(task.last_seq)
        self.now = now
        self.counted: Counter[str] = Counter()
        self._groups: Counter[tuple[int, str]] = Counter()
        self._cells: Counter[Cell] = Counter()

    # items

    def item(self, key: str) -> Row | None:
        """The item called `key`."""
        return next(self._items(_ITEM_OF, the_key=key), None)

    def items(self, keys: Sequence[str]) -> list[Row]:
        """Those of `keys` that are items, in no order."""
        return list(self._items(_ITEMS_OF, the_keys=list(keys)))

    def items_at(self, seqs: Sequence[int]) -> list[Row]:
        """The items of these numbers, in their order."""
        return sorted(self._items(_ITEMS_AT, the_seqs=list(seqs)), key=lambda row: row.seq)

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which of `keys` are items already."""
        return {row.key for row in self._run(_KEYS_AMONG, the_keys=list(keys))}

    def add(self, rows: Sequence[Row]) -> list[Row]:
        """Append new items that wait for labellers; they get their numbers here."""
        placed = [replace(row, seq=self._last_seq + n) for n, row in enumerate(rows, 1)]
        if placed:
            self._connection.execute(insert(label_items), [self._place | asdict(row) for row in placed])
        self._last_seq += len(placed)
        self.counted.update(items=len(placed), last_seq=len(placed), open=len(placed))
        self.counted["prelabelled"] += sum(row.prelabel is not None for row in placed)
        self._groups.update((row.priority, row.people) for row in placed)
        return placed

    def move(self, pairs: Iterable[tuple[Row, Row]]) -> None:
        """Change items from what they were to what they are now; counts and groups follow."""
        changed = [(before, after) for before, after in pairs if before != after]
        for before, after in changed:
            self.counted[STATES[before.state]] -= 1
            self.counted[STATES[after.state]] += 1
            self.counted["prelabelled"] += (after.prelabel is not None) - (before.prelabel is not None)
            self._groups[before.priority, before.people] -= before.state == OPEN
            self._groups[after.priority, after.people] += after.state == OPEN
        values = [
            self._scope | {"the_seq": after.seq} | {f"new_{name}": getattr(after, name) for name in _MOVED}
            for _, after in changed
        ]
        if values:
            self._connection.execute(_SET_ITEM, values)

    def remove(self, rows: Sequence[Row], claims: Mapping[int, Mapping[int, Claim]]) -> None:
        """Take items out with their claims; what labellers did stays counted with them."""
        for row in rows:
            self.counted[STATES[row.state]] -= 1
            self.counted["prelabelled"] -= row.prelabel is not None
            self._groups[row.priority, row.people] -= row.state == OPEN
            for claim in claims[row.seq].values():
                self.counted[_KINDS[claim.state]] -= 1
        self.counted["items"] -= len(rows)
        for statement in (_DROP_CLAIMS_AT, _DROP_ITEMS_AT):
            self._run(statement, the_seqs=[row.seq for row in rows])

    def waiting_for(self, person: int, most: int) -> list[Row]:
        """The first items of the best group that `person` is not in; empty when there is none."""
        group = self._run(_BEST_GROUP, not_mine=f"%,{person},%").first()
        if group is None:
            return []
        return list(self._items(_WAITING, the_priority=group.priority, the_people=group.people, most=most))

    def take_from_groups(self) -> None:
        """Write what has been gathered about groups, so that the next search sees it."""
        for (priority, people), more in self._groups.items():
            if more:
                self._count_group({"the_priority": priority, "the_people": people}, more)
        self._groups.clear()

    # claims

    def claims(self, seqs: Sequence[int]) -> dict[int, dict[int, Claim]]:
        """Claims by item and labeller; every item has its entry."""
        found: dict[int, dict[int, Claim]] = {seq: {} for seq in seqs}
        for row in self._run(_CLAIMS_OF, the_seqs=list(seqs)):
            found[row.seq][row.labeller] = Claim(*row)
        return found

    def held(self, person: int, most: int) -> list[Claim]:
        """Leases of `person`, first come first."""
        return [Claim(*row) for row in self._run(_HELD, the_labeller=person, most=most)]

    def renew(self, claims: Sequence[Claim], until: float) -> None:
        """Let leases end later."""
        where = [self._scope | {"the_seq": c.seq, "the_labeller": c.labeller, "until": until} for c in claims]
        if where:
            self._connection.execute(_RENEW, where)

    def put(self, claims: Sequence[Claim], replaced: Claim | None = None) -> None:
        """Make claims, in the place of `replaced` where there was one."""
        for claim, sign in ((replaced, -1), *((claim, 1) for claim in claims)):
            if claim is not None:
                self.counted[_KINDS[claim.state]] += sign
        if replaced is not None:
            self._drop(replaced)
        if claims:
            self._connection.execute(insert(label_claims), [self._place | asdict(claim) for claim in claims])

    def end_leases(self, leases: Iterable[Claim]) -> None:
        """Take leases back; where their items stand then is to be said by `move`."""
        for lease in leases:
            self._drop(lease)
            self.counted["leases"] -= 1

    def give_back_expired(self, reopen: Any) -> None:
        """Take back leases that are over; `reopen(row)` is where such an item stands then."""
        expired = [Claim(*row) for row in self._run(_EXPIRED, now=self.now)]
        if not expired:
            return
        before = {row.seq: row for row in self.items_at(list({claim.seq for claim in expired}))}
        after = dict(before)
        for claim in expired:
            row = after[claim.seq]
            after[claim.seq] = replace(row, leased=row.leased - 1, people=left(row.people, claim.labeller))
        self.end_leases(expired)
        self.move((before[seq], reopen(row)) for seq, row in after.items())
        self.take_from_groups()

    # people

    def person(self, name: str) -> int:
        """The number of the labeller called `name`, given on first sight."""
        found = self._run(_PERSON, the_name=name).scalar()
        if found is not None:
            return int(found)
        self._labellers += 1
        self.counted["labellers"] += 1
        row = {"number": self._labellers, "name": name, "answers": 0, "skips": 0, "decisions": 0, "seconds": 0.0}
        self._connection.execute(insert(label_people), self._place | row)
        return self._labellers

    def credit(self, person: int, *, answers: int = 0, skips: int = 0, decisions: int = 0, seconds: float = 0) -> None:
        """Count what a labeller did."""
        more = {"more_answers": answers, "more_skips": skips, "more_decisions": decisions, "more_seconds": seconds}
        self._run(_COUNT_PERSON, the_labeller=person, **more)

    # counts

    def recount(self, before: Counter[Cell], after: Counter[Cell]) -> None:
        """Take what an item added to the tallies before and add what it does now."""
        self._cells.update(after)
        self._cells.subtract(before)

    def close(self) -> None:
        """Write all that was gathered."""
        self.take_from_groups()
        for cell, more in self._cells.items():
            if more:
                self._count_cell(cell, more)
        if any(self.counted.values()):
            more_of = {f"more_{name}": self.counted[name] for name in (*COUNTS, "labellers", "last_seq")}
            self._run(_COUNT_TASK, **more_of)

    def _count_group(self, where: dict[str, Any], more: int) -> None:
        if not self._run(_GROW_GROUP, **where, more=more).rowcount:
            row = {"priority": where["the_priority"], "people": where["the_people"], "open": more}
            self._connection.execute(insert(label_groups), self._place | row)
        elif more < 0:
            self._run(_DROP_EMPTY, **where)

    def _count_cell(self, cell: Cell, more: int) -> None:
        where = {f"the_{name}": value for name, value in cell._asdict().items()}
        if not self._run(_COUNT_CELL, **where, more=more).rowcount:
            self._connection.execute(insert(label_tallies), self._place | cell._asdict() | {"count": more})

    def _drop(self, claim: Claim) -> None:
        self._run(_DROP_CLAIM, the_seq=claim.seq, the_labeller=claim.labeller)

    def _items(self, query: Select[Any], **values: Any) -> Any:
        return (Row(*row) for row in self._run(query, **values))

    def _run(self, statement: Any, **values: Any) -> Any:
        return self._connection.execute(statement, self._scope | values)


def first_rows(rows: Iterable[Any], characters: int) -> list[Row]:
    """The first rows, until their items have so many characters together; one at least, if there is one."""
    found: list[Row] = []
    for row in rows:
        found.append(Row(*row))
        characters -= len(found[-1].item)
        if characters <= 0:
            break
    return found


def answers_in(claims: dict[int, Claim]) -> dict[int, Values]:
    """The answers among an item's claims, by labeller, in their order."""
    return {number: claims[number].values for number in sorted(claims) if claims[number].state == ANSWERED}


assert (LEASED, ANSWERED) == (0, 1), "partial indexes and _KINDS speak of these numbers"
