"""Simulated machines: processes with virtual lives, each under a shim, and an agent that keeps the contract.

The agent decides with the product's own `plan`; the machine under it stands for shim, runtime and network, with the
shim's own numbers. The contract it keeps: a uid starts at most once, ever; a task that may not outlive contact with
the centre is asked to stop when contact is one lease old and killed when it is one and a half, by its shim, whatever
became of the agent; and nothing is started on old orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atoll.compute.agent.tasks import Forget, Refuse, Start, Stop, Wanted, plan, wanted
from atoll.compute.runtime import shim
from atoll.compute.runtime.base import TaskReport, TaskSpec
from atoll.core.errors import AtollError, NotFound

if TYPE_CHECKING:
    from simulation.world import World

SYNC_S = 5.0
WAKING_S = shim.LOOK_S_MAX + 0.1
"""After a pause the shims have one look's time to end what must not go on, which no clock can shorten."""


@dataclass
class Process:
    """One task directory on a machine, and the process that lives or lived in it."""

    spec: TaskSpec
    is_alive: bool
    started_at: float | None = None
    is_up: bool = False
    is_stopping: bool = False
    contact_at: float = float("-inf")
    kill_at: float = float("inf")
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""

    def report(self) -> TaskReport:
        spec = self.spec
        is_good = self.exit_code == 0
        state = "stopping" if self.is_stopping else "running" if self.is_up else "starting"
        return TaskReport(
            spec.uid,
            spec.epoch,
            state if self.is_alive else "succeeded" if is_good else "failed",  # type: ignore[arg-type]
            slot=spec.slot,
            on_partition=spec.on_partition,
            stop_grace_s=spec.stop_grace_s,
            started_at=self.started_at,
            exit_code=self.exit_code,
            signal=self.signal,
            reason=self.reason,
            result={"answer": spec.rank} if is_good else None,
        )


@dataclass
class Agent:
    """One agent process: what it knows dies with it."""

    id: str
    orders: tuple[Wanted, ...] | None = None
    delivered: dict[str, TaskReport] = field(default_factory=dict)
    forget: frozenset[str] = frozenset()
    forgotten: set[str] = field(default_factory=set)
    accepted: int = 0
    is_registered: bool = False


class Machine:
    """A node: power, network, task directories, and at most one agent. The centre may run on it, too."""

    def __init__(self, world: World, name: str, cpu: float, *, has_centre: bool = False) -> None:
        self.world = world
        self.name = name
        self.cpu = cpu
        self.has_centre = has_centre
        self.processes: dict[str, Process] = {}
        self.is_powered = True
        self.cut_until = 0.0
        self.paused_until = 0.0
        self.agent: Agent | None = None
        self._agents = 0
        self.contact_at = world.time
        world.every(shim.LOOK_S_MAX, self._look)

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        """Something of this machine happens in `seconds`, or as soon as it is no longer paused."""

        def happen() -> None:
            if self.is_paused:
                self._after(self.paused_until - self.world.time, event)
            else:
                event()

        self.world.after(seconds, happen)

    # -- faults -------------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Nothing of this machine runs for a while; its clock counts the time, as that of a sleeping machine does."""
        self.paused_until = max(self.paused_until, self.world.time + seconds)
        if not self.world.rules.clocks_count_sleep:
            self.contact_at += seconds
            for process in self.living:
                process.contact_at += seconds
        self._after(seconds + WAKING_S, lambda: self.world.checks.alone(self))

    @property
    def is_paused(self) -> bool:
        return self.world.time < self.paused_until

    def start_agent(self) -> None:
        """A new agent on this home, if there is none."""
        if self.is_paused:
            self._after(0.0, self.start_agent)
        elif self.is_powered and self.agent is None:
            self._agents += 1
            self.agent = Agent(f"{self.name}/{self._agents}")
            if not self.world.rules.agents_remember_contact:
                self.contact_at = self.world.time
            self._talk()

    def kill_agent(self) -> None:
        self.agent = None

    def lose_power(self) -> None:
        """Everything running here ends, unseen."""
        self.is_powered, self.agent, self.paused_until = False, None, 0.0
        for process in self.processes.values():
            if process.is_alive:
                self._end(process, None, 9, "the machine restarted while it ran")

    def regain_power(self) -> None:
        self.is_powered = True
        self.start_agent()

    @property
    def living(self) -> list[Process]:
        return [p for p in self.processes.values() if p.is_alive]

    @property
    def running(self) -> list[Process]:
        """What lives and works."""
        return [] if self.world.time < self.paused_until + WAKING_S else self.living

    # -- runtime ------------------------------------------------------------------------------------------------

    def _start(self, spec: TaskSpec) -> None:
        """Make the task's directory; its shim lets it go a moment later, unless that is too late."""
        assert spec.uid not in self.processes, f"{spec.uid} started twice on {self.name}"
        process = self.processes[spec.uid] = Process(spec, is_alive=True)
        self._after(0.01, lambda: self._release(process))

    def _release(self, process: Process) -> None:
        spec, is_stale = process.spec, self._stale_s(process) >= shim.STOP_AFTER_TTLS * self.world.ttl_s
        if not process.is_alive:
            return
        if is_stale and spec.on_partition == "stop" and self.world.rules.orders_expire:
            self._end(process, 127, None, "cannot start: no contact with the centre")
            return
        process.started_at = self.world.clock.now()
        self.world.note(f"{self.name} starts {spec.workload}[{spec.rank}] epoch {spec.epoch}")
        self.world.checks.started(self, process)
        rng = self.world.rng
        self._after(rng.uniform(0.05, 1.0), lambda: self._come_up(process))
        life_s, code = self.world.fate(spec)
        if life_s is not None:
            self._after(life_s, lambda: self._exit(process, code))

    def _come_up(self, process: Process) -> None:
        if process.is_alive and not process.is_up:
            process.is_up = True
            self._turn()

    def _exit(self, process: Process, code: int) -> None:
        if process.is_alive and not process.is_stopping:
            self._end(process, code, None, "" if code == 0 else f"exited with code {code}")
            self._turn()

    def _stop(self, uid: str, reason: str, grace_s: float) -> None:
        """Ask once; of several graces the one that is over first counts."""
        process = self.processes.get(uid)
        if process is None or not process.is_alive or self.world.time + grace_s >= process.kill_at:
            return
        if process.is_stopping and not self.world.rules.graces_are_cut:
            return
        process.kill_at = self.world.time + grace_s

        def die() -> None:
            if process.is_alive:
                self._end(process, None, 15, f"stopped: {reason}")
                self._turn()

        self._after(grace_s, die)
        if not process.is_stopping:
            process.is_stopping = True
            self.world.note(f"{self.name} stops {process.spec.workload}[{process.spec.rank}]: {reason}")
            if process.spec.command[0] != "stubborn":
                self._after(self.world.rng.uniform(0.0, 1.3 * grace_s), die)

    def _end(self, process: Process, code: int | None, number: int | None, reason: str) -> None:
        process.is_alive, process.exit_code, process.signal, process.reason = False, code, number, reason
        self.world.note(f"{self.name}: {process.spec.workload}[{process.spec.rank}] ended: {reason or 'well'}")

    def _look(self) -> None:
        """What each shim does now and then: end a task that may not outlive contact."""
        if not self.is_powered or self.is_paused or (self.agent is None and not self.world.rules.shims_fence):
            return
        ttl_s = self.world.ttl_s
        for process in self.living:
            stale_s = self._stale_s(process)
            if process.spec.on_partition == "stop" and stale_s >= shim.STOP_AFTER_TTLS * ttl_s:
                grace_s = min(process.spec.stop_grace_s, max(0.0, shim.KILL_AFTER_TTLS * ttl_s - stale_s))
                self._stop(process.spec.uid, "no contact with the centre", grace_s)

    def _stale_s(self, process: Process) -> float:
        """How old contact is to the shim of `process`.

        A centre on this machine whose process is gone judges nobody, and its next one waits.
        """
        is_absent = self.has_centre and self.world.centre.loop is None
        heard_at = self.world.time if is_absent else self.contact_at
        process.contact_at = shim.renewed(process.contact_at, heard_at, self.world.ttl_s)
        return self.world.time - process.contact_at

    # -- agent --------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Bring what is closer to the orders, and tell the centre the news soon."""
        agent = self.agent
        if agent is None:
            return
        reports = [p.report() for p in self.processes.values()]
        if agent.orders is not None:
            actions = plan(
                agent.orders,
                reports,
                forget=agent.forget,
                reported=agent.delivered.keys(),
                forgotten=agent.forgotten,
            )
            for action in actions:
                self._act(agent, action)
        if any(agent.delivered.get(p.spec.uid) != p.report() for p in self.processes.values()):
            self._after(self.world.rng.uniform(0.01, 0.2), lambda: self._sync(agent))

    def _act(self, agent: Agent, action: Start | Refuse | Stop | Forget) -> None:
        match action:
            case Start(spec):
                if self.world.time - self.contact_at <= self.world.ttl_s or not self.world.rules.orders_expire:
                    self._start(spec)
            case Refuse(spec, reason):
                self.processes[spec.uid] = Process(spec, is_alive=False, exit_code=None, reason=reason)
            case Stop(uid, reason):
                self._stop(uid, reason, self.processes[uid].spec.stop_grace_s)
            case Forget(uid):
                del self.processes[uid]
                agent.delivered.pop(uid, None)
                agent.forgotten.add(uid)

    # -- conversation -------------------------------------------------------------------------------------------

    def _talk(self) -> None:
        agent = self.agent
        if agent is None:
            return
        self._sync(agent)
        self._after(SYNC_S * self.world.rng.uniform(0.8, 1.0), lambda: self._talk() if self.agent is agent else None)

    def nudge(self) -> None:
        """The centre answers the agent's waiting request, for its orders changed."""
        agent = self.agent
        if agent is not None:
            self._after(self.world.rng.uniform(0.01, 0.3), lambda: self._sync(agent))

    def _sync(self, agent: Agent) -> None:
        """One exchange with the centre; any part of it may be lost, late or doubled."""
        if self.agent is not agent or self.world.time < self.cut_until:
            return
        reports = [p.report() for p in self.processes.values() if agent.delivered.get(p.spec.uid) != p.report()]
        observed = [report.to_dict() for report in reports]
        try:
            if not agent.is_registered:
                self.world.centre.register(self.name, agent.id, self.cpu)
                agent.is_registered = True
                agent.delivered.clear()
                reports = [p.report() for p in self.processes.values()]
                observed = [report.to_dict() for report in reports]
            answer = self.world.centre.sync(self.name, agent.id, observed)
        except NotFound:
            agent.is_registered = False
            return
        except AtollError:
            return
        self._answered(agent, reports, answer, sent_at=self.world.time, mark=agent.accepted)
        if self.world.happens(0.03):
            delay_s = self.world.rng.uniform(0.1, 20.0)
            self.world.after(delay_s, lambda: self.world.centre.sync_late(self.name, agent.id, observed))

    def _answered(
        self, agent: Agent, reports: list[TaskReport], answer: dict[str, Any], sent_at: float, mark: int
    ) -> None:
        if self.world.happens(0.03):
            return  # the answer is lost
        if self.world.happens(0.04):  # it comes late, to an agent that slept perhaps
            late_s = self.world.rng.choice([1.0, 10.0, 45.0])
            self._after(late_s, lambda: self._heed(agent, reports, answer, sent_at, mark))
            return
        self._heed(agent, reports, answer, sent_at, mark)

    def _heed(self, agent: Agent, reports: list[TaskReport], answer: dict[str, Any], sent_at: float, mark: int) -> None:
        if self.agent is not agent or self.world.time < self.cut_until:
            return
        counted_from = sent_at if self.world.rules.contact_counts_from_the_request else self.world.time
        self.contact_at = max(self.contact_at, counted_from)
        agent.delivered |= {r.uid: r for r in reports if r.uid in self.processes}
        agent.forget = frozenset(answer["forget"])
        if agent.accepted == mark:
            agent.accepted += 1
            agent.orders = tuple(w for value in answer["tasks"] if (w := wanted(value)) is not None)
        self._turn()
