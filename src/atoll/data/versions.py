"""Versions of datasets: what a reference stands for, which number is free, and the write that makes a version.

A version is on a branch; a branch's head is its newest ready version. DATASET.vN, DATASET, DATASET@BRANCH and
DATASET@TAG are references; where a tag and a branch share a name, the tag is meant.
It does not know what stands in a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Forbidden, Invalid, NotFound
from atoll.core.resources import Resource, check_name
from atoll.core.store import Create, Scope, Write
from atoll.data.resources import DATASET, DATASET_VERSION

MAIN = "main"
"""The branch a version is on unless told otherwise."""

TAGS = "@"
SHOWN_MAX = 5


def branch_of(version: Resource) -> str:
    """The branch a version is on."""
    return str(version.spec.get("branch") or MAIN)


def versions_of(scope: Scope, project: str, dataset: str) -> list[Resource]:
    """All versions of a dataset that are not on their way out, oldest first."""
    found = [v for v in scope.find_all("DatasetVersion") if v.project == project and v.spec["dataset"] == dataset]
    return sorted((v for v in found if not v.is_deleting), key=_age)


def by_branch(versions: Iterable[Resource]) -> dict[str, list[Resource]]:
    """Versions of each branch, in the order given; main first."""
    found: dict[str, list[Resource]] = {}
    for version in versions:
        found.setdefault(branch_of(version), []).append(version)
    return {name: found[name] for name in sorted(found, key=lambda name: (name != MAIN, name))}


def number_of(version: str, dataset: str) -> int:
    """N of DATASET.vN; 0 for any other name."""
    text = version.removeprefix(f"{dataset}.v")
    return int(text) if text != version and text.isdecimal() else 0


def next_version(scope: Scope, project: str, dataset: str) -> str:
    """A free version name, DATASET.vN; a number is not given again after its version went."""
    found = scope.find_all("DatasetVersion")
    numbers = [number_of(v.name, dataset) for v in found if v.project == project]
    known = scope.find("Dataset", dataset, project)
    numbered = int(known.status.get("numbered") or 0) if known is not None else 0
    return check_name(f"{dataset}.v{max([numbered, *numbers]) + 1}")


def resolve(scope: Scope, project: str, reference: str) -> Resource | None:
    """The version `reference` stands for: DATASET.vN, DATASET, DATASET@BRANCH or DATASET@TAG.

    None while the dataset, or the branch, has no ready version yet. NotFound names the tags and branches there are.
    """
    name, at, wanted = reference.partition(TAGS)
    if not at:
        version = scope.find("DatasetVersion", reference, project)
        if version is not None and not version.is_deleting:
            return version
    dataset = scope.find("Dataset", name, project)
    if dataset is None:
        _refuse_number(scope, project, name)
        hint = "make one by a CurationRun, a DatasetImport or `atoll data import`"
        raise NotFound(f"there is no dataset {name!r} in project {project!r}", hint=hint)
    if not at:
        return _head(scope, dataset)
    if wanted in dataset.spec.get("tags", {}):
        return scope.get("DatasetVersion", dataset.spec["tags"][wanted], project)
    ready = [v for v in versions_of(scope, project, name) if v.phase == "ready"]
    branches = by_branch(ready)
    if wanted in branches:
        return branches[wanted][-1]
    if any(branch_of(v) == wanted for v in versions_of(scope, project, name)):
        return None
    known = ", ".join([*dataset.spec.get("tags", {}), *branches]) or "none"
    raise NotFound(f"dataset {name!r} has no branch or tag {wanted!r}", hint=f"it has: {known}")


def _refuse_number(scope: Scope, project: str, name: str) -> None:
    """NotFound when `name` is a version a dataset does not have (any more)."""
    found = scope.find("Dataset", name.rpartition(".v")[0], project)
    if found is not None and number_of(name, found.name):
        known = ", ".join(v.name for v in versions_of(scope, project, found.name)[-SHOWN_MAX:]) or "none"
        raise NotFound(f"dataset {found.name!r} has no version {name!r}", hint=f"its newest: {known}")


def meant(scope: Scope, project: str, reference: str, *, may_be_new: bool = False) -> list[Resource] | None:
    """The versions a reference means where the documents of all of them are asked for, oldest first.

    A dataset stands for all its versions, DATASET@BRANCH for those of the branch, a tag or a version for one. None
    while one is still being checked, or there is none yet; where the dataset `may_be_new` none is an answer. NotFound
    as of `resolve`.
    """
    name, at, wanted = reference.partition(TAGS)
    dataset = scope.find("Dataset", name, project)
    tags = {} if dataset is None else dataset.spec.get("tags", {})
    if wanted in tags or (dataset is None and not may_be_new):
        one = resolve(scope, project, reference)
        found = [] if one is None else [one]
    else:
        every = [v for v in versions_of(scope, project, name) if v.phase != "failed"]
        found = [v for v in every if not at or branch_of(v) == wanted]
        if not found and not may_be_new:
            resolve(scope, project, reference)
    is_settled = all(version.phase == "ready" for version in found)
    return found if is_settled and (found or may_be_new) else None


def _head(scope: Scope, dataset: Resource) -> Resource | None:
    latest = dataset.status.get("latest")
    found = scope.find("DatasetVersion", latest, dataset.project) if latest else None
    return None if found is None or found.is_deleting else found


@dataclass(frozen=True, slots=True)
class Made:
    """The version that holds a manifest, and the writes that make it: none when it was there."""

    version: str
    writes: list[Write]


def make_version(
    scope: Scope,
    project: str,
    dataset: str,
    manifest: str,
    *,
    branch: str = MAIN,
    curation_run: str = "",
    made_by: str = "",
    parents: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Made:
    """The version of `dataset` with this manifest digest on `branch`.

    When the newest version of the branch has the same manifest, that is the version, and nothing is written. The
    dataset itself is made when it is not there. Two makers at once: one batch is refused with Conflict; ask again.
    Forbidden when an erasure replaced this very manifest: what was erased does not come back by the same door.
    """
    _refuse_erased(scope, project, manifest)
    branches = by_branch(v for v in versions_of(scope, project, dataset) if v.phase != "failed")
    head = branches[branch][-1] if branch in branches else None
    if head is not None and head.spec["manifest"] == manifest:
        return Made(head.name, [])
    wanted: dict[str, Any] = {"dataset": dataset, "branch": branch, "manifest": manifest, "parents": list(parents)}
    wanted |= {"curation_run": curation_run, "made_by": made_by, "counts": dict(counts or {})}
    spec = DATASET_VERSION.parse_spec(wanted)
    name = next_version(scope, project, dataset)
    status = {"phase": "pending", "reason": "", "observed_generation": 0}
    writes: list[Write] = [Create("DatasetVersion", project, name, spec, status, dict(labels or {}))]
    if scope.find("Dataset", dataset, project) is None:
        writes.insert(0, Create("Dataset", project, check_name(dataset), DATASET.parse_spec({}), {"phase": "pending"}))
    return Made(name, writes)


def _refuse_erased(scope: Scope, project: str, manifest: str) -> None:
    for erasure in scope.find_all("Erasure"):
        if erasure.project == project and any(v["before"] == manifest for v in erasure.status.get("versions", ())):
            words = f"erasure {erasure.name!r} removed documents of this version"
            raise Forbidden(words, hint="take them out of its sources, then make it anew", manifest=manifest)


def parents_of(scope: Scope, project: str, references: Iterable[str]) -> list[str]:
    """Names of the versions that `references` stand for now; Invalid names one that stands for none."""
    found: dict[str, None] = {}
    for reference in references:
        version = resolve(scope, project, reference)
        if version is None:
            raise Invalid(f"dataset {reference!r} has no ready version", field="parents", hint="wait until it has one")
        found[version.name] = None
    return list(found)


def _age(version: Resource) -> tuple[float, int, str]:
    return (version.created_at, number_of(version.name, version.spec["dataset"]), version.name)
