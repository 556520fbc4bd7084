"""Erasures: an engine writes versions anew, here they are replaced, what they held is deleted, and certified.

    searching  a task writes the versions' shards anew; when versions came meanwhile, they are searched too
    replaced   every version has its new manifest; nothing that still reads the old ones may go on
    records    what lies in tables is gone through: items of labelling tasks, conversations, responses, events
    deleting   the old blobs go at once, unless something else that lives refers to them

Each step may be killed anywhere and is repeated to the same end. Then the identifiers are forgotten, and what was
deleted is written over where it lay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from atoll.compute.jobs import ENDED, LOOK_AGAIN_S, JobController, NotYet, engine_workload
from atoll.core.blobs import BlobStore
from atoll.core.errors import NotFound
from atoll.core.reconcile import Writer
from atoll.core.resources import KINDS, Key, Resource
from atoll.core.store import MarkDeleting, SetSpec, SetStatus, Write
from atoll.data.certificate import METHOD, NOT_REACHED, sealed
from atoll.data.files import digests_of, give_key, is_sealed
from atoll.data.layout import members
from atoll.data.lineage import UNTOLD, Lineage
from atoll.data.manifest import read_manifest
from atoll.data.quotes import quotes_in
from atoll.data.records import Records, began, go_on
from atoll.data.resources import MATCHED
from atoll.data.sought import Sought

REPLACED, RECORDS, DELETING, DONE, FORGOTTEN = "replaced", "records", "deleting", "done", "forgotten"
AFFECTED = ("TrainingRun", "ModelVersion", "QualityModel", "Deployment")
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


class ErasureController(JobController):
    """Carries erasures out."""

    name = "erasures"
    owns = "Erasure"

    def __init__(
        self, blobs: BlobStore, records: Sequence[Records] = (), scrub: Callable[[], bool] = lambda: True
    ) -> None:
        """records: texts in tables. scrub: writes over what was deleted from them; False: ask again."""
        self._blobs = blobs
        self._records = records
        self._scrub = scrub

    def reconcile(self, key: Key, world: Writer) -> float | None:
        run = world.read(key)
        if run is None or run.is_deleting:
            return None
        if run.phase in ENDED:
            return self._forget(run, world)
        if run.status.get("stage") == REPLACED:
            return self._await_readers(run, world)
        if run.status.get("stage") == RECORDS:
            return self._go_through_records(run, world)
        if run.status.get("stage") == DELETING:
            return self._delete(run, world)
        return super().reconcile(key, world)

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        _take_turns(run, world)
        match = run.spec["match"]
        ready = [v for v in _versions(run, world) if v.phase == "ready"]
        versions = [{"name": v.name, **{field: v.spec[field] for field in ("manifest", "parents")}} for v in ready]
        files = {f.name: f for f in world.scope.find_all("File") if f.project == run.project and not f.is_deleting}
        if not run.status.get("stage"):
            _check_named(run, files, world)
        told = [
            {"id": f.name, "name": f.spec["filename"], "digest": f.spec["digest"], "sealed": is_sealed(f)}
            for f in files.values()
        ]
        named = [digest for name in match["files"] if name in files for digest in digests_of(files[name])]
        digests = sorted({*run.status.get("named_digests", ()), *named})
        wanted = {
            "versions": versions,
            "files": told,
            "had": _manifests_of(run.project, world),
            "gone": run.status.get("gone", []),
            "match": {**match, "digests": digests},
            "told": match,
            "salt": run.uid,
        }
        spec = run.spec
        workload = engine_workload(
            "atoll.data.engine.versions.erase",
            wanted,
            cpu=spec["cpu"],
            memory_bytes=spec["memory_bytes"],
            restart={"limit": 20},
        )
        if any(file["sealed"] for file in told):
            give_key(workload)
        searched = len({*files, *run.status.get("files_removed", ())})
        return workload, {"stage": "searching", "files": searched, "named_digests": digests}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        """Replace the manifests; then look again, for versions may have come meanwhile."""
        if workload.is_deleting:
            raise NotYet("searching what came meanwhile")
        result = workload.status["result"]
        changed = [v for v in result["versions"] if v["before"] != v["after"]]
        present = {v.name: v for v in _versions(run, world)}
        writes: list[Write] = [
            _replaced(present[v["name"]], v, run)
            for v in changed
            if v["name"] in present and present[v["name"]].spec["manifest"] == v["before"]
        ]
        doomed = {*run.spec["match"]["files"], *result["files"]}
        files = _living_files(run, doomed, world)
        writes += [MarkDeleting(file, "Erased", f"erasure {run.name}") for file in files]
        searched = run.status.get("searched", {}) | {v["name"]: v["after"] for v in result["versions"]}
        fields: dict[str, Any] = {
            "phase": "running",
            "stage": REPLACED,
            "reason": "waiting for what reads what was replaced",
            "versions": _once([*run.status.get("versions", []), *changed]),
            "searched": searched,
            "rows": sum(v["rows"] for v in result["versions"]),
            "identifiers": result["searched"],
            "files_removed": sorted({*run.status.get("files_removed", []), *doomed}),
            "file_digests": sorted({*run.status.get("file_digests", []), *(d for f in files for d in digests_of(f))}),
            "files_not_searched": result["opaque"],
            "gone": sorted({*run.status.get("gone", []), *filter(None, [result.get("gone")])}),
        }
        return fields, writes

    def _await_readers(self, run: Resource, world: Writer) -> float | None:
        """Go on to the records, once nothing is left to search and nobody reads the old versions and files any more."""
        if _unsearched(run, world):
            return _search_again(run, world)
        erased = {*(v["before"] for v in run.status["versions"]), *run.status["file_digests"]}
        reader = _reader_of(erased, run, world)
        if reader is not None:
            return _wait(run, f"waits for {reader.key}, which reads what is erased: delete it, or let it end", world)
        state = {**began(), "removed": run.status.get("records", {}).get("removed", {})}
        fields = {"stage": RECORDS, "reason": "going through what lies in tables", "records": state}
        world.write(SetStatus(run, run.status | fields))
        return None

    def _go_through_records(self, run: Resource, world: Writer) -> float | None:
        """One step through the tables; behind the last come the resources that quote."""
        sought = Sought.of(run.spec["match"], self._gone(run))
        state = run.status["records"]
        if state["place"] < len(self._records):
            state = go_on(state, self._records, run.project, sought)
            world.write(SetStatus(run, run.status | {"records": state}))
            return None
        found = quotes_in(world.scope.within(run.project), sought, run.uid)
        records = sorted({*run.status.get("runs_removed", []), *(f"{r.kind}/{r.name}" for r in found.records)})
        fields = {"runs_removed": records, "named_elsewhere": found.others}
        doomed = [MarkDeleting(record, "Erased", f"erasure {run.name}") for record in found.records]
        world.write(SetStatus(run, run.status | fields | self._doomed(run)), *doomed)
        return None

    def _gone(self, run: Resource) -> dict[str, set[str]]:
        """Ids of the documents that left versions, by dataset."""
        datasets = {v["name"]: _dataset_of(v["name"]) for v in run.status["versions"]}
        found: dict[str, set[str]] = {}
        for digest in run.status.get("gone", ()):
            for version, ids in orjson.loads(self._blobs.read(digest)).items():
                if version in datasets:
                    found.setdefault(datasets[version], set()).update(ids)
        return found

    def _doomed(self, run: Resource) -> dict[str, Any]:
        """The next stage, with a note of which blobs go."""
        old: dict[str, None] = {}
        for version in run.status["versions"]:
            kept = set(self._digests(version["after"]))
            old |= dict.fromkeys(d for d in self._digests(version["before"]) if d not in kept)
        old |= dict.fromkeys(run.status["file_digests"])
        blob = self._blobs.put_bytes(orjson.dumps(list(old)))
        return {"stage": DELETING, "reason": "deleting what was replaced", "doomed": blob.digest}

    def _delete(self, run: Resource, world: Writer) -> float | None:
        if _unsearched(run, world):
            return _search_again(run, world)
        doomed: list[str] = orjson.loads(self._blobs.read(run.status["doomed"]))
        kept = set(doomed) & self._referred(world)
        for digest in (*doomed, *run.status.get("gone", ())):
            if digest not in kept:
                self._blobs.delete(digest)
        certificate = sealed(self._certificate(run, len(doomed) - len(kept), len(kept), world))
        blob = self._blobs.put_bytes(orjson.dumps(certificate, option=orjson.OPT_INDENT_2))
        fields = {"phase": "succeeded", "reason": "", "stage": DONE, "certificate": blob.digest}
        status = run.status | fields | {"doomed": "", "gone": [], "observed_generation": run.generation}
        words = f"{len(run.status['versions'])} versions written anew, certificate {certificate['digest']}"
        world.write(SetStatus(run, status, "Erased", words))
        return None

    def _certificate(self, run: Resource, deleted: int, kept: int, world: Writer) -> dict[str, Any]:
        status = run.status
        scope = {
            "datasets": run.spec["datasets"] or "all",
            "versions": status["searched"],
            "rows": status.get("rows", 0),
            "files": status["files"],
            "files_not_searched": status["files_not_searched"],
            "records": status.get("records", {}).get("seen", {}),
        }
        return {
            "project": run.project,
            "erasure": run.name,
            "uid": run.uid,
            "reason": run.spec["reason"],
            "requested_at": run.created_at,
            "completed_at": world.clock.now(),
            "searched": {"identifiers": status["identifiers"], "salt": run.uid, "method": METHOD},
            "scope": scope,
            "versions": status["versions"],
            "files_removed": status["files_removed"],
            "records_removed": status.get("records", {}).get("removed", {}),
            "runs_removed": status.get("runs_removed", []),
            "named_elsewhere": status.get("named_elsewhere", []),
            "blobs": {"deleted": deleted, "kept": kept},
            "not_reached": list(NOT_REACHED),
            "affected": affected(run, [v["name"] for v in status["versions"]], world),
        }

    def _forget(self, run: Resource, world: Writer) -> float | None:
        """Take what was named out of the store, with the task that was told it, and write over where it lay."""
        workloads = [w for w in world.scope.children(run.uid) if w.kind == "Workload"]
        if not run.spec["is_forgotten"]:
            spec = run.spec | {"match": {name: [] for name in MATCHED}, "is_forgotten": True}
            doomed = [MarkDeleting(w) for w in workloads if not w.is_deleting]
            world.write(SetSpec(run, spec, reason="Forgotten"), *doomed)
        elif run.status.get("observed_generation") != run.generation:
            world.write(SetStatus(run, run.status | {"observed_generation": run.generation}))
        elif run.status.get("stage") != FORGOTTEN:
            if workloads or not self._scrub():
                return LOOK_AGAIN_S
            world.write(SetStatus(run, run.status | {"stage": FORGOTTEN}))
        return None

    def _digests(self, manifest: str) -> list[str]:
        """The blobs of a manifest, itself last; nothing once it is gone."""
        try:
            return [*(shard.digest for _, shard in members(read_manifest(self._blobs, manifest))), manifest]
        except NotFound:
            return []

    def _referred(self, world: Writer) -> set[str]:
        """Digests something that lives refers to: versions of any project, files, and runs that have not ended."""
        found: set[str] = set()
        for version in world.scope.find_all("DatasetVersion"):
            if not version.is_deleting:
                found |= set(self._digests(version.spec["manifest"]))
        for kind in KINDS:
            for resource in world.scope.find_all(kind.name) if kind.name not in ("DatasetVersion", "Erasure") else ():
                if not resource.is_deleting and resource.phase not in ("succeeded", "failed"):
                    found |= {d.decode() for d in _DIGEST.findall(orjson.dumps([resource.spec, resource.status]))}
        return found


def affected(run: Resource, versions: Iterable[str], world: Writer) -> dict[str, list[str]]:
    """What learned from the versions as they were: names by kind."""
    mine = (r for kind in KINDS if kind.name not in UNTOLD for r in world.scope.find_all(kind.name))
    lineage = Lineage(r for r in mine if r.project == run.project)
    found: dict[str, set[str]] = {}
    for version in versions:
        if lineage.find(version) == ("DatasetVersion", version):
            for node in lineage.down("DatasetVersion", version).walk():
                found.setdefault(node.kind, set()).add(node.name)
    return {kind: sorted(found[kind]) for kind in AFFECTED if kind in found}


def _check_named(run: Resource, files: Mapping[str, Resource], world: Writer) -> None:
    """NotFound for a file or dataset that is not there: a slip of the pen is not certified as a search."""
    for name in run.spec["match"]["files"]:
        if name not in files:
            raise NotFound(f"there is no file {name!r} in project {run.project!r}", hint="see GET /v1/files")
    for name in run.spec["datasets"]:
        if world.scope.find("Dataset", name, run.project) is None:
            raise NotFound(f"there is no dataset {name!r} in project {run.project!r}", hint="atoll get datasets")


def _take_turns(run: Resource, world: Writer) -> None:
    """NotYet while another erasure of the project goes first: each must see what the one before it left of a version.

    Of two at once either would write anew what the other replaces, and leave what the other removed in those bytes.
    """
    others = (e for e in world.scope.find_all("Erasure") if e.project == run.project and e.phase not in ENDED)
    first = min((e for e in others if not e.is_deleting), key=_turn, default=run)
    if _turn(first) < _turn(run):
        raise NotYet(f"waits for {first.key}, which goes first")


def _turn(erasure: Resource) -> tuple[bool, float, str]:
    """Erasures take turns by age; one that has begun is not overtaken."""
    return (not erasure.status.get("stage"), erasure.created_at, erasure.uid)


def _versions(run: Resource, world: Writer) -> list[Resource]:
    """The versions an erasure is about, by name."""
    wanted = set(run.spec["datasets"])
    found = (v for v in world.scope.find_all("DatasetVersion") if v.project == run.project and not v.is_deleting)
    return [v for v in found if v.phase != "failed" and (not wanted or v.spec["dataset"] in wanted)]


def _manifests_of(project: str, world: Writer) -> dict[str, list[str]]:
    """The manifests versions have, and had before they were erased from, by their names."""
    found = {v.name: [v.spec["manifest"]] for v in world.scope.find_all("DatasetVersion") if v.project == project}
    for erasure in world.scope.find_all("Erasure"):
        for version in erasure.status.get("versions", ()) if erasure.project == project else ():
            found.setdefault(version["name"], []).append(version["before"])
    return found


def _replaced(version: Resource, done: dict[str, Any], run: Resource) -> SetSpec:
    erasures = [*version.spec.get("erasures", []), run.name]
    spec = version.spec | {"manifest": done["after"], "erasures": erasures, "counts": {}}
    rows = ", ".join(f"{count} of {part}" for part, count in done["removed"].items())
    return SetSpec(version, spec, reason="Erased", message=f"erasure {run.name} removed {rows or 'no rows'}")


def _living_files(run: Resource, names: set[str], world: Writer) -> list[Resource]:
    found = (world.scope.find("File", name, run.project) for name in sorted(names))
    return [file for file in found if file is not None and not file.is_deleting]


def _once(versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(v["name"], v["before"]): v for v in versions}.values())


def _unsearched(run: Resource, world: Writer) -> list[Resource]:
    """Versions whose manifest was not searched: they came while the task worked, or were made of what it replaced."""
    searched = set(run.status["searched"].values())
    return [v for v in _versions(run, world) if v.spec["manifest"] not in searched]


def _search_again(run: Resource, world: Writer) -> float:
    workloads = [w for w in world.scope.children(run.uid) if w.kind == "Workload" and not w.is_deleting]
    status = run.status | {"stage": "searching", "reason": "searching what came meanwhile"}
    world.write(SetStatus(run, status, "SearchedAgain"), *(MarkDeleting(w) for w in workloads))
    return LOOK_AGAIN_S


def _reader_of(digests: set[str], run: Resource, world: Writer) -> Resource | None:
    """What was given one of the manifests or files and has not ended: a run, which tells later than its workload what
    it made, or a workload of nobody's."""
    for workload in world.scope.find_all("Workload"):
        if workload.project != run.project or workload.owner == run.uid or workload.is_deleting:
            continue
        given = {d.decode() for d in _DIGEST.findall(orjson.dumps(workload.spec["roles"]))}
        if given & digests:
            owner = world.scope.by_uid(workload.owner) if workload.owner else None
            reader = workload if owner is None else owner
            if reader.phase not in ENDED and not reader.is_deleting:
                return reader
    return None


def _wait(run: Resource, reason: str, world: Writer) -> float:
    if run.status.get("reason") != reason:
        world.write(SetStatus(run, run.status | {"reason": reason}))
    return LOOK_AGAIN_S


def _dataset_of(version: str) -> str:
    return version.rpartition(".v")[0]
