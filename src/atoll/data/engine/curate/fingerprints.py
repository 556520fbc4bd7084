"""Fingerprints: names of folders of kept work, equal when and only when what they would hold is.

What is fingerprinted is plain values; files count by path, size and time of change, as `make` does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from atoll.core.errors import Invalid
from atoll.data.engine.curate.intake import Item
from atoll.data.engine.curate.plan import Plan
from atoll.data.engine.read import fingerprint as parts_fingerprint

VERSION = 3
"""Raised when operators give other results for the same input, so kept stages are not mistaken for new ones."""

DECIDING = (
    *("preset", "min_characters", "max_characters", "language", "rule_sets", "rules", "words", "dedup", "privacy"),
    *("decontaminate", "split", "mix"),
)
WRITING = ("min_characters", "privacy", "words", "questions", "pack")


def of_reading(plan: Plan, items: Sequence[Item]) -> str:
    """Of the notes on all documents."""
    notation = items[0].notation.described()
    files = [path for path in (*(quality.model for quality in plan.quality), *(words.path for words in plan.words))]
    sizes = items[0].limits, items[0].batch_bytes
    return _digest(parts_fingerprint([item.part for item in items]), notation, about(files), repr(sizes))


def of_deciding(plan: Plan, reading: str) -> str:
    """Of the decision over those notes. An index of earlier runs counts as it was when the run first decided."""
    sets = plan.decontaminate.sets if plan.decontaminate else ()
    wanted = {name: plan.recipe[name] for name in DECIDING}
    names = [source.name for source in plan.sources]
    counted = plan.pack.tokenizer if plan.mix and plan.pack else ""
    known = plan.known or ()
    return _digest(reading, wanted, about(sets), plan.seed, names, counted, known)


def of_writing(plan: Plan, deciding: str, key: bytes) -> str:
    """Of the files written of that decision."""
    wanted = {name: plan.recipe[name] for name in WRITING}
    return _digest(deciding, wanted, hashlib.sha256(key).hexdigest())


def about(paths: Sequence[str]) -> list[list[Any]]:
    """Path, size and time of change of files; Invalid when one is not there."""
    found: list[list[Any]] = []
    for path in filter(None, paths):
        try:
            stat = Path(path).stat()
        except OSError as error:
            hint = "give the path where the run is"
            raise Invalid(f"{path} cannot be read: {error.strerror}", field="recipe", hint=hint) from error
        found.append([path, stat.st_size, stat.st_mtime_ns])
    return found


def _digest(*values: Any) -> str:
    return hashlib.sha256(orjson.dumps([VERSION, *values], option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]
