"""What differs between two datasets: facts of the manifests, recipe, and rows by id and content, with samples.

Shards both have (by digest) are not read. It does not know why they differ.
"""

from __future__ import annotations

import difflib
import heapq
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from atoll.data.archive import Opened
from atoll.data.engine.versions.rows import BUCKETS, Place, bucket, rows_at, spill
from atoll.data.layout import parts_of, path_of
from atoll.data.manifest import Manifest, Shard

SAMPLES = 3
EXCERPT_CHARACTERS = 160
FACTS = ("format", "licence", "parents", "sources", "privacy")

Shards = list[tuple[str, Shard]]


@dataclass(slots=True)
class PartDiff:
    """Rows of one split or table: by id, those only in the second, only in the first, in both but not equal."""

    before: int = 0
    after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(slots=True)
class Diff:
    """`fields` and `counts` as {name: [before, after]}, `recipe` as lines of a unified diff of its YAML."""

    before: str
    after: str
    fields: dict[str, list[Any]] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    counts: dict[str, list[int | None]] = field(default_factory=dict)
    recipe: list[str] = field(default_factory=list)
    parts: dict[str, PartDiff] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether the two are the same."""
        rows = any(part.added or part.removed or part.changed for part in self.parts.values())
        return not (rows or self.fields or self.columns or self.counts or self.recipe)

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        return asdict(self) | {"equal": self.is_empty}


def diff(before: Opened, after: Opened, samples: int = SAMPLES) -> Diff:
    """How `after` differs from `before`, with up to `samples` rows of each difference."""
    found = Diff(before.name, after.name)
    old, new = before.manifest, after.manifest
    found.fields = _changes({n: _told(old, n) for n in FACTS}, {n: _told(new, n) for n in FACTS})
    found.columns = _changes(old.schema, new.schema)
    found.counts = _changes(old.counts, new.counts)
    found.recipe = recipe_lines(old.recipe, new.recipe)
    old_parts, new_parts = parts_of(old), parts_of(new)
    for name in dict.fromkeys([*old_parts, *new_parts]):
        shards = [_shards(name, part) for part in (old_parts.get(name), new_parts.get(name))]
        part = _rows(before, after, *_without_equal(*shards), samples)
        part.before = old_parts[name].rows if name in old_parts else 0
        part.after = new_parts[name].rows if name in new_parts else 0
        found.parts[name] = part
    return found


def recipe_lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A unified diff of two recipes as YAML, empty when they are equal."""
    one, two = (yaml.safe_dump(recipe, allow_unicode=True).splitlines() for recipe in (before, after))
    return list(difflib.unified_diff(one, two, lineterm="", n=2))[2:]


def _told(manifest: Manifest, name: str) -> Any:
    return getattr(manifest, name, None) or None


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*before, *after])
    return {n: [before.get(n), after.get(n)] for n in names if before.get(n) != after.get(n)}


def _shards(name: str, part: Any) -> Shards:
    return [(path_of(name, number), shard) for number, shard in enumerate(part.shards)] if part is not None else []


def _without_equal(before: Shards, after: Shards) -> tuple[Shards, Shards]:
    """The shards only one of the two has."""
    common = Counter(s.digest for _, s in before) & Counter(s.digest for _, s in after)
    return _less(before, Counter(common)), _less(after, Counter(common))


def _less(shards: Shards, common: Counter[str]) -> Shards:
    kept = []
    for path, shard in shards:
        if common[shard.digest] > 0:
            common[shard.digest] -= 1
        else:
            kept.append((path, shard))
    return kept


def _rows(before: Opened, after: Opened, old: Shards, new: Shards, samples: int) -> PartDiff:
    """Compare the rows of the shards given, bucket by bucket."""
    part = PartDiff()
    firsts: dict[str, list[tuple[Place, Place]]] = {"added": [], "removed": [], "changed": []}
    with tempfile.TemporaryDirectory(prefix="atoll-diff-") as folder:
        spill(before, old, Path(folder, "before"))
        spill(after, new, Path(folder, "after"))
        for number in range(BUCKETS):
            one, two = (bucket(Path(folder, side), number) for side in ("before", "after"))
            _, in_one, in_two = np.intersect1d(one["id"], two["id"], assume_unique=True, return_indices=True)
            differ = one["content"][in_one] != two["content"][in_two]
            gone, come = np.delete(one, in_one), np.delete(two, in_two)
            part.removed += len(gone)
            part.added += len(come)
            part.changed += int(differ.sum())
            _keep_first(firsts["removed"], gone, gone, samples)
            _keep_first(firsts["added"], come, come, samples)
            _keep_first(firsts["changed"], one[in_one][differ], two[in_two][differ], samples)
    part.samples = _samples(before, after, old, new, firsts)
    return part


def _keep_first(firsts: list[tuple[Place, Place]], one: Any, two: Any, samples: int) -> None:
    order = np.lexsort((one["row"], one["shard"]))[:samples]
    places = [(_place(one[i]), _place(two[i])) for i in order]
    firsts[:] = heapq.nsmallest(samples, [*firsts, *places])


def _place(record: Any) -> Place:
    return int(record["shard"]), int(record["row"])


def _samples(
    before: Opened, after: Opened, old: Shards, new: Shards, firsts: dict[str, list[tuple[Place, Place]]]
) -> dict[str, list[dict[str, Any]]]:
    was = rows_at(before, old, [one for kind in ("removed", "changed") for one, _ in firsts[kind]])
    became = rows_at(after, new, [two for kind in ("added", "changed") for _, two in firsts[kind]])
    return {
        "added": [shown(became[two]) for _, two in firsts["added"]],
        "removed": [shown(was[one]) for one, _ in firsts["removed"]],
        "changed": [_changed(was[one], became[two]) for one, two in firsts["changed"]],
    }


def shown(row: Any) -> dict[str, Any]:
    """A row as a sample: its id and the beginning of its text."""
    return {"id": _name(row), "text": _excerpt(_text(row), 0)}


def _changed(one: Any, two: Any) -> dict[str, Any]:
    fields = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    field_ = "text" if "text" in fields else fields[0]
    texts = [str(row.get(field_)) for row in (one, two)]
    start = max(0, _first_difference(*texts) - EXCERPT_CHARACTERS // 4)
    before, after = (_excerpt(text, start) for text in texts)
    return {"id": _name(one), "field": field_, "fields": fields, "before": before, "after": after}


def _first_difference(one: str, two: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _name(row: Any) -> str:
    return str(row.get("id", ""))


def _text(row: Any) -> str:
    told: Sequence[Any] = [row.get(name) for name in ("text", "question", "reason")]
    return next((value for value in told if isinstance(value, str)), "")


def _excerpt(text: str, start: int) -> str:
    end = start + EXCERPT_CHARACTERS
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if len(text) > end else "")
