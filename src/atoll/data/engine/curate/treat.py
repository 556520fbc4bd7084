"""What is done to texts before they are written: repeats cut, personal data acted on, sensitive words masked.

Only texts of which the notes say that there is something to do are looked at one by one. Rejected texts are treated
like kept ones, for they are written, too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.data.engine.curate.intake import finder_of
from atoll.data.engine.curate.judge import Mask, column
from atoll.data.engine.curate.plan import Privacy, Words
from atoll.data.engine.dedup import Spans

UNTOUCHED = ("keep",)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done; `key` is the project's, for hashes and stand-ins, `cache` a folder for built word finders."""

    privacy: Privacy | None = None
    key: bytes = field(default=b"", repr=False)
    words: tuple[Words, ...] = ()
    cache: str = ""


@dataclass(frozen=True, slots=True)
class Treated:
    """texts: those of the batch, treated. changed: which differ. refused: which a drop action would not let pass.

    found: for each row that has any, kinds of personal data and how many.
    """

    texts: pa.StringArray
    changed: Mask
    refused: Mask
    found: dict[int, dict[str, int]]


def treat(
    texts: pa.StringArray, ids: pa.StringArray, notes: pa.RecordBatch, spans: Spans | None, wanted: Treatment
) -> Treated:
    """The texts of a batch with its repeats cut, personal data acted on and words masked."""
    count = len(texts)
    changed, refused = np.zeros(count, bool), np.zeros(count, bool)
    if spans is not None and len(spans):
        texts = spans.apply(texts)
        changed[spans.rows] = True
    personal = _with_personal_data(notes, wanted) | (changed if wanted.privacy is not None else False)
    masked = _to_mask(notes, wanted)
    found: dict[int, dict[str, int]] = {}
    made: dict[int, str] = {}
    for row in np.flatnonzero(personal | masked).tolist():
        before = text = texts[row].as_py()
        if personal[row]:
            text, found[row] = _acted_on(text, ids[row].as_py(), wanted)
        refused[row] = text is None
        text = _masked(text or "", wanted) if masked[row] else text or ""
        if text != before:
            made[row] = text
            changed[row] = True
    return Treated(_replaced(texts, made), changed, refused, {row: kinds for row, kinds in found.items() if kinds})


def summed(found: list[dict[str, int]]) -> Counter[str]:
    """Counts of kinds over documents."""
    total: Counter[str] = Counter()
    for kinds in found:
        total.update(kinds)
    return total


def _with_personal_data(notes: pa.RecordBatch, wanted: Treatment) -> Mask:
    names = [name for name in notes.schema.names if name.startswith("pii_")] if wanted.privacy is not None else []
    return _positive(notes, names)


def _to_mask(notes: pa.RecordBatch, wanted: Treatment) -> Mask:
    return _positive(notes, [f"words_{words.name}" for words in wanted.words if words.action == "mask"])


def _positive(notes: pa.RecordBatch, names: list[str]) -> Mask:
    result = np.zeros(notes.num_rows, bool)
    for name in names:
        result |= column(notes, name) > 0
    return result


def _acted_on(text: str, document: str, wanted: Treatment) -> tuple[str | None, dict[str, int]]:
    """The text, None when the document is to be dropped, and what was found in it."""
    assert wanted.privacy is not None
    outcome = actions_of(wanted.privacy, wanted.key).apply(text, document)
    return getattr(outcome, "text", None), {kind: count for kind, count in outcome.counts.items() if count}


@lru_cache(maxsize=4)
def actions_of(privacy: Privacy, key: bytes) -> Any:
    """The actions on personal data, built once in a process."""
    from atoll.data.engine.privacy import Actions

    return Actions(privacy.default, dict(privacy.actions), key, privacy.names)


def _masked(text: str, wanted: Treatment) -> str:
    for words in wanted.words:
        if words.action == "mask":
            text = finder_of(words, wanted.cache).mask(text)
    return text


def _replaced(texts: pa.StringArray, made: dict[int, str]) -> pa.StringArray:
    if not made:
        return texts
    mask = np.zeros(len(texts), bool)
    mask[list(made)] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([made[row] for row in sorted(made)], pa.string()))


def lengths_of(texts: pa.StringArray) -> NDArray[np.int32]:
    """Characters of each text."""
    return np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False), np.int32)
