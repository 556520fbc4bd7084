"""What holds versions of a dataset: tags, what learned from them, and runs that read them now.

Retention keeps such a version, and a dataset that has one is not deleted with all its versions at a word.
Pure: resources in, words out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from atoll.core.resources import Resource, World

SHOWN_MAX = 5


def holders_of(versions: Sequence[Resource], dataset: Resource, world: World) -> dict[str, str]:
    """Why versions of the dataset are held, by their names; those nothing holds are left out."""
    found: dict[str, str] = {}
    for name, why in _holders(versions, dataset, world):
        found.setdefault(name, why)
    names = {version.name for version in versions}
    return {name: why for name, why in found.items() if name in names}


def held(world: World, dataset: Resource) -> str:
    """Why a dataset may not be deleted with all its versions, "" when it may."""
    found = holders_of(versions_in(world, dataset), dataset, world)
    said = [f"{name} {why}" for name, why in sorted(found.items())]
    more = f" and {len(said) - SHOWN_MAX} more" if len(said) > SHOWN_MAX else ""
    return "; ".join(said[:SHOWN_MAX]) + more


def versions_in(world: World, dataset: Resource) -> list[Resource]:
    """The versions of a dataset, those on their way out among them."""
    found = world.find_all("DatasetVersion")
    return [v for v in found if v.project == dataset.project and v.spec["dataset"] == dataset.name]


def _holders(versions: Sequence[Resource], dataset: Resource, world: World) -> Iterator[tuple[str, str]]:
    """(version, why), of the dataset and of others."""
    manifests = {v.spec["manifest"]: v.name for v in versions}
    for workload in _of(dataset, "Workload", world):
        if workload.phase not in ("succeeded", "failed"):
            for text in (t for role in workload.spec["roles"] for t in _texts(role.get("input", {}))):
                if text in manifests:
                    yield manifests[text], f"is being read by workload {workload.name!r}"
    for tag, name in dataset.spec.get("tags", {}).items():
        yield name, f"is tagged {tag!r}"
    for run in _of(dataset, "TrainingRun", world):
        yield str(run.status.get("dataset_version") or ""), f"was learned from by training run {run.name!r}"
    for quality in _of(dataset, "QualityModel", world):
        for name in quality.status.get("datasets", ()):
            yield name, f"was learned from by quality model {quality.name!r}"
    for model in _of(dataset, "ModelVersion", world):
        yield str(model.status.get("origin", {}).get("dataset") or ""), f"was learned from by model {model.name!r}"


def _of(dataset: Resource, kind: str, world: World) -> list[Resource]:
    return [r for r in world.find_all(kind) if r.project == dataset.project and not r.is_deleting]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)
