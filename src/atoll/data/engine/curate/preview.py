"""A preview: what another recipe would drop, told from the notes of a dataset alone, in milliseconds.

Only what notes decide is told: lengths, language, rules, sensitive words, personal data. A document that was dropped
by one of these and would not be again has never been compared with others; it is counted as `to_compare`, and so are
exact and near copies of a document that goes now, one of which may stay in its place. Changes of a recipe that notes
cannot decide are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.data.archive import Opened
from atoll.data.engine.curate.judge import KEPT, Check, checks_of, first_reasons
from atoll.data.engine.curate.planning import plan_with
from atoll.data.layout import path_of
from atoll.data.parquet import table_in
from atoll.data.recipes import Recipe, parse_recipe

NOTES = "notes"
KEPT_NAME, TO_COMPARE = "kept", "to_compare"
SAMPLES_MAX = 3
UNDECIDED = (
    *("normalise", "chinese_words", "dedup", "decontaminate", "mix", "quality"),
    *("split", "pack", "questions"),
)
"""Parts of a recipe whose change the notes cannot tell the outcome of."""

COPIES = ("exact_duplicate", "near_duplicate")
"""Reasons of documents whose cluster says which of them was kept."""

Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Change:
    """A reason (or kept, or to_compare): documents with it before and after, how many come and go, ids of some."""

    rule: str
    before: int
    after: int
    coming: int = 0
    going: int = 0
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What would change, reason by reason, and the parts of the recipe that differ and are not told about."""

    changes: tuple[Change, ...]
    untold: tuple[str, ...]


def preview(opened: Opened, recipe: Recipe) -> Preview:
    """What `recipe` would drop of the dataset's documents; Invalid when it has no notes, or lacks a column."""
    manifest = opened.manifest
    former = _checks(parse_recipe(manifest.recipe))
    checks = _checks(recipe)
    notes = _notes(opened)
    before = notes.column("reason").to_numpy(zero_copy_only=False)
    before = np.where(before == "", KEPT_NAME, before)
    after = reasons_after(before, [check.name for check in former], checks, notes)
    after[orphaned(before, after, notes.column("cluster").to_numpy())] = TO_COMPARE
    ids = notes.column("id")
    order = [*(check.name for check in checks), *(step["rule"] for step in manifest.funnel), KEPT_NAME, TO_COMPARE]
    changes = tuple(_change(name, before, after, ids) for name in dict.fromkeys(order) if name != "unreadable")
    wanted = recipe.model_dump(mode="json")
    untold = tuple(name for name in UNDECIDED if wanted[name] != manifest.recipe.get(name, wanted[name]))
    return Preview(changes, untold)


def reasons_after(before: Names, former: Sequence[str], checks: Sequence[Check], notes: pa.Table) -> Names:
    """Every document's reason under other checks. What earlier checks dropped and these do not is to be compared."""
    first = first_reasons(checks, notes)
    names = np.array([*(check.name for check in checks), ""], object)
    was_noted = np.isin(before, list(former))
    return np.where(first != KEPT, names[first], np.where(was_noted, TO_COMPARE, before))


def orphaned(before: Names, after: Names, clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Copies for whose sake nothing is kept any more: what was kept of their cluster goes."""
    stayed, stays = before == KEPT_NAME, after == KEPT_NAME
    lost = np.setdiff1d(clusters[stayed], clusters[stays])
    found: NDArray[np.bool_] = np.isin(after, COPIES) & np.isin(clusters, lost)
    return found


def _checks(recipe: Recipe) -> list[Check]:
    return checks_of(plan_with((), recipe, 0))


def _notes(opened: Opened) -> pa.Table:
    shards = opened.manifest.tables.get(NOTES)
    if shards is None or not shards.shards:
        hint = "datasets that `atoll data curate` or a CurationRun made have notes"
        raise Invalid(f"{opened.name} has no notes", field="dataset", hint=hint)
    tables = []
    for number, shard in enumerate(shards.shards):
        with opened.open(path_of(NOTES, number), shard) as stream:
            tables.append(table_in(stream))
    return pa.concat_tables(tables)


def _change(name: str, before: Names, after: Names, ids: pa.ChunkedArray) -> Change:
    was, is_now = before == name, after == name
    coming, going = is_now & ~was, was & ~is_now
    before_after, changed = (int(was.sum()), int(is_now.sum())), (int(coming.sum()), int(going.sum()))
    return Change(name, *before_after, *changed, _ids(ids, coming), _ids(ids, going))


def _ids(ids: pa.ChunkedArray, mask: NDArray[Any]) -> tuple[str, ...]:
    return tuple(ids[place].as_py() for place in np.flatnonzero(mask)[:SAMPLES_MAX].tolist())
