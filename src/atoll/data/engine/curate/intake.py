"""The first stage: a part of the input read, normalised and annotated, batch by batch, in one pass.

What is noted of a document does not depend on thresholds, so a recipe with other ones uses the same notes. A part's
folder holds a folder for each batch (see `corpus`) and PART, which tells the rows of each and what was refused. Beside
the notes of a batch lie its FINDINGS of personal data, places without values, where such data is looked for.
What the notes lead to is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from atoll.core.errors import IntegrityError
from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.engine.curate.corpus import NOTES, SIGNATURES, TEXTS, Corpus, write_array, write_batch
from atoll.data.engine.curate.plan import Normalise, Plan, Privacy, Quality, Words
from atoll.data.engine.read import Limits, Part, PassedOver, Quarantined, batches
from atoll.data.rules import REPETITION_COLUMNS

PART, FINDINGS = "part.json", "findings.npy"
BATCH_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Notation:
    """What is noted of every document, and how texts are normalised before."""

    wanted: Wanted
    normalise: Normalise
    has_language: bool
    privacy: Privacy | None
    quality: tuple[Quality, ...]
    words: tuple[Words, ...]
    cache: str = ""

    def described(self) -> dict[str, Any]:
        """What its outputs depend on, as plain values."""
        return {**asdict(self), "cache": ""}


@dataclass(frozen=True, slots=True)
class Item:
    """One part to read."""

    part: Part
    notation: Notation
    limits: Limits = field(default_factory=Limits)
    batch_bytes: int = BATCH_BYTES

    def label(self) -> str:
        """For messages."""
        files = self.part.files
        names = files[0].name if files else "the standard library"
        return f"{self.part.source}:{names}{f' and {len(files) - 1} more' if len(files) > 1 else ''}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What a part came to: batch folders with their rows, what was refused, bytes of text, files passed over."""

    folders: tuple[Path, ...]
    rows: tuple[int, ...]
    refused: tuple[Quarantined, ...]
    bytes: int
    passed_over: tuple[PassedOver, ...] = ()


def notation_of(plan: Plan, cache: str = "") -> Notation:
    """What the plan wants noted."""
    near = plan.near
    named: frozenset[str] = frozenset().union(*(rule.drop.columns for rule in plan.rules))
    is_counted = any(name.startswith("pii_") for name in named)
    has_repetition = bool(named & REPETITION_COLUMNS)
    sizes = near.permutations, near.words, near.cjk_characters
    return Notation(
        wanted=Wanted(*sizes, has_repetition, chinese_words=plan.chinese_words),
        normalise=plan.normalise,
        has_language=plan.language is not None or bool(named & {"language", "language_score"}),
        privacy=plan.privacy or (Privacy("keep", ()) if is_counted else None),
        quality=plan.quality,
        words=tuple(replace(words, action="flag") for words in plan.words),
        cache=cache,
    )


@dataclass(frozen=True, slots=True)
class Noted:
    """What is noted of some texts: a row of `notes` and of `signatures` each, and where personal data stands."""

    notes: pa.RecordBatch
    signatures: NDArray[np.uint32]
    findings: NDArray[np.int32] | None


def take_in(item: Item, folder: Path) -> None:
    """Read, normalise and annotate one part into `folder`."""
    refused: list[Quarantined] = []
    passed_over: list[PassedOver] = []
    rows: list[int] = []
    size_bytes = 0
    for found in _batches(item):
        if isinstance(found, Quarantined):
            refused.append(found)
            continue
        if isinstance(found, PassedOver):
            passed_over.append(found)
            continue
        noted(found, item.notation, folder / f"{len(rows):03d}")
        rows.append(found.num_rows)
        size_bytes += found.column("text").nbytes
        del found  # or it would be in memory while the next is read
    told = {
        "rows": rows,
        "refused": [asdict(quarantined) for quarantined in refused],
        "bytes": size_bytes,
        "passed_over": [list(counted) for counted in passed_over],
    }
    (folder / PART).write_bytes(orjson.dumps(told))


def taken_from(folder: Path) -> Taken:
    """What a part's folder tells."""
    told = orjson.loads((folder / PART).read_bytes())
    folders = tuple(folder / f"{number:03d}" for number in range(len(told["rows"])))
    refused = tuple(Quarantined(**item) for item in told["refused"])
    passed_over = tuple(PassedOver(*counted) for counted in told.get("passed_over", ()))
    return Taken(folders, tuple(told["rows"]), refused, told["bytes"], passed_over)


def corpus_of(parts: Sequence[Taken]) -> Corpus:
    """All batches of all parts, in order."""
    folders = [folder for part in parts for folder in part.folders]
    return Corpus.of(folders, [rows for part in parts for rows in part.rows])


def notes_of(texts: pa.StringArray, notation: Notation) -> Noted:
    """Everything that is noted of `texts`."""
    annotation = annotate(texts, notation.wanted, notation.cache)
    columns = dict(zip(annotation.notes.schema.names, annotation.notes.columns, strict=True))
    findings = None
    if notation.has_language:
        columns |= _language(texts, annotation.notes)
    if notation.privacy is not None:
        findings, counts = _personal(texts, notation.privacy)
        columns |= counts
    for quality in notation.quality:
        columns[f"quality_{quality.name}"] = _score(texts, quality.model)
    for words in notation.words:
        columns[f"words_{words.name}"] = pa.array(finder_of(words, notation.cache).count(texts))
    return Noted(pa.record_batch(columns), annotation.signatures, findings)


def findings_in(folder: Path) -> NDArray[np.int32] | None:
    """The personal data noted of a batch (`privacy.Findings`), None where it was not looked for."""
    path = folder / FINDINGS
    return np.load(path) if path.exists() else None


def _batches(item: Item) -> Iterator[pa.RecordBatch | Quarantined | PassedOver]:
    found = batches(item.part, item.limits, batch_bytes=item.batch_bytes, normalise=item.notation.normalise)
    if item.notation.normalise.chinese == "keep":
        return found
    target = item.notation.normalise.chinese
    return (_converted(batch, target) if isinstance(batch, pa.RecordBatch) else batch for batch in found)


def _converted(batch: pa.RecordBatch, target: Any) -> pa.RecordBatch:
    """The batch with its Chinese in one script."""
    from atoll.data.engine.language.chinese import convert

    place = batch.schema.get_field_index("text")
    texts = pa.array([convert(text, target) for text in batch.column(place).to_pylist()], pa.string())
    return batch.set_column(place, "text", texts)


def noted(batch: pa.RecordBatch, notation: Notation, folder: Path) -> None:
    """Write a batch and what is noted of it into `folder`, which is made."""
    folder.mkdir()
    found = notes_of(batch.column("text"), notation)
    if found.notes.num_rows != batch.num_rows:
        raise IntegrityError(f"{batch.num_rows} texts have {found.notes.num_rows} notes", hint="an operator lost rows")
    write_batch(folder / TEXTS, batch)
    write_batch(folder / NOTES, found.notes)
    write_array(folder / SIGNATURES, found.signatures)
    if found.findings is not None:
        write_array(folder / FINDINGS, found.findings)


def _language(texts: pa.StringArray, notes: pa.RecordBatch) -> dict[str, pa.Array]:
    from atoll.data.engine.language.identify import identify

    codes, scores = identify(texts, notes)
    return {"language": codes, "language_score": pa.array(scores)}


def _personal(texts: pa.StringArray, privacy: Privacy) -> tuple[NDArray[np.int32], dict[str, pa.Array]]:
    from atoll.data.engine.privacy import counted, found_in

    found = found_in(texts, _finder(privacy.names))
    counts = counted(found, len(texts))
    return found, dict(zip(counts.schema.names, counts.columns, strict=True))


@lru_cache(maxsize=2)
def _finder(names: tuple[str, ...]) -> Any:
    from atoll.data.engine.privacy import KINDS, Finder

    return Finder(KINDS, names)


def _score(texts: pa.StringArray, model: str) -> pa.Array:
    from atoll.data.engine.quality import classifier

    return pa.array(classifier.load(model).score(texts))


@lru_cache(maxsize=16)
def finder_of(words: Words, cache: str = "") -> Any:
    """The finder of a list of words, built once in a process."""
    from atoll.data.engine.words import WordFinder

    return WordFinder(words_of(words), Path(cache) if cache else None)


def words_of(words: Words) -> Sequence[str]:
    """The words of a list; Invalid names a file that cannot be read."""
    if not words.path:
        return words.words
    from atoll.core.errors import Invalid

    try:
        lines = Path(words.path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "a UTF-8 file with one word a line, where the run is"
        raise Invalid(f"the word list {words.path} cannot be read: {error}", field="recipe.words", hint=hint) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise Invalid(f"the word list {words.path} holds no words", field="recipe.words", hint="one word a line")
    return found
