"""A curation: documents in, a dataset out, in four steps that are each kept on disk.

    read    parts of the input, in batches, annotated              state/read-…/read/NNNNNN
    decide  who stays and why, from the notes of all documents     state/decide-…/decision, made again after a restart
    write   treated texts by side of the split, and tables         state/write-…/write/NNNNNN
    finish  files to their place, the manifest last

Each step's folder is named by a fingerprint of what it depends on, so a run that was killed goes on, and one with
other thresholds begins with what was read. Whatever works the items off, the bytes are the same.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from atoll.data.engine.curate import fingerprints, intake, write
from atoll.data.engine.curate import prepare as preparing
from atoll.data.engine.curate.corpus import Corpus
from atoll.data.engine.curate.decide import Decision, decide, decision_in, dedup_of
from atoll.data.engine.curate.funnel import all_dropped, funnel_of
from atoll.data.engine.curate.intake import Taken
from atoll.data.engine.curate.judge import KEPT
from atoll.data.engine.curate.plan import Plan
from atoll.data.engine.curate.treat import Treatment
from atoll.data.engine.curate.write import Writing
from atoll.data.engine.dedup import index
from atoll.data.engine.questions import asking
from atoll.data.engine.questions.asking import Asking
from atoll.data.engine.read import Limits, Part, nothing_readable, patterns_of, plan_parts
from atoll.data.engine.runtimes.stages import Runtime, Stages

Report = Callable[..., None]

PART_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its state. `files` are those fetched for a source: by its name, (name, path) each.

    `cache` is a folder for what any run may use.
    `key` is the project's, for hashes and stand-ins of personal data.
    """

    state: Path
    cache: str = ""
    key: bytes = field(default=b"", repr=False)
    files: dict[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    batch_bytes: int = intake.BATCH_BYTES
    part_bytes: int = PART_BYTES
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Curated:
    """What a run came to, before it is put anywhere. `run` names what it read; `passed_over` counts by suffix the
    files that no pattern names.
    """

    plan: Plan
    taken: tuple[Taken, ...]
    decision: Decision
    written: tuple[Path, ...]
    asked: tuple[Path, ...]
    asking: Asking
    counts: tuple[dict[str, Any], ...]
    funnel: list[dict[str, Any]]
    passed_over: dict[str, int]
    input_bytes: int
    run: str

    @property
    def documents(self) -> int:
        """How many documents were read."""
        return sum(sum(part.rows) for part in self.taken)

    @property
    def kept(self) -> int:
        """How many stay."""
        return sum(told["documents"] for told in self.counts)


def curate(plan: Plan, place: Place, runtime: Runtime, report: Report = lambda *args, **more: None) -> Curated:
    """Read, decide and write; Invalid for sources without documents, and when every document is dropped."""
    parts = parts_of(plan, place)
    items = _items(plan, place, parts)
    reading = fingerprints.of_reading(plan, items)
    stages = Stages(place.state, runtime, report).below(f"read-{reading}")
    if not all((stages.folder / "read" / f"{number:06d}").exists() for number in range(len(items))):
        _prepare(plan, place, runtime, report)
    taken = tuple(intake.taken_from(folder) for folder in stages.map("read", intake.take_in, items, "part"))
    _check_readable(plan, parts, taken)
    corpus = intake.corpus_of(taken)
    deciding = fingerprints.of_deciding(plan, reading)
    deciding_stages = Stages(place.state, runtime, report).until_restart(f"decide-{deciding}")
    decision = _decided(plan, corpus, deciding_stages, reading)
    writing = fingerprints.of_writing(plan, deciding, place.key)
    written = Stages(place.state, runtime, report).until_restart(f"write-{writing}")
    curated = _written(plan, place, parts, taken, decision, written, reading)
    _forget_others(place.state, {f"read-{reading}", deciding_stages.folder.name, written.folder.name})
    if not curated.kept:
        raise all_dropped(curated.documents, curated.funnel)
    return curated


def _prepare(plan: Plan, place: Place, runtime: Runtime, report: Report) -> None:
    """Make the workers ready once, in one process, before any of them has an item."""
    if preparing.is_compiling():
        report("compiling for this machine, once", 0)
    notation = intake.notation_of(plan, place.cache)
    spec = preparing.plain(dedup_of(plan, ""))
    runtime.prepare(
        preparing.prepare, (notation, spec, place.state), lambda: preparing.prepare_deciding(spec, place.state)
    )


def remember(curated: Curated) -> None:
    """Add what was kept to the folder of an index the recipe names, if any; once the dataset is where it belongs."""
    if curated.plan.dedup.index and not curated.plan.known:
        spec = dedup_of(curated.plan, curated.run)
        kept = np.asarray(curated.decision.reasons) == KEPT
        index.add(Path(spec.index), intake.corpus_of(curated.taken), kept, spec, curated.run)


def parts_of(plan: Plan, place: Place) -> list[Part]:
    """The parts of all sources, in their order; Invalid names the source that cannot be read."""
    patterns = patterns_of(plan.recipe.get("preset", "documents"))
    found: list[Part] = []
    for number, source in enumerate(plan.sources):
        prefix = f"{source.name}/" if len(plan.sources) > 1 else ""
        more = {"prefix": prefix, "files": place.files.get(source.name), "patterns": patterns}
        found += plan_parts(source, f"sources[{number}]", part_bytes=place.part_bytes, **more)  # type: ignore[arg-type]
    return found


def _items(plan: Plan, place: Place, parts: Sequence[Part]) -> list[intake.Item]:
    notation = intake.notation_of(plan, place.cache)
    return [intake.Item(part, notation, place.limits, place.batch_bytes) for part in parts]


def _check_readable(plan: Plan, parts: Sequence[Part], taken: Sequence[Taken]) -> None:
    """Every source gave a document."""
    for number, source in enumerate(plan.sources):
        mine = [got for part, got in zip(parts, taken, strict=True) if part.source == source.name]
        if not any(sum(got.rows) for got in mine):
            refused = [item for got in mine for item in got.refused]
            passed_over = [item for got in mine for item in got.passed_over]
            raise nothing_readable(source, f"sources[{number}]", refused, passed_over)


def _decided(plan: Plan, corpus: Corpus, stages: Stages, run: str) -> Decision:
    stages.report("decide", 0, None, "document")
    return decision_in(stages.once("decision", lambda _, folder: decide(plan, corpus, stages, folder, run), None))


def _written(
    plan: Plan,
    place: Place,
    parts: Sequence[Part],
    taken: tuple[Taken, ...],
    decision: Decision,
    stages: Stages,
    run: str,
) -> Curated:
    corpus = intake.corpus_of(taken)
    questions = Asking(plan.questions, has_chats(corpus))
    index = None if plan.known is None else plan.near
    treatment = Treatment(plan.privacy, place.key, plan.words, place.cache)
    writing = Writing(decision, treatment, questions, plan.pack, plan.min_characters, index)
    folders = stages.map("write", write.write_out, write.items_of(corpus, writing), "share")
    counts = tuple(write.counts_in(folder) for folder in folders)
    asked = _asked(folders, questions, stages)
    refused = [item for part in taken for item in part.refused]
    funnel = funnel_of(refused, write.names_of(decision), decision.names, counts)
    return Curated(
        plan,
        taken,
        decision,
        written=tuple(folders),
        asked=asked,
        asking=questions,
        counts=counts,
        funnel=funnel,
        passed_over=_passed_over(parts, taken),
        input_bytes=sum(part.bytes for part in parts),
        run=run,
    )


def _passed_over(parts: Sequence[Part], taken: Sequence[Taken]) -> dict[str, int]:
    """Files beside those that were read, and members of archives, that no pattern names: how many by suffix."""
    total: Counter[str] = Counter()
    counts = [*(part.passed_over for part in parts), *(part.passed_over for part in taken)]
    for suffix, files in chain.from_iterable(counts):
        total[suffix] += files
    return dict(sorted(total.items()))


def _asked(folders: Sequence[Path], questions: Asking, stages: Stages) -> tuple[Path, ...]:
    if not questions.is_wanted:
        return ()
    items = asking.items_of(folders, stages.folder / "asked.npy", questions)
    return tuple(stages.map("ask", asking.ask, items, "share"))


def has_chats(corpus: Corpus) -> bool:
    """Whether any document is a chat."""
    return any("chat" in batch.documents.column("kind").unique().to_pylist() for batch in corpus)


def _forget_others(state: Path, used: set[str]) -> None:
    """Remove what earlier runs with other recipes kept here."""
    for path in state.iterdir():
        if path.name.startswith(("read-", "decide-", "write-")) and path.name not in used:
            shutil.rmtree(path, ignore_errors=True)
