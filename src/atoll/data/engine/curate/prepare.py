"""Prepare: a process is made ready for the items of a run before the first comes, on a few words of its own.

What the run will call is called once: machine code is made where the cache has none, models and tables are loaded.
Workers forked from a process made ready share all of it. Nothing of the run itself is read, and nothing is kept but
the cache; the duplicates across batches need little code and are left to the first that meets them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from atoll.core.files import disk_full_named
from atoll.data.engine.annotate import statistics
from atoll.data.engine.curate.corpus import NOTES, SCHEMA, SIGNATURES, TEXTS, Corpus, write_array, write_batch
from atoll.data.engine.curate.intake import Notation, noted
from atoll.data.engine.dedup import Dedup, Near, Spans, find_duplicates
from atoll.data.engine.gather import gathered
from atoll.data.engine.kernel import IS_COMPILED, is_kept
from atoll.data.engine.normalise.text import normalise_column
from atoll.data.engine.runtimes.stages import Inline, Stages

_TEXT = "A few words, and a few more words to be read: call 010-6552-9988, or write to the address of the house.\n"
_TEXTS = [_TEXT * 3, _TEXT * 3 + "One more.", "一些文字用来读一读。"]


def is_compiling() -> bool:
    """Whether `prepare` will take tens of seconds, for the cache has no machine code yet."""
    return IS_COMPILED and not is_kept(statistics.measure_texts)


def prepare(wanted: tuple[Notation, Dedup, Path]) -> None:
    """Call what a run calls that notes, deduplicates and cuts so; what comes of it lies in `state` for a moment."""
    notation, spec, state = wanted
    with _folder(state) as folder:
        noted(_documents(notation.normalise.unicode), notation, folder / "batch")
        corpus = _deduplicated(folder, spec)
        texts = corpus.batches[0].texts
        gathered(Spans(np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.int64)).apply(texts), np.arange(1))


def prepare_deciding(spec: Dedup, state: Path) -> None:
    """Call what the process that decides calls, unless that is yet to be compiled; it needs next to no notes."""
    if is_compiling():
        return
    near, count = spec.near or Near(), len(_TEXTS)
    with _folder(state) as folder:
        (folder / "batch").mkdir()
        numbers = np.arange(count)
        notes = {"digest_low": pa.array(numbers.astype(np.uint64)), "digest_high": pa.array(numbers.astype(np.uint64))}
        write_batch(folder / "batch" / TEXTS, _documents("nfc"))
        write_batch(folder / "batch" / NOTES, pa.record_batch(notes | {"characters": pa.array(numbers)}))
        write_array(folder / "batch" / SIGNATURES, np.zeros((count, near.permutations), np.uint32))
        _deduplicated(folder, spec)


def _documents(unicode: str) -> pa.RecordBatch:
    columns = {name: pa.array([""] * len(_TEXTS), pa.string()) for name in SCHEMA.names}
    texts = normalise_column(_TEXTS, ["text"] * len(_TEXTS), unicode)
    return pa.record_batch(columns | {"id": pa.array(["1", "2", "3"], pa.string()), "text": texts}, SCHEMA)


@contextmanager
def _folder(state: Path) -> Iterator[Path]:
    state.mkdir(parents=True, exist_ok=True)
    with disk_full_named(state), tempfile.TemporaryDirectory(prefix=".prepare-", dir=state) as name:
        yield Path(name)


def _deduplicated(folder: Path, spec: Dedup) -> Corpus:
    corpus = Corpus.of([folder / "batch"], [len(_TEXTS)])
    find_duplicates(corpus, Stages(folder / "state", Inline(), is_durable=False), spec, np.ones(len(corpus), bool))
    return corpus


def plain(spec: Dedup) -> Dedup:
    """What of the deduplication is prepared: no models, and no index of earlier runs."""
    near = spec.near or Near()
    return Dedup(spec.exact, spec.url, near, spec.lines, spec.substrings)
