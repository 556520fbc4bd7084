"""A seeded world: the real store and controllers, simulated machines, and everything that can go wrong.

Time is virtual. Faults come at random for a while, then cease; after that everything must come to rest as it should.
One seed gives one history, whatever machine it runs on.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.compute.resources import NODE, WORKLOAD_ENDED
from atoll.compute.runtime.base import TaskSpec
from atoll.core.clock import VirtualClock
from atoll.core.errors import Conflict
from atoll.core.resources import KINDS, SYSTEM_PROJECT, Resource
from atoll.core.store import Create, MarkDeleting, SetSpec
from simulation.centre import GIB, Centre
from simulation.checks import Checks
from simulation.machines import Machine

FAULTS_S = 90.0
CALM_S = 100.0
REST_S = 900.0
"""How long faults come; how long services run on after that; when everything must be at rest at the latest."""

FATES = ("well", "well", "well", "service", "doomed", "refused")


@dataclass(frozen=True)
class Rules:
    """What the world relies on. Each is true of the contract; a test switches one off to see the world break."""

    agents_remember_contact: bool = True
    contact_counts_from_the_request: bool = True
    clocks_count_sleep: bool = True
    shims_fence: bool = True
    graces_are_cut: bool = True
    orders_expire: bool = True


class World:
    """One history."""

    def __init__(
        self,
        seed: int,
        rules: Rules = Rules(),
        *,
        sizes: Sequence[float] = (),
        mishaps: bool = True,
        trace: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self._mishaps = mishaps
        self.rules = rules
        self.clock = VirtualClock()
        self.ttl_s = 15.0
        self.history: deque[str] = deque(maxlen=None if trace else 60)
        self.started: set[str] = set()
        self.submitted: dict[str, str] = {}
        self.deleted: set[str] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.checks = Checks(self)
        self.centre = Centre(self)
        self.people = self.centre.open()
        self.api = self.people.scope("default", "somebody")
        self.observer = self.people.everything("observer")
        self.centre.start()
        sizes = sizes or [self.rng.choice([2.0, 3.0, 4.0]) for _ in range(self.rng.randint(2, 4))]
        host = self.rng.choice([0, -1]) if mishaps else -1
        self.machines = {
            f"node-{n}": Machine(self, f"node-{n}", cpu, has_centre=n == host) for n, cpu in enumerate(sizes)
        }

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        return self.clock.monotonic()

    @property
    def has_faults(self) -> bool:
        return self._mishaps and self.time < FAULTS_S

    def happens(self, probability: float) -> bool:
        """Whether a mishap of this probability happens now."""
        return self.has_faults and self.rng.random() < probability

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.time + seconds, next(self._count), event))

    def every(self, seconds: float, event: Callable[[], None]) -> None:
        def again() -> None:
            event()
            self.after(seconds, again)

        self.after(seconds, again)

    def note(self, text: str) -> None:
        self.history.append(f"{self.time:8.2f}  {text}")

    # -- history ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through the faults, then until all is at rest; AssertionError when an invariant breaks."""
        for machine in self.machines.values():
            self.after(self.rng.uniform(0, 2), machine.start_agent)
        for _ in range(self.rng.randint(3, 6)):
            self.after(self.rng.uniform(0, FAULTS_S * 0.7), self._submit)
        for _ in range(self.rng.randint(8, 16)):
            self.after(self.rng.uniform(2, FAULTS_S), self._fault)
        self.after(FAULTS_S, self._heal)
        self.live(FAULTS_S)
        while (problem := self.checks.unfinished()) and self.time < FAULTS_S + REST_S:
            self.live(5.0)
        assert not problem, f"not at rest after {REST_S:g} s without faults: {problem}"

    def live(self, seconds: float) -> None:
        """Let `seconds` pass."""
        end = self.time + seconds
        while True:
            self.centre.run()
            due_s = self.centre.next_due_s()
            upcoming = [self._events[0][0]] if self._events else []
            upcoming += [self.time + max(due_s, 0.001)] if due_s is not None else []
            moment = min(upcoming, default=end)
            if moment > end:
                self.clock.advance(end - self.time)
                return
            self.clock.advance(max(0.0, moment - self.time))
            while self._events and self._events[0][0] <= self.time:
                heapq.heappop(self._events)[2]()

    # -- what people do -----------------------------------------------------------------------------------------

    def fate(self, spec: TaskSpec) -> tuple[float | None, int]:
        """How long a process lives if left alone (None: for ever), and how it exits."""
        kind = spec.command[0]
        if kind == "refused":
            return self.rng.uniform(0.5, 5.0), 3 if spec.rank == 0 else 1
        if kind == "doomed" or self.happens(0.2):
            return self.rng.uniform(0.1, 20.0), 1
        return (None if kind in ("service", "stubborn") else self.rng.uniform(1.0, 60.0)), 0

    def _submit(self) -> None:
        if self.rng.random() < 0.3:
            fate = self.rng.choice(["well", "well", "refused"])
            self._create("SimulatedJob", f"job-{next(self._count)}", {"fate": fate, "tasks": self.rng.randint(1, 2)})
            return
        fate = self.rng.choice(FATES)
        roles = [self._role(f"role-{n}", fate) for n in range(self.rng.choice([1, 1, 2]))]
        on_partition = "continue" if fate == "service" and self.rng.random() < 0.5 else "stop"
        name = self.submit(fate, roles, on_partition, self.rng.choice([1.0, 10.0, 40.0]))
        if self.rng.random() < 0.2:
            self.after(self.rng.uniform(0.1, 60), lambda: self._delete(name))
        elif self.rng.random() < 0.25:
            self.after(self.rng.uniform(0.1, 40), lambda: self._suspend(name, True))
            if self.rng.random() < 0.5:
                self.after(self.rng.uniform(1, 80), lambda: self._suspend(name, False))

    def submit(
        self, fate: str, roles: list[dict[str, Any]], on_partition: str = "stop", stop_grace_s: float = 10.0
    ) -> str:
        """A new workload; its name."""
        name = f"work-{len(self.submitted)}"
        self.submitted[name] = fate
        restart = {"policy": "always", "limit": 0} if fate == "service" else {"limit": 3 if fate == "doomed" else 20}
        spec = {"roles": roles, "restart": restart, "on_partition": on_partition, "stop_grace_s": stop_grace_s}
        self._create("Workload", name, spec)
        return name

    def _role(self, name: str, fate: str) -> dict[str, Any]:
        return {
            "name": name,
            "count": self.rng.choice([1, 1, 2]),
            "command": [fate],
            "resources": {"cpu": 1.0, "memory_bytes": GIB},
        }

    def _create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        self.note(f"{kind} {name} is created")
        status = {"phase": "pending", "reason": ""}
        self.api.write([Create(kind, "default", name, KINDS.named(kind).parse_spec(spec), status)])
        self.checks.committed()

    def _delete(self, name: str) -> None:
        self.note(f"{name} is deleted")
        self.deleted.add(name)
        self._change(name, lambda workload: MarkDeleting(workload))

    def _suspend(self, name: str, suspended: bool) -> None:
        self.note(f"{name} is {'suspended' if suspended else 'resumed'}")
        self._change(name, lambda workload: SetSpec(workload, workload.spec | {"suspended": suspended}))

    def _change(self, name: str, write: Callable[[Resource], MarkDeleting | SetSpec]) -> None:
        workload = self.api.find("Workload", name)
        if workload is not None and not workload.is_deleting:
            self.api.write([write(workload)])
            self.checks.committed()

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _fault(self) -> None:
        machine = self.rng.choice(list(self.machines.values()))
        faults = (
            self._kill_centre,
            self._kill_centre,
            lambda: self._kill_agent(machine),
            lambda: self._kill_agent(machine),
            lambda: self._cut_power(machine),
            lambda: self._cut_network(machine),
            lambda: self._cut_network(machine),
            lambda: self._restart_agent_in_partition(machine),
            lambda: self._pause(machine),
            self._jump_the_wall_clock,
            lambda: self._cordon(machine),
            lambda: self._remove_node(machine),
        )
        self.rng.choice(faults)()

    def _kill_centre(self) -> None:
        if self.rng.random() < 0.2 and self.centre.loop is not None:
            self.centre.die("is killed at rest")
        else:
            self.centre.store.fuse = self.rng.randint(1, 12)

    def _kill_agent(self, machine: Machine) -> None:
        self.note(f"the agent of {machine.name} is killed")
        machine.kill_agent()
        self.after(self.rng.choice([0.1, 2.0, 20.0, 70.0]), machine.start_agent)

    def _cut_power(self, machine: Machine) -> None:
        self.note(f"{machine.name} loses power")
        machine.lose_power()
        self.after(self.rng.choice([3.0, 20.0, 80.0]), machine.regain_power)

    def _cut_network(self, machine: Machine) -> None:
        machine.cut_until = self.time + self.rng.choice([2.0, 12.0, 25.0, 50.0, 90.0])
        self.note(f"{machine.name} is cut off until {machine.cut_until:.2f}")

    def _restart_agent_in_partition(self, machine: Machine) -> None:
        self._cut_network(machine)
        for _ in range(2):
            at = self.time + self.rng.uniform(0.0, 30.0)
            if at < FAULTS_S:
                self.after(at - self.time, lambda: self._kill_agent(machine))

    def _pause(self, machine: Machine) -> None:
        seconds = min(self.rng.choice([2.0, 12.0, 25.0, 50.0, 90.0]), FAULTS_S - self.time)
        self.note(f"{machine.name} is paused for {seconds:.2f} s")
        machine.pause(seconds)

    def _jump_the_wall_clock(self) -> None:
        seconds = self.rng.choice([-1e6, -3600.0, -20.0, 20.0, 3600.0, 1e6])
        self.note(f"the wall clock jumps by {seconds:g} s")
        self.clock.jump(seconds)

    def _cordon(self, machine: Machine) -> None:
        self._change_node(machine, lambda node: SetSpec(node, node.spec | {"cordoned": not node.spec["cordoned"]}))

    def _remove_node(self, machine: Machine) -> None:
        self._change_node(machine, lambda node: MarkDeleting(node))

    def _change_node(self, machine: Machine, write: Callable[[Resource], MarkDeleting | SetSpec]) -> None:
        scope = self.people.scope(SYSTEM_PROJECT, "operator")
        node = scope.find(NODE.name, machine.name)
        if node is not None and not node.is_deleting:
            op = write(node)
            self.note(f"{machine.name}: {op.action}")
            scope.write([op])
            self.checks.committed()

    def _heal(self) -> None:
        """From here on nothing goes wrong any more."""
        self.note("faults cease")
        self.centre.store.fuse = None
        for machine in self.machines.values():
            machine.cut_until = self.time
            machine.is_powered = True
            machine.kill_agent()
            self.after(1.0, machine.start_agent)
            self._change_node(machine, lambda node: SetSpec(node, node.spec | {"cordoned": False}))
        self.after(CALM_S, self._end_services)

    def _end_services(self) -> None:
        """Services run for ever, or wait for room and say so; they and what is suspended make room for the rest."""
        for workload in self.checks.of("Workload"):
            if workload.spec["suspended"]:
                assert workload.phase in ("pending", *WORKLOAD_ENDED), f"{workload.name} is suspended: {workload.phase}"
                self._delete(workload.name)
            elif self.submitted.get(workload.name) == "service" and workload.name not in self.deleted:
                reason = workload.status.get("reason", "")
                assert workload.phase == "running" or " cpu" in reason, f"{workload.name} {workload.phase}: {reason}"
                self._delete(workload.name)


def check(seed: int, rules: Rules = Rules()) -> None:
    """Live through one seed; a failure says which, how to see it again, and what happened last."""
    world = World(seed, rules)
    try:
        world.run()
    except (AssertionError, Conflict, KeyError) as error:
        last = "\n".join(world.history)
        again = f"python tests/simulation/replay.py {seed}"
        raise AssertionError(f"seed {seed} fails: {error}\nsee it again: {again}\n{last}") from error
    finally:
        world.centre.database.close()
