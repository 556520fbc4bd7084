"""What must hold at every moment, judged by a mirror of the store kept by reading its changes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from atoll.compute.resources import TASK_ENDED, WORKLOAD_ENDED
from atoll.core.resources import Resource
from atoll.core.store import Change

if TYPE_CHECKING:
    from simulation.machines import Machine, Process
    from simulation.world import World

OWNERS = {
    "Node": ("nodes",),
    "Workload": ("workloads",),
    "SimulatedJob": ("jobs",),
    "Task": ("tasks", "agent/"),
}


class Checks:
    """Raises AssertionError the moment an invariant breaks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mirror: dict[str, Resource] = {}
        self.gone: set[str] = set()
        self.has_news = False
        self._seen = 0

    def of(self, kind: str) -> list[Resource]:
        return [r for r in self.mirror.values() if r.kind == kind]

    # -- the store ----------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """Read what was committed since the last look, and judge it."""
        if not self.has_news:
            return
        self.has_news = False
        changes = self.world.observer.changes(self._seen)
        assert [c.seq for c in changes] == list(range(self._seen + 1, self._seen + 1 + len(changes))), "a gap"
        self._seen = changes[-1].seq
        newest = {c.uid: c for c in changes}
        for change in changes:
            self._actor(change)
        for change in newest.values():
            self._mirror(change)
        touched = {r.spec["workload_uid"] for u in newest if (r := self.mirror.get(u)) and r.kind == "Task"}
        touched |= {u for u in newest if (r := self.mirror.get(u)) and r.kind == "Workload"}
        for uid in sorted(touched):
            self._gang(uid)
        for node in sorted({self.mirror[c.uid].spec["node"] for c in changes if self._is_order(c)}):
            self.world.machines[node].nudge()
        if any(c.kind == "Task" for c in changes):
            self._capacity()

    def _is_order(self, change: Change) -> bool:
        """Whether an agent that waits for changes of its orders is answered now."""
        return change.kind == "Task" and change.action in ("created", "spec", "deleting") and change.uid in self.mirror

    def _actor(self, change: Change) -> None:
        if change.action == "status" and change.kind in OWNERS:
            assert change.actor.startswith(OWNERS[change.kind]), f"{change.actor} wrote the status of {change.key}"

    def _mirror(self, change: Change) -> None:
        found = self.world.observer.by_uid(change.uid)
        before = self.mirror.get(change.uid)
        if found is None:
            assert change.action == "deleted", f"{change.key} vanished by {change.action}"
            assert not [r for r in self.mirror.values() if r.owner == change.uid], f"{change.key} left children"
            self.mirror.pop(change.uid, None)
            self.gone.add(change.uid)
            return
        assert found.version == change.seq, f"{change.key} is at {found.version}, its last change is {change.seq}"
        assert change.uid not in self.gone, f"{change.key} came back"
        if before is not None:
            assert found.generation >= before.generation
            self._ended_stays_ended(before, found)
        self.mirror[change.uid] = found
        if found.kind == "Workload" and found.phase in ("pending", "failed"):
            assert found.is_deleting or found.status.get("reason") or not found.status.get("epoch"), (
                f"{found.key} is {found.phase} and says not why"
            )

    def _ended_stays_ended(self, before: Resource, found: Resource) -> None:
        if before.kind == "Task" and before.phase in TASK_ENDED:
            assert found.phase == before.phase, f"{found.key} was {before.phase}, now {found.phase}"
        if before.kind == "Workload":
            epochs = before.status.get("epoch", 0), found.status.get("epoch", 0)
            assert epochs[1] - epochs[0] in (0, 1), f"{found.key} went from epoch {epochs[0]} to {epochs[1]}"
            if before.phase in WORKLOAD_ENDED and not found.is_deleting:
                assert found.phase == before.phase, f"{found.key} was {before.phase}, now {found.phase}"

    def _gang(self, workload_uid: str) -> None:
        tasks = [t for t in self.of("Task") if t.spec["workload_uid"] == workload_uid]
        living = {t.spec["epoch"] for t in tasks if t.phase not in TASK_ENDED}
        assert len(living) <= 1, f"epochs {living} of one workload live at once in the store"
        workload = self.mirror.get(workload_uid)
        if workload is None or not tasks:
            return
        if workload.phase == "stopping":
            running_on = [t.name for t in tasks if t.phase not in TASK_ENDED and not t.spec["stop"]]
            assert not running_on, f"{workload.key} is stopping, but nobody asked {running_on} to stop"
        newest = [t for t in tasks if t.spec["epoch"] == workload.status.get("epoch", 0)]
        if newest and not workload.is_deleting:
            ranks = sorted(t.spec["rank"] for t in newest)
            assert ranks == list(range(newest[0].spec["world_size"])), f"{workload.key}: ranks {ranks} of a gang"

    def _capacity(self) -> None:
        used: Counter[str] = Counter()
        for task in self.of("Task"):
            if task.phase not in TASK_ENDED:
                used[task.spec["node"]] += task.spec["resources"]["cpu"]
        for name, cpu in used.items():
            has = self.world.machines[name].cpu
            assert cpu <= has, f"{cpu} cores are given away on {name}, which has {has}"

    # -- the world ----------------------------------------------------------------------------------------------

    def started(self, machine: Machine, process: Process) -> None:
        """A process began: no other of its kind may live anywhere."""
        spec = process.spec
        assert spec.uid not in self.world.started, f"task {spec.uid} started on two machines"
        self.world.started.add(spec.uid)
        if spec.on_partition != "stop":
            return
        everywhere = [p for m in self.world.machines.values() for p in m.running if p is not process]
        for other in (p.spec for p in everywhere if p.spec.workload_uid == spec.workload_uid):
            where = f"{spec.workload}: {spec.role}[{spec.index}] epoch {spec.epoch} started on {machine.name}"
            assert other.epoch == spec.epoch, f"{where} while epoch {other.epoch} lives"
            assert (other.role, other.index) != (spec.role, spec.index), f"{where} a second time"
        fenced = [p for p in machine.living if p.spec.on_partition == "stop"]
        assert len(fenced) <= machine.cpu, f"{len(fenced)} processes run on {machine.name} with {machine.cpu} cores"

    def alone(self, machine: Machine) -> None:
        """The shims of `machine` have looked after a pause: what goes on there goes on nowhere else."""
        everywhere = [p for m in self.world.machines.values() for p in m.running]
        for spec in (p.spec for p in machine.running if p.spec.on_partition == "stop"):
            for other in (p.spec for p in everywhere if p.spec.workload_uid == spec.workload_uid):
                where = f"{spec.workload}: epoch {spec.epoch} goes on on {machine.name} after a pause"
                assert other.epoch == spec.epoch, f"{where} while epoch {other.epoch} lives"

    # -- the end ------------------------------------------------------------------------------------------------

    def unfinished(self) -> str:
        """Why the world is not at rest yet; "" when all ended as they must and nothing is lost, doubled or orphaned."""
        for problem in (self._workloads(), self._jobs(), self._orphans()):
            if problem:
                return problem
        return ""

    def _workloads(self) -> str:
        there = {w.name: w for w in self.of("Workload")}
        for name, fate in self.world.submitted.items():
            workload = there.get(name)
            is_deleted = name in self.world.deleted
            if is_deleted and workload is not None:
                return f"{name} was deleted and is still there: {workload.phase} {workload.status}"
            if is_deleted:
                continue
            if workload is None:
                return f"{name} is lost"
            expected = {"doomed": "failed", "refused": "failed"}.get(fate, "succeeded")
            if workload.phase != expected:
                return f"{name} ({fate}) is {workload.phase}: {workload.status.get('reason')}"
            if expected == "failed":
                assert workload.status["reason"], f"{name} failed without a reason"
        return ""

    def _jobs(self) -> str:
        products = Counter(p.spec["job"] for p in self.of("Product"))
        for job in self.of("SimulatedJob"):
            if job.phase not in ("succeeded", "failed"):
                return f"{job.key} is {job.phase}: {job.status.get('reason')}"
            wanted = int(job.phase == "succeeded")
            assert products[job.uid] == wanted, f"{job.key} {job.phase} made {products[job.uid]} products"
            expected = "succeeded" if job.spec["fate"] == "well" else "failed"
            assert job.phase == expected, f"{job.key} ({job.spec['fate']}) {job.phase}: {job.status.get('reason')}"
        return ""

    def _orphans(self) -> str:
        tasks = {t.uid: t for t in self.of("Task")}
        for machine in self.world.machines.values():
            for process in machine.living:
                task = tasks.get(process.spec.uid)
                if task is None or task.phase in TASK_ENDED:
                    return f"{process.spec.workload}[{process.spec.rank}] on {machine.name} is an orphan"
        for task in tasks.values():
            machine = self.world.machines[task.spec["node"]]
            if task.phase not in TASK_ENDED and task.uid not in {p.spec.uid for p in machine.living}:
                return f"{task.key} is {task.phase} without a process"
        return ""
