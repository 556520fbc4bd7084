"""Sealing anew: after a project's key was rotated its files are sealed under the new one, then the older keys go.

File by file: the bytes are sealed again, which gives the same blob however often it is begun, then the file names the
new blob. A pass that finds nothing under an older key, while nothing is left that might still read or write with one,
ends it: the older keys are taken out of the store in the batch that says so. Killed anywhere, it goes on.
The first key of a project is derived and lies nowhere: it is refused from then on, and gone with the centre's key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.compute.jobs import ENDED
from atoll.core.blobs import BlobStore
from atoll.core.errors import IntegrityError, NotFound
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Remove, SetSpec, SetStatus, Write
from atoll.data.files import is_sealed
from atoll.governance.data_keys import READERS
from atoll.governance.rotation import rotated
from atoll.governance.secrets import Secrets
from atoll.governance.uploads import Uploads

SLICE_S = 2.0
"""So long one step may go on with further files."""

LOOK_AGAIN_S = 15.0
KEPT_S = 3_600.0
"""An older key stays at least so long: a request may have begun to store an upload with it."""

LOST_MAX = 100
FORMERLY_MAX = 50
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")


@dataclass(slots=True)
class _Pass:
    """What a step did: where it came to, whether that was the end, and what it found."""

    after: str = ""
    is_whole: bool = False
    resealed: int = 0
    found: bool = False
    lost: list[str] = field(default_factory=list)


class DataKeyController(Controller):
    """Seals a project's files under its newest key."""

    name = "data-keys"
    owns = "DataKey"

    def __init__(self, blobs: BlobStore, secrets: Secrets, kept_s: float = KEPT_S) -> None:
        self._blobs = blobs
        self._secrets = secrets
        self._kept_s = kept_s

    def reconcile(self, key: Key, world: Writer) -> float | None:
        newest = world.read(key)
        if newest is None or newest.is_deleting:
            return None
        if newest.spec["is_alone"]:
            _note(newest, {"phase": "ready", "reason": "", "observed_generation": newest.generation}, world)
            return None
        if rotated(world.scope, newest.project)[0].uid != newest.uid:
            return None  # the newer one's rotation takes this one out
        status, waits = newest.status, _needing(newest, world) or self._young(newest, world)
        if waits and status.get("passed"):
            _note(newest, {"reason": waits}, world)
            return LOOK_AGAIN_S
        step = self._step(newest, world)
        found = bool(status.get("found")) or step.found
        lost = sorted({*status.get("lost", ()), *step.lost})[:LOST_MAX]
        fields: dict[str, Any] = {"phase": "running", "resealed": status.get("resealed", 0) + step.resealed}
        fields |= {"lost": lost, "found": found, "after": step.after, "observed_generation": newest.generation}
        if step.is_whole:
            fields |= {"after": "", "found": False}
        if found or not step.is_whole:
            _note(newest, fields | {"reason": "sealing uploads anew", "passed": False}, world)
            return 0.0
        if waits:
            _note(newest, fields | {"reason": waits, "passed": True}, world)
            return LOOK_AGAIN_S
        world.write(*_ending(newest, world))
        return None

    def _step(self, newest: Resource, world: Writer) -> _Pass:
        """Go on with the pass over the project's files; every file that is sealed anew is written at once."""
        uploads = Uploads(self._blobs, self._secrets.data_keys(world.scope, newest.project))
        files = [f for f in world.scope.find_all("File") if f.project == newest.project and is_sealed(f)]
        done = _Pass(newest.status.get("after", ""))
        started = world.clock.monotonic()
        for file in (f for f in files if f.name > done.after and not f.is_deleting):
            try:
                if not uploads.is_current(file.spec["digest"]):
                    world.write(_resealed(file, uploads.reseal(file.spec["digest"]).digest))
                    done.resealed, done.found = done.resealed + 1, True
            except (NotFound, IntegrityError):
                done.lost.append(file.name)
            done.after = file.name
            if world.clock.monotonic() - started > SLICE_S:
                return done
        done.is_whole = True
        return done

    def _young(self, newest: Resource, world: Writer) -> str:
        left_s = newest.created_at + self._kept_s - world.clock.now()
        return "keeps the older key for uploads that had begun before, an hour long" if left_s > 0 else ""


def _ending(newest: Resource, world: Writer) -> list[Write]:
    """Refuse the derived key and take out the rotated ones: nothing is left that needs them."""
    older = [k for k in world.scope.find_all("DataKey") if k.project == newest.project and k.uid != newest.uid]
    gone: list[Write] = [Remove(key, "Destroyed", f"{newest.name} is alone") for key in older]
    return [*gone, SetSpec(newest, newest.spec | {"is_alone": True}, reason="Alone")]


def _resealed(file: Resource, digest: str) -> SetSpec:
    formerly = [*file.spec.get("formerly", ()), file.spec["digest"].removeprefix("sha256:")]
    spec = file.spec | {"digest": digest, "formerly": formerly[-FORMERLY_MAX:]}
    return SetSpec(file, spec, reason="Resealed")


def _note(key: Resource, fields: dict[str, Any], world: Writer) -> None:
    if (status := key.status | fields) != key.status:
        world.write(SetStatus(key, status, "" if status["phase"] == key.phase else status["phase"].capitalize()))


def _needing(newest: Resource, world: Writer) -> str:
    """What may still read or write under an older key, in words; "" when nothing may."""
    project = newest.project
    for upload in world.scope.find_all("Upload"):
        is_begun = upload.project == project and upload.spec["parts"] and not upload.is_deleting
        if is_begun and upload.spec["state"] == "pending" and upload.created_at <= newest.created_at:
            return f"waits for {upload.key}, which has parts under an older key, and ends within an hour"
    former = {n for f in world.scope.find_all("File") if f.project == project for n in f.spec.get("formerly", ())}
    for kind in sorted(READERS):
        for run in world.scope.find_all(kind):
            if run.project == project and run.phase not in ENDED and _may_need(run, newest, former, world):
                return f"waits for {run.key}, which was given an older key: let it end, or delete it"
    return ""


def _may_need(run: Resource, newest: Resource, former: set[str], world: Writer) -> bool:
    """Whether a run has work that was given keys before the rotation, or that reads a blob of an older key."""
    workloads = [w for w in world.scope.children(run.uid) if w.kind == "Workload"]
    told = [w.spec for w in workloads] or [run.spec]
    named = {name.decode() for name in _DIGEST.findall(orjson.dumps(told))}
    return any(w.created_at <= newest.created_at for w in workloads) or not named.isdisjoint(former)
