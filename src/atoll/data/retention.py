"""Retention: which versions of a dataset no rule keeps any more.

`expire` is pure. Blobs are not touched here: what no version refers to is collected later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.core.resources import Resource
from atoll.core.store import Scope
from atoll.data.versions import by_branch

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Due:
    """Versions that go now, and the Unix time at which the next one is due (0: none by time)."""

    versions: list[Resource] = field(default_factory=list)
    next_at: float = 0.0


def expire(versions: Sequence[Resource], rules: Mapping[str, Any], kept: Collection[str], now: float) -> Due:
    """What goes of `versions` (oldest first) by `rules`; names in `kept` and heads of branches always stay.

    A version goes when neither rule keeps it: it is not among the newest `keep_last` of its branch, and it is older
    than `keep_days`. A rule that is not set keeps nothing, unless neither is.
    """
    last, days = rules.get("keep_last"), rules.get("keep_days")
    if last is None and days is None:
        return Due()
    gone, moments = [], []
    for branch in by_branch(versions).values():
        for version in branch[: -(last or 1)]:
            ends_at = version.created_at + days * DAY_S if days is not None else 0.0
            if version.name in kept:
                continue
            if ends_at <= now:
                gone.append(version)
            else:
                moments.append(ends_at)
    return Due(gone, min(moments, default=0.0))


def kept_by(versions: Sequence[Resource], dataset: Resource, scope: Scope) -> set[str]:
    """Names of versions that stay whatever the rules say: tagged, learned from, or read by a run that goes on."""
    names = {v.name for v in versions}
    kept = set(dataset.spec.get("tags", {}).values())
    for run in scope.find_all("TrainingRun"):
        if run.project == dataset.project and not run.is_deleting:
            kept.add(str(run.status.get("dataset_version") or ""))
    for model in scope.find_all("ModelVersion"):
        if model.project == dataset.project and not model.is_deleting:
            kept.add(str(model.status.get("origin", {}).get("dataset") or ""))
    manifests = {v.spec["manifest"]: v.name for v in versions}
    kept |= {manifests[digest] for digest in _being_read(scope, dataset.project) if digest in manifests}
    return kept & names


def _being_read(scope: Scope, project: str) -> set[str]:
    """Digests in the inputs of the project's workloads that have not ended."""
    found: set[str] = set()
    for workload in scope.find_all("Workload"):
        if workload.project == project and workload.phase not in ("succeeded", "failed"):
            for role in workload.spec["roles"]:
                found |= set(_texts(role.get("input", {})))
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]
