"""Runs that are one workload: the shared life of imports, curation, training and evaluation.

A domain's controller says what workload a run needs (`workload_for`) and what its result means (`finish`).
Everything between, waiting, progress, restarts, reasons, is here once. A changed spec (a new generation)
is a new workload.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from atoll.compute.resources import WORKLOAD
from atoll.core.errors import AtollError, Fenced, Invalid, Unavailable
from atoll.core.reconcile import Controller, Writer
from atoll.core.resources import Key, Resource
from atoll.core.store import Create, MarkDeleting, SetStatus, Write

LOOK_AGAIN_S = 1.0
WAITING = "waiting for a place"
CANCEL = "cancel"
"""Label that asks a run to end; its value says since when, in Unix seconds."""

ENDED = frozenset({"succeeded", "failed", "ready"})


class NotYet(Exception):
    """Something the run needs is still on its way; the message says what."""


class JobController(Controller):
    """Base of every controller whose resource is one workload."""

    watches: tuple[str, ...] = ("Workload",)
    phase_done = "succeeded"

    @abstractmethod
    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        """(workload spec, status fields to remember); NotYet to wait, AtollError to fail for good."""

    @abstractmethod
    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        """(status fields, further writes) for a workload that succeeded; AtollError fails the run.

        A "phase" among the fields overrides the ordinary good end.
        """

    def reconcile(self, key: Key, world: Writer) -> float | None:
        run = world.read(key)
        if run is None or run.is_deleting or _is_done(run):
            return None
        workloads = [c for c in world.scope.children(run.uid) if c.kind == "Workload"]
        name = workload_name(run)
        workload = next((w for w in workloads if w.name == name), None)
        try:
            if workload is not None and workload.phase == "succeeded":
                self._end(run, workload, world)
            elif self.is_cut_off(run, workload, world.clock.now()):
                fields = {"phase": "failed", "reason": "cancelled"} | self.cut_off(run, world.clock.now())
                doomed = [MarkDeleting(w) for w in workloads if not w.is_deleting]
                world.write(_set(run, fields, "Cancelled", str(fields["reason"])), *doomed)
            elif workload is None:
                self._begin(run, name, workloads, world)
            else:
                self._follow(run, workload, world)
        except NotYet as waiting:
            _update(run, {"phase": "pending", "reason": str(waiting)}, world)
            return LOOK_AGAIN_S
        except (Unavailable, Fenced):
            raise
        except AtollError as error:
            world.write(_set(run, {"phase": "failed", "reason": str(error)}, "Failed", str(error)))
        return None

    def _begin(self, run: Resource, name: str, older: list[Resource], world: Writer) -> None:
        spec, remembered = self.workload_for(run, world)
        if world.scope.find("Workload", name, run.project) is not None:
            raise NotYet(f"waiting for the end of another workload called {name!r}")
        world.write(
            Create("Workload", run.project, name, WORKLOAD.parse_spec(spec), {"phase": "pending"}, owner=run.uid),
            _set(run, {"phase": "pending", "reason": WAITING, **remembered}, "Started"),
            *(MarkDeleting(w) for w in older if not w.is_deleting),
        )

    def _end(self, run: Resource, workload: Resource, world: Writer) -> None:
        try:
            fields, writes = self.finish(run, workload, world)
        except KeyError as missing:
            raise Invalid(f"{workload.key} left no {missing} in its result", hint="its engine erred") from None
        done = {"phase": self.phase_done, "reason": "", "progress": workload.status.get("progress", {})}
        phase = str(fields.get("phase", self.phase_done))
        world.write(_set(run, done | fields, phase.capitalize(), str(fields.get("reason", ""))), *writes)

    def _follow(self, run: Resource, workload: Resource, world: Writer) -> None:
        status = workload.status
        if workload.phase == "failed":
            reason = status.get("reason", "")
            world.write(_set(run, {"phase": "failed", "reason": reason, **self.failed(workload)}, "Failed", reason))
            return
        phase = "pending" if workload.phase == "pending" and not status.get("epoch") else "running"
        reason = status.get("reason") or (WAITING if phase == "pending" else "")
        fields = {"phase": phase, "reason": reason, "progress": status.get("progress", {})}
        _update(run, fields | self.following(workload), world)

    def is_cut_off(self, run: Resource, workload: Resource | None, now: float) -> bool:
        """Whether the run ends here, whatever its workload does; by default as soon as that is asked for."""
        return CANCEL in run.labels

    def cut_off(self, run: Resource, now: float) -> dict[str, Any]:
        """Further status fields of a run that was cut off."""
        return {}

    def following(self, workload: Resource) -> dict[str, Any]:
        """Further status fields while the workload runs."""
        return {}

    def failed(self, workload: Resource) -> dict[str, Any]:
        """Further status fields when the workload failed."""
        return {}


def workload_name(run: Resource) -> str:
    """The workload of this generation of `run`."""
    suffix = f"-g{run.generation}" if run.generation > 1 else ""
    return f"{run.kind.lower()}-{run.name}"[:110] + suffix


def engine_workload(module: str, engine_input: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The spec of a workload that runs one engine module; `fields` may set cpu, memory_bytes and spec fields."""
    resources = {"cpu": fields.pop("cpu", 1.0), "memory_bytes": fields.pop("memory_bytes", 0)}
    command = ["{python}", "-m", module]
    return {"roles": [{"command": command, "input": engine_input, "resources": resources}], **fields}


def _is_done(run: Resource) -> bool:
    return run.phase in ENDED and run.status.get("observed_generation") == run.generation


def _set(run: Resource, fields: dict[str, Any], reason: str, message: str = "") -> SetStatus:
    return SetStatus(run, run.status | fields | {"observed_generation": run.generation}, reason, message)


def _update(run: Resource, fields: dict[str, Any], world: Writer) -> None:
    reason = "Running" if fields["phase"] == "running" and run.phase != "running" else ""
    write = _set(run, fields, reason)
    if write.status != run.status:
        world.write(write)
