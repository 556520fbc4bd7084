"""What is done to texts before they are written: repeats cut, personal data acted on, sensitive words masked.

Only texts of which something was noted, or that are cut, are looked at one by one. Rejected texts are treated like
kept ones, for they are written, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from atoll.data.engine.curate.intake import finder_of
from atoll.data.engine.curate.judge import Mask, column
from atoll.data.engine.curate.plan import Privacy, Words
from atoll.data.engine.dedup import Spans as Cut
from atoll.data.engine.gather import gathered
from atoll.data.engine.scan import utf8_of

if TYPE_CHECKING:
    from atoll.data.engine.privacy import Actions, Finder, Findings, Span


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done; `key` is the project's, for hashes and stand-ins, `cache` a folder for built word finders."""

    privacy: Privacy | None = None
    key: bytes = field(default=b"", repr=False)
    words: tuple[Words, ...] = ()
    cache: str = ""


@dataclass(frozen=True, slots=True)
class Treated:
    """texts: those of the batch, treated. cut: which lost repeats, changed: which differ at all. refused: which a drop
    action would not let pass.

    found: for each row that has any, kinds of personal data and how many.
    """

    texts: pa.StringArray
    cut: Mask
    changed: Mask
    refused: Mask
    found: dict[int, dict[str, int]]


def treat(
    texts: pa.StringArray, notes: pa.RecordBatch, findings: Findings | None, cut: Cut | None, wanted: Treatment
) -> Treated:
    """Some texts with their repeats cut, personal data acted on and words masked.

    findings: the personal data noted of them. What is left of it in those that are cut is acted on as well as what is
    found there now: beside its new neighbours a number may look like none.
    """
    changed, refused = np.zeros(len(texts), bool), np.zeros(len(texts), bool)
    if cut is not None and len(cut):
        texts = cut.apply(texts)
        changed[cut.rows] = True
    lost = changed.copy()
    found: dict[int, dict[str, int]] = {}
    made: dict[int, bytes] = {}
    if wanted.privacy is not None:
        assert findings is not None, "personal data is to be acted on, and none was looked for"
        actions = actions_of(wanted.privacy, wanted.key)
        personal = _personal(texts, findings, cut if changed.any() else None, actions.finder)
        found = {row: dict(Counter(span.kind for span in spans)) for row, spans in personal.items()}
        refused[[row for row, kinds in found.items() if actions.drops(kinds)]] = True
        made = _acted_on(texts, personal, refused, actions)
    made |= _masked(texts, made, np.flatnonzero(_to_mask(notes, wanted)).tolist(), wanted)
    changed[list(made)] = True
    return Treated(_replaced(texts, made), lost, changed, refused, found)


def treated_titles(titles: pa.StringArray, wanted: Treatment) -> pa.StringArray:
    """Titles, which questions name, with their personal data acted on and words masked; what a drop action would not
    let pass is masked.
    """
    made: dict[int, bytes] = {}
    if wanted.privacy is not None:
        actions = actions_of(wanted.privacy, wanted.key)
        personal = dict(actions.finder.found(*utf8_of(titles)))
        made = _acted_on(titles, personal, np.zeros(len(titles), bool), actions)
    made |= _masked(titles, made, range(len(titles)), wanted)
    return _replaced(titles, made)


def summed(found: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Counts of kinds over documents."""
    total: Counter[str] = Counter()
    for kinds in found:
        total.update(kinds)
    return total


def _personal(texts: pa.StringArray, findings: Findings, cut: Cut | None, finder: Finder) -> dict[int, list[Span]]:
    """The personal data of each text that holds any: as noted, and in texts that are cut with what is found now."""
    from atoll.data.engine.privacy import by_text, disjoint

    if cut is None:
        return by_text(findings)
    again = np.unique(cut.rows)
    personal = by_text(_moved(findings, cut))
    for place, spans in finder.found(*utf8_of(texts.take(pa.array(again)))):
        row = int(again[place])
        personal[row] = disjoint([*personal.get(row, ()), *spans])
    return personal


def _moved(findings: Findings, cut: Cut) -> Findings:
    """The findings where they stand when the texts are cut; those that went are left out."""
    moved = findings.copy()
    for side in (1, 2):
        moved[:, side] -= _bytes_before(cut, findings[:, 0], findings[:, side])
    left: Findings = moved[moved[:, 1] < moved[:, 2]]
    return left


def _bytes_before(cut: Cut, rows: NDArray[np.int32], places: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many bytes are cut of a row before a place in it."""
    lengths = np.concatenate([[0], np.cumsum(cut.stops - cut.starts)])
    keys = cut.rows.astype(np.int64) << 32 | cut.starts
    first, count = np.searchsorted(cut.rows, rows), np.searchsorted(keys, rows.astype(np.int64) << 32 | places)
    last = np.maximum(count - 1, 0)  # the only one that may reach beyond the place
    beyond = np.where(count > first, np.maximum(cut.stops[last] - places, 0), 0)
    return np.asarray(lengths[count] - lengths[first] - beyond, np.int32)


def _acted_on(
    texts: pa.StringArray, personal: Mapping[int, list[Span]], refused: Mask, actions: Actions
) -> dict[int, bytes]:
    """The texts that actions change; of those that are refused nothing is left."""
    rows = [row for row in personal if not refused[row]]
    before = [_bytes_of(texts, row) for row in rows]
    after = actions.act(before, [personal[row] for row in rows])
    made = {row: new for row, old, new in zip(rows, before, after, strict=True) if new != old}
    return made | {row: b"" for row in personal if refused[row]}


def _masked(
    texts: pa.StringArray, made: Mapping[int, bytes], rows: Iterable[int], wanted: Treatment
) -> dict[int, bytes]:
    """Those of the rows that words are masked in, as `made` has them or as they were."""
    lists = [finder_of(words, wanted.cache) for words in wanted.words if words.action == "mask"]
    found: dict[int, bytes] = {}
    for row in rows:
        before = text = (made[row] if row in made else _bytes_of(texts, row)).decode()
        for finder in lists:
            text = finder.mask(text)
        if text != before:
            found[row] = text.encode()
    return found


def _to_mask(notes: pa.RecordBatch, wanted: Treatment) -> Mask:
    result = np.zeros(notes.num_rows, bool)
    for words in wanted.words:
        if words.action == "mask":
            result |= column(notes, f"words_{words.name}") > 0
    return result


@lru_cache(maxsize=4)
def actions_of(privacy: Privacy, key: bytes) -> Actions:
    """The actions on personal data, built once in a process."""
    from atoll.data.engine.privacy import Actions

    return Actions(privacy.default, dict(privacy.actions), key, privacy.names)


def _bytes_of(texts: pa.StringArray, row: int) -> bytes:
    return texts[row].as_buffer().to_pybytes()  # type: ignore[no-any-return]


def _replaced(texts: pa.StringArray, made: Mapping[int, bytes]) -> pa.StringArray:
    return gathered(texts, np.arange(len(texts)), made) if made else texts


def lengths_of(texts: pa.StringArray) -> NDArray[np.int32]:
    """Characters of each text."""
    return np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False), np.int32)
