"""Prepare: a process is made ready for the items of a run before the first comes, on a few words of its own.

What the run will call is called once: machine code is made where the cache has none, models and tables are loaded.
Workers forked from a process made ready share all of it. Nothing of the run itself is read, and nothing is kept but
the cache; the duplicates across batches need little code and are left to the first that meets them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from atoll.core.files import disk_full_named
from atoll.data.engine.annotate import statistics
from atoll.data.engine.curate.corpus import SCHEMA, Corpus
from atoll.data.engine.curate.intake import Notation, noted
from atoll.data.engine.dedup import Dedup, Near, find_duplicates
from atoll.data.engine.kernel import IS_COMPILED, is_kept
from atoll.data.engine.runtimes.stages import Inline, Stages

_TEXT = "A few words, and a few more words to be read: call 010-6552-9988, or write to the address of the house.\n"
_TEXTS = [_TEXT * 3, _TEXT * 3 + "One more.", "一些文字用来读一读。"]


def is_compiling() -> bool:
    """Whether `prepare` will take tens of seconds, for the cache has no machine code yet."""
    return IS_COMPILED and not is_kept(statistics.measure_texts)


def prepare(wanted: tuple[Notation, Dedup, Path]) -> None:
    """Call what a run calls that notes and deduplicates so; what comes of it lies below the folder for a moment."""
    notation, spec, state = wanted
    columns = {name: pa.array([""] * len(_TEXTS), pa.string()) for name in SCHEMA.names}
    columns |= {"id": pa.array(["1", "2", "3"], pa.string()), "text": pa.array(_TEXTS, pa.string())}
    state.mkdir(parents=True, exist_ok=True)
    with disk_full_named(state), tempfile.TemporaryDirectory(prefix=".prepare-", dir=state) as name:
        folder = Path(name)
        noted(pa.record_batch(columns, SCHEMA), notation, folder / "batch")
        corpus = Corpus.of([folder / "batch"], [len(_TEXTS)])
        find_duplicates(corpus, Stages(folder / "state", Inline()), spec, np.ones(len(corpus), bool))


def plain(spec: Dedup) -> Dedup:
    """What of the deduplication is prepared: no models, and no index of earlier runs."""
    near = spec.near or Near()
    return Dedup(spec.exact, spec.url, near, spec.lines, spec.substrings)
