"""Controllers of datasets: versions tell the facts of their manifests, datasets know and end their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, Invalid, NotFound
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Change, Create, MarkDeleting, SetStatus
from atoll.data.layout import facts_of, members
from atoll.data.manifest import read_manifest
from atoll.data.resources import DATASET
from atoll.data.retention import expire, kept_by
from atoll.data.versions import MAIN, by_branch, next_version, number_of, resolve, versions_of

__all__ = ["DatasetController", "DatasetVersionController", "next_version", "resolve"]


class DatasetVersionController(Controller):
    """A version is ready when its manifest and all its shards are in the blob store; its status tells their facts."""

    name = "dataset-versions"
    owns = "DatasetVersion"

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def reconcile(self, key: Key, world: Writer) -> float | None:
        version = world.read(key)
        if version is None or version.is_deleting or _is_settled(version):
            return None
        dataset = version.spec["dataset"]
        if world.scope.find("Dataset", dataset, version.project) is None:
            world.write(Create("Dataset", version.project, dataset, DATASET.parse_spec({}), {"phase": "pending"}))
        facts, reason = self._looked_at(version)
        status = (
            version.status
            | facts
            | {
                "phase": "failed" if reason else "ready",
                "reason": reason,
                "observed_generation": version.generation,
            }
        )
        if status != version.status:
            world.write(SetStatus(version, status, status["phase"].capitalize(), reason))
        return None

    def _looked_at(self, version: Resource) -> tuple[dict[str, Any], str]:
        """What the manifest tells, and why the version cannot be used ("" when it can)."""
        digest = version.spec["manifest"]
        try:
            manifest = read_manifest(self._blobs, digest)
            facts = facts_of(manifest)
        except NotFound:
            return {}, f"manifest {digest} is not in the blob store"
        except (Invalid, IntegrityError) as error:
            return {}, str(error)
        missing = (path for path, shard in members(manifest) if not self._blobs.exists(shard.digest))
        lost = next(missing, None)
        return facts, f"shard {lost} is not in the blob store" if lost else ""


class DatasetController(Controller):
    """Keeps each dataset's branches and list of ready versions, and ends versions its retention does not keep."""

    name = "datasets"
    owns = "Dataset"
    watches = ("DatasetVersion", "TrainingRun", "ModelVersion", "QualityModel")

    def keys_for(self, change: Change, world: Writer) -> Iterable[Key]:
        version = world.read(change.key)
        if change.kind == "DatasetVersion" and version is not None:
            return [Key("Dataset", change.project, version.spec["dataset"])]
        if version is not None:  # a run or model that lives only adds to what is kept
            return []
        return [d.key for d in world.scope.find_all("Dataset") if d.project == change.project]

    def reconcile(self, key: Key, world: Writer) -> float | None:
        dataset = world.read(key)
        if dataset is None or dataset.is_deleting:
            return None
        versions = versions_of(world.scope, dataset.project, dataset.name)
        ready = [v for v in versions if v.phase == "ready"]
        kept = kept_by(ready, dataset, world.scope)
        due = expire(ready, dataset.spec.get("retention") or {}, kept, world.clock.now())
        if due.versions:
            world.write(*(MarkDeleting(v, "Expired", f"retention of {dataset.name}") for v in due.versions))
        gone = {v.name for v in due.versions}
        status = _summary(dataset, [v for v in ready if v.name not in gone], versions)
        status |= {"next_expiry_at": due.next_at}
        if status != dataset.status:
            come = [name for name in status["versions"] if name not in dataset.status.get("versions", ())]
            world.write(SetStatus(dataset, status, "VersionReady" if come else "", ", ".join(come)))
        return max(0.0, due.next_at - world.clock.now()) if due.next_at else None


def _summary(dataset: Resource, ready: list[Resource], versions: list[Resource]) -> dict[str, Any]:
    branches = {name: [v.name for v in found] for name, found in by_branch(ready).items()}
    lost = sorted(tag for tag, name in dataset.spec.get("tags", {}).items() if name not in {v.name for v in versions})
    reason = f"tag {lost[0]!r} names {dataset.spec['tags'][lost[0]]!r}, which is no version of it" if lost else ""
    heads = branches.get(MAIN) or [v.name for v in ready]
    numbers = [number_of(v.name, dataset.name) for v in versions]
    return {
        "phase": "ready" if ready else "pending",
        "reason": reason or ("" if ready else "no version is ready"),
        "observed_generation": dataset.generation,
        "versions": [v.name for v in ready],
        "latest": heads[-1] if heads else "",
        "branches": branches,
        "numbered": max([int(dataset.status.get("numbered") or 0), *numbers]),
    }


def _is_settled(version: Resource) -> bool:
    return version.phase == "ready" and version.status.get("observed_generation") == version.generation
