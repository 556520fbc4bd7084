"""Known: datasets whose documents are not new, as an index to look up in.

A dataset that was made with `dedup.known` keeps an index of the documents its run kept, as they were read, in a table
of its own; then what is known is exactly what a kept folder (`dedup.index`) would know. Of any other dataset the index
is made of its texts as they are, so a text that lost lines or personal data is told by likeness alone, and URLs are
not known. An erasure takes rows out of both, so what was erased is new again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from atoll.core.blobs import BlobStore, digest_of
from atoll.core.errors import Invalid
from atoll.data.engine.curate import intake
from atoll.data.engine.curate.curation import PART_BYTES, Place
from atoll.data.engine.curate.plan import Near, Plan, Source
from atoll.data.engine.dedup import Dedup, index
from atoll.data.engine.dedup.entries import TABLE
from atoll.data.engine.read import plan_parts
from atoll.data.engine.runtimes.stages import Runtime, Stages
from atoll.data.layout import MANIFEST, path_of
from atoll.data.manifest import Manifest, decode_manifest, read_manifest

STATE = "known-"
TEXTS = ("train", "heldout")
SHAPING = ("permutations", "words", "cjk_characters")
"""Settings of near duplicates that an index is made of; a threshold can be another."""

File = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """A dataset, by its name and the digest of its manifest, with its files here, (name, path) each: those of its
    index, made with the settings `near`; of its texts when `near` is None."""

    name: str
    digest: str
    near: dict[str, Any] | None
    files: tuple[File, ...]


def known_of(store: BlobStore, name: str, digest: str, folder: Path) -> Known:
    """The version `name` with the manifest `digest`, fetched below `folder`."""
    manifest = read_manifest(store, digest)
    place = folder / digest.replace(":", "-")
    near = _near_of(manifest)
    files = []
    for part, number, shard in _wanted(manifest, near):
        path = path_of(part, number)
        files.append((path, str(store.fetch(shard, place / path))))
    return Known(name, digest, near, tuple(files))


def known_in(folder: Path) -> Known:
    """The dataset in `folder`, as curation leaves it."""
    path = folder / MANIFEST
    if not path.is_file():
        hint = "a folder that `atoll data curate` made; names of datasets are known to the platform alone"
        raise Invalid(f"{folder} is not a dataset", field="recipe.dedup.known", hint=hint)
    data = path.read_bytes()
    manifest = decode_manifest(data)
    near = _near_of(manifest)
    paths = [path_of(part, number) for part, number, _ in _wanted(manifest, near)]
    return Known(str(folder), digest_of(data), near, tuple((path, str(folder / path)) for path in paths))


def indexed(plan: Plan, known: Sequence[Known], place: Place, runtime: Runtime, report: Any) -> Plan:
    """The plan with an index of what is known, below the state of the run.

    Invalid when one keeps an index made with other signatures or shingles.
    """
    if not known:
        return plan
    for item in known:
        _check(item, plan.near)
    folder = place.state / f"{STATE}{_fingerprint(plan, known)}"
    for other in place.state.glob(f"{STATE}*"):
        if other != folder:
            shutil.rmtree(other)
    for number, item in enumerate(known):
        report("known", number, len(known), "dataset")
        name = item.digest.replace(":", "-")
        if item.near is not None:
            index.add_tables(folder, [Path(path) for _, path in item.files], plan.near, name)
        elif not (folder / name).exists():
            _index_texts(item, plan, place, Stages(folder, runtime, report).below(f".{name}"), folder)
    return replace(plan, dedup=replace(plan.dedup, index=str(folder)))


def _index_texts(item: Known, plan: Plan, place: Place, stages: Stages, folder: Path) -> None:
    """Add the texts of a dataset, read and normalised as this run reads."""
    source = Source(kind="dataset", name="known", reference=item.digest)
    parts = plan_parts(source, "recipe.dedup.known", part_bytes=PART_BYTES, files=item.files) if item.files else []
    bare = replace(plan, rules=(), language=None, quality=(), words=(), privacy=None)
    notation = intake.notation_of(bare, place.cache)
    items = [intake.Item(part, notation, place.limits, place.batch_bytes) for part in parts]
    taken = [intake.taken_from(read) for read in stages.map("read", intake.take_in, items, "part")]
    corpus = intake.corpus_of(taken)
    index.add(folder, corpus, np.ones(len(corpus), bool), Dedup(near=plan.near), item.digest.replace(":", "-"))
    shutil.rmtree(stages.folder, ignore_errors=True)


def _fingerprint(plan: Plan, known: Sequence[Known]) -> str:
    """Of all that an index depends on, and of what is in it."""
    wanted = [asdict(plan.near), asdict(plan.normalise), [item.digest for item in known]]
    return hashlib.sha256(orjson.dumps(wanted)).hexdigest()[:20]


def _near_of(manifest: Manifest) -> dict[str, Any] | None:
    """What the index of a dataset was made with; None when it keeps none."""
    if TABLE not in manifest.tables:
        return None
    return asdict(Near()) | (manifest.recipe.get("dedup", {}).get("near") or {})


def _wanted(manifest: Manifest, near: dict[str, Any] | None) -> list[tuple[str, int, str]]:
    parts = {**manifest.splits, **manifest.tables}
    names = TEXTS if near is None else (TABLE,)
    shards = [(name, shards) for name in names if (shards := parts.get(name)) is not None]
    return [(name, number, shard.digest) for name, part in shards for number, shard in enumerate(part.shards)]


def _check(item: Known, near: Near) -> None:
    wanted = asdict(near)
    if item.near is None or all(item.near[name] == wanted[name] for name in SHAPING):
        return
    kept, asked = (", ".join(f"{name} {of[name]}" for name in SHAPING) for of in (item.near, wanted))
    raise Invalid(
        f"{item.name} keeps an index made with {kept}, not with {asked}",
        field="recipe.dedup.near",
        hint="use its settings under dedup.near, or leave it out of dedup.known",
    )
