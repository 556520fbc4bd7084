"""Items and pre-labels on their way into a task, and items handed out: checked by its schema, in the form they are kept
in. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from atoll.core.errors import Invalid
from atoll.data.labelling.assignment import OPEN, Terms
from atoll.data.labelling.rows import Row, dump
from atoll.data.labelling.schema import ITEM_BYTES_MAX, Item, Prelabel, check_item
from atoll.data.labelling.values import check_values

ITEMS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Handed:
    """An item in a labeller's hands until `until` (Unix time)."""

    row: Row
    until: float


@dataclass(frozen=True, slots=True)
class Appended:
    """How many items were new, and how many were known already."""

    added: int
    known: int


def new_rows(terms: Terms, items: Sequence[Item]) -> tuple[list[Row], list[Item]]:
    """(rows of different keys, without numbers; the items that bring an answer). Invalid names the first wrong one."""
    if len(items) > ITEMS_AT_ONCE:
        hint = f"send at most {ITEMS_AT_ONCE} at a time"
        raise Invalid(f"{len(items)} items are too many at once", field="items", hint=hint)
    rows: dict[str, Row] = {}
    for index, item in enumerate(items):
        check_item(terms.fields, item, f"items[{index}]")
        rows.setdefault(item.key, _new_row(terms, item, f"items[{index}]"))
    return list(rows.values()), [item for item in items if item.answer is not None]


def prelabelled(terms: Terms, row: Row, said: Prelabel) -> Row:
    """The row with what a model says of it; Invalid when that is no answer to the task's fields."""
    values = check_values(terms.fields, said.values, row.text)
    return replace(row, prelabel=dump(values), prelabel_by=f"{said.model}@{said.version}")


def _new_row(terms: Terms, item: Item, where: str) -> Row:
    kept = item.model_dump(exclude_defaults=True, exclude={"key", "priority", "prelabel", "answer"})
    text = dump(kept, where)
    if len(text) > ITEM_BYTES_MAX:
        hint = f"an item may have {ITEM_BYTES_MAX} characters as JSON"
        raise Invalid(f"item {item.key!r} has {len(text)}", field=where, hint=hint)
    row = Row(0, item.key, item.priority, "", OPEN, 0, 0, text)
    if item.answer is not None:
        check_values(terms.fields, item.answer.values, item.text)
    return row if item.prelabel is None else prelabelled(terms, row, item.prelabel)
