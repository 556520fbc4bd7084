"""The centre in the simulation: the real store, loop, controllers and agent routes, killed at any write."""

from __future__ import annotations

import random
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from atoll.compute.controllers import NodeController, TaskController, WorkloadController
from atoll.compute.jobs import JobController, engine_workload
from atoll.core.clock import Clock
from atoll.core.collect import Collector
from atoll.core.database import Database
from atoll.core.errors import AtollError, Fenced, Unavailable
from atoll.core.leases import Leases
from atoll.core.reconcile import Loop, Writer
from atoll.core.resources import KINDS, Kind, Resource, Spec, Status
from atoll.core.store import Create, Fence, Scope, Store, Write
from atoll.governance.secrets import KEY_BYTES, Secrets
from atoll.server.agents import Registration, _renew, _take_reports, _wanted_on, register
from memory import memory_database

if TYPE_CHECKING:
    from simulation.world import World

GIB = 1 << 30
NO_SECRETS = Secrets([bytes(KEY_BYTES)])


class Killed(BaseException):
    """The centre's process ends here."""


class MortalStore(Store):
    """A store whose process may be killed before or after any commit."""

    def __init__(self, database: Database, clock: Clock, world: World) -> None:
        super().__init__(database, clock, lambda: f"{world.rng.getrandbits(64):016x}")
        self.world = world
        self.fuse: int | None = None

    def everything(self, actor: str = "system") -> Scope:
        return _MortalScope(self, None, actor)

    def burn(self) -> None:
        """One step nearer to the end."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                raise Killed


class _MortalScope(Scope):
    def write(self, batch: Iterable[Write], fence: Fence | None = None) -> int:
        store = self._store
        assert isinstance(store, MortalStore)
        ops = list(batch)
        if not ops:
            return 0
        store.burn()
        head = super().write(ops, fence)
        store.burn()
        return head


class JobSpec(Spec):
    """A run of one workload, as imports and trainings are."""

    fate: str
    tasks: int = 1


class JobStatus(Status):
    """pending, running, succeeded or failed."""

    made: str = ""
    progress: dict[str, Any] = Field(default_factory=dict)


if "SimulatedJob" not in KINDS:
    KINDS.register(Kind("SimulatedJob", "simulatedjobs", "A job of the simulation.", JobSpec, JobStatus))


class SimulatedJobController(JobController):
    """A job that succeeded makes exactly one product."""

    name = "jobs"
    owns = "SimulatedJob"

    def workload_for(self, run: Resource, world: Writer) -> tuple[dict[str, Any], dict[str, Any]]:
        workload = engine_workload("simulated", {}, cpu=1.0, memory_bytes=GIB, restart={"limit": 20})
        workload["roles"][0] |= {"count": run.spec["tasks"], "command": [run.spec["fate"]]}
        return workload, {}

    def finish(self, run: Resource, workload: Resource, world: Writer) -> tuple[dict[str, Any], list[Write]]:
        number = len(world.scope.find_all("Product")) + 1
        product = Create("Product", run.project, f"product-{number}", {"job": run.uid, "generation": run.generation})
        return {"made": product.name, "answer": workload.status["result"]["answer"]}, [product]


class Centre:
    """The server process: down between a kill and the next start."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.database = memory_database()
        self.store = MortalStore(self.database, world.clock, world)
        self.settings = SimpleNamespace(lease_ttl_s=world.ttl_s, blobs_url="")
        self.leases = Leases(self.database, world.clock)
        self.store.on_commit(self._committed)
        self.has_news = True
        self.loop: Loop | None = None
        self._zombie: Loop | None = None
        self._starts = 0

    # -- life ---------------------------------------------------------------------------------------------------

    def open(self) -> Store:
        """Another process' store on the same database."""
        store = Store(self.database, self.world.clock, self.store._new_uid)
        store.on_commit(self._committed)
        return store

    def start(self) -> None:
        """A new process: nothing is remembered but what is in the store."""
        self._starts += 1
        clock = self.world.clock
        self.leases = Leases(self.database, clock)
        fence = self.leases.take("controllers", f"process-{self._starts}").fence
        controllers = [
            NodeController(self.leases, self.world.ttl_s),
            TaskController(),
            WorkloadController(),
            SimulatedJobController(),
            Collector(),
        ]
        self.loop = Loop(self.store, clock, controllers, random.Random(self.world.rng.random()), fence)

    def die(self, reason: str) -> None:
        """Come back after a while. Now and then the old process was only asleep, and finds itself fenced."""
        self.world.note(f"the centre {reason}")
        if self.world.happens(0.3):
            self._zombie = self.loop
        self.loop = None
        self.world.after(self.world.rng.choice([0.05, 1.0, 8.0, 40.0]), self.start)

    def run(self) -> None:
        """Reconcile until nothing is due now."""
        if self.loop is None:
            return
        try:
            self._take_news()
            steps = 0
            while self.loop.step():
                self.world.checks.committed()
                self._take_news()
                steps += 1
                assert steps < 2000, "the controllers never come to rest"
        except Killed:
            self.die("is killed in the middle of its work")
        self.world.checks.committed()
        self._wake_zombie()

    def _take_news(self) -> None:
        """As the feed does it: only when something was committed, or it is time."""
        assert self.loop is not None
        if self.has_news or self.loop.next_due_s() == 0.0:
            self.has_news = False
            self.loop.take_changes()

    def _committed(self, _: int) -> None:
        self.has_news = True
        self.world.checks.has_news = True

    def _wake_zombie(self) -> None:
        if self._zombie is None or self.loop is None:
            return
        zombie, self._zombie = self._zombie, None
        fuse, self.store.fuse = self.store.fuse, None
        head = self.store.head()
        try:
            zombie.take_changes()
            while zombie.step():
                continue
        except Fenced:
            self.world.note("the old controllers woke up and were fenced")
        assert self.store.head() == head, "fenced controllers wrote"
        self.store.fuse = fuse

    def next_due_s(self) -> float | None:
        return None if self.loop is None else self.loop.next_due_s()

    # -- routes -------------------------------------------------------------------------------------------------

    def register(self, node: str, agent_id: str, cpu: float) -> None:
        inventory = {"cpu": cpu, "memory_bytes": 64 * GIB}
        self._serve(lambda: register(self, None, Registration(node=node, agent_id=agent_id, inventory=inventory)))  # type: ignore[arg-type]

    def sync(self, node: str, agent_id: str, observed: list[dict[str, Any]]) -> dict[str, Any]:
        scope = self.store.everything(f"agent/{node}")

        def answer() -> dict[str, Any]:
            _renew(self, SimpleNamespace(node=node, agent_id=agent_id))  # type: ignore[arg-type]
            forget, _ = _take_reports(scope, observed)
            return {"forget": forget, "tasks": _wanted_on(scope, NO_SECRETS, node)}

        result: dict[str, Any] = self._serve(answer)
        return result

    def sync_late(self, node: str, agent_id: str, observed: list[dict[str, Any]]) -> None:
        """A doubled request arrives long after the first; its answer goes nowhere."""
        try:
            self.sync(node, agent_id, observed)
        except AtollError as error:
            self.world.note(f"a late request was refused: {error}")

    def _serve(self, route: Any) -> Any:
        if self.loop is None:
            raise Unavailable("the centre is down")
        try:
            return route()
        except Killed:
            self.die("is killed while it answers")
            raise Unavailable("connection reset") from None
        finally:
            self.world.checks.committed()
