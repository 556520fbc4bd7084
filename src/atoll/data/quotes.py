"""Quotes: resources that hold one of the texts an erasure is about, or a sample of a document that is to go.

A run that ended is only a record; one that quotes, as a funnel with its samples or a refused line does, goes. What
people wrote themselves is theirs to change and is named. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.compute.jobs import ENDED
from atoll.core.resources import Resource
from atoll.data.sought import Sought

RUNS = frozenset({"CurationRun", "DatasetImport", "LabelRun", "SynthesisRun", "Workload"})
"""Kinds of which one that ended is a record of what was done."""

PARTS = frozenset({"Task", "Replica"})
"""Kinds that stand for what owns them, and go with it."""

TOLD = frozenset({"DatasetVersion", "Erasure", "File"})
"""Kinds that are written anew, removed or forgotten elsewhere."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """`records` go; `others` are named, as KIND/NAME."""

    records: list[Resource] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def quotes_in(resources: Sequence[Resource], sought: Sought, own_uid: str) -> Quotes:
    """Those of one project's resources that quote, but for what the erasure `own_uid` itself has made."""
    by_uid = {resource.uid: resource for resource in resources}
    quoting: dict[str, Resource] = {}
    for resource in resources:
        if resource.kind not in TOLD and _quotes(resource, by_uid, sought):
            told = by_uid.get(resource.owner or "", resource) if resource.kind in PARTS else resource
            quoting[told.uid] = told
    found = [r for r in quoting.values() if not r.is_deleting and own_uid not in (r.uid, r.owner)]
    records = [r for r in found if r.kind in RUNS and r.phase in ENDED]
    others = sorted({f"{r.kind}/{r.name}" for r in found if r not in records and r.owner is None})
    return Quotes(records, others)


def _quotes(resource: Resource, by_uid: Mapping[str, Resource], sought: Sought) -> bool:
    if sought.is_in(resource.name, resource.labels, resource.spec, resource.status):
        return True
    run = resource
    while (owner := by_uid.get(run.owner or "")) is not None:
        run = owner
    return sought.is_sampled_in(str(run.spec.get("dataset", "")), resource.status)
