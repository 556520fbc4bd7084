"""The agent: keeps a node's tasks as the centre wants them, and tells the centre how they are.

    python -m atoll.compute.agent.main --home DIR --join URL [--node NAME] [--key-file FILE] [--stop-tasks]
        [--centre-lock FILE]

It makes outbound connections only. Its death, however sudden, harms no task: the next agent on the same home finds
them all. Tasks that may not outlive contact with the centre are stopped by their shims, with or without an agent; it
only notes each contact for them, and ends a shim that is stuck. The main thread never waits for the network; the
link's threads do.
Exit codes: 0 asked to end, 2 cannot begin (the message says why), 4 another agent took over this node.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.compute.agent.link import Link, Reply
from atoll.compute.agent.outbox import Outbox
from atoll.compute.agent.probes import inventory
from atoll.compute.agent.tasks import Executor, Start, Wanted, plan
from atoll.compute.runtime.base import ENDED, TaskReport
from atoll.compute.runtime.contact import ContactFile
from atoll.compute.runtime.processes import STOP_MARGIN_S, ProcessRuntime
from atoll.compute.runtime.shim import KILL_AFTER_TTLS, boot_id
from atoll.core.errors import AtollError, Conflict, Fenced, Unauthorized
from atoll.core.files import read_json, write_json
from atoll.core.logs import log_to_stderr

log = logging.getLogger(__name__)

GLANCE_S = 0.25
"""How often living tasks' files are looked at; ends are seen at once."""

GLANCE_AT_START_S = 0.02
"""The same while a task starts, which takes about two such glances."""

LOCK_PATIENCE_S = 2.0
FAREWELL_S = 5.0
EXIT_CANNOT_BEGIN = 2
EXIT_FENCED = 4
ASKING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask the agent to end; asked twice it does not wait for its tasks."""


class Bell:
    """Wakes the main thread: from other threads, and, as the wake-up descriptor, from signals."""

    def __init__(self) -> None:
        self.descriptor, self.wake_up_fd = os.pipe()
        for end in (self.descriptor, self.wake_up_fd):
            os.set_blocking(end, False)

    def ring(self) -> None:
        try:
            os.write(self.wake_up_fd, b".")
        except BlockingIOError:
            return  # it rings already

    def hush(self) -> None:
        try:
            while len(os.read(self.descriptor, 4096)) == 4096:
                continue
        except BlockingIOError:
            return


class Ending:
    """How often signals asked this process to end. A parent may hold them back for a child that it starts (see
    `server.supervise`); from here on they come through."""

    def __init__(self, bell: Bell) -> None:
        self.asked = 0
        for number in ASKING:
            signal.signal(number, self._ask)
        signal.set_wakeup_fd(bell.wake_up_fd, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)

    def _ask(self, *_: object) -> None:
        self.asked += 1


class Agent:
    """The main thread's work: observe, plan, act, hand over to the link."""

    def __init__(
        self,
        runtime: ProcessRuntime,
        executor: Executor,
        outbox: Outbox,
        contact: ContactFile,
        link: Link,
        bell: Bell,
        ending: Ending,
        parent: int | None,
    ) -> None:
        self._runtime, self._executor, self._outbox, self._link, self._bell = runtime, executor, outbox, link, bell
        self._contact, self._ending, self._parent = contact, ending, parent
        self._wanted: tuple[Wanted, ...] | None = None
        self._forget: set[str] = set()
        self._forget_workloads: set[str] = set()

    def run(self, *, stop_tasks: bool) -> int:
        """Work until asked to end, fenced, or left by the parent; return the exit code."""
        self._outbox.update(self._runtime.observe())
        self._link.start()
        try:
            while (code := self._one_round(stop_tasks)) is None:
                continue
        finally:
            self._link.close()
        return code

    def _one_round(self, stop_tasks: bool) -> int | None:
        """Look after the tasks once and wait for the next occasion; an exit code when it is time to go."""
        try:
            reports = self._turn()
        except (AtollError, OSError) as error:
            log.error("%s; trying again", error)
            time.sleep(GLANCE_S)
            return None
        if self._link.fatal is not None:
            return _farewell(self._link.fatal)
        if self._ending.asked:
            return self._stop_tasks() if stop_tasks else 0
        if self._is_parent_gone():
            log.warning("the parent process is gone; the tasks go on")
            return 0
        self._wait(_glance_s(reports))
        return None

    def _turn(self) -> list[TaskReport]:
        self._bell.hush()
        for reply in self._link.replies():
            self._heed(reply)
        reports = self._observe()
        if self._wanted is not None:
            reports = self._act(self._wanted, reports)
        self._end_stuck(reports)
        return reports

    def _heed(self, reply: Reply) -> None:
        if reply.tasks is not None:
            self._wanted = reply.tasks
        self._forget |= reply.forget
        self._forget_workloads |= reply.forget_workloads
        if self._link.registration is not None:
            self._runtime.blobs = self._link.registration.blobs

    def _observe(self) -> list[TaskReport]:
        reports = self._runtime.observe()
        if self._outbox.update(reports):
            self._link.kick()
        return reports

    def _act(self, tasks: Sequence[Wanted], reports: list[TaskReport]) -> list[TaskReport]:
        self._forget &= {report.uid for report in reports}
        if self._forget_workloads:
            self._forget_workloads = self._executor.forget_workloads(self._forget_workloads, reports)
        actions = plan(
            tasks,
            reports,
            forget=self._forget,
            reported=self._outbox.uids_delivered(),
            forgotten=self._executor.forgotten,
        )
        if self._link.silent_s() > self._link.lease_ttl_s:  # a process that was frozen must not start on stale orders
            actions = [action for action in actions if not isinstance(action, Start)]
        if not actions:
            return reports
        self._executor.apply(actions)
        return self._observe()

    def _end_stuck(self, reports: Sequence[TaskReport]) -> None:
        """End tasks whose shims should have ended them for want of contact, and did not, being stopped themselves.

        The shims know more: of a time before this agent it does not judge.
        """
        ttl_s = self._link.lease_ttl_s
        if not self._contact.is_own or self._link.silent_s() < KILL_AFTER_TTLS * ttl_s:
            return
        for report in reports:
            if report.on_partition == "stop" and not report.is_ended:
                self._runtime.stop(report.uid, f"no contact with the centre for {ttl_s:g} s", grace_s=0.0)

    def _wait(self, patience_s: float | None) -> None:
        poll = select.poll()
        for descriptor in (self._bell.descriptor, *self._runtime.alarms()):
            poll.register(descriptor, select.POLLIN)
        if self._parent is not None:
            poll.register(self._parent, select.POLLIN)
        poll.poll(None if patience_s is None else patience_s * 1000)

    def _is_parent_gone(self) -> bool:
        if self._parent is None:
            return False
        poll = select.poll()
        poll.register(self._parent, select.POLLIN)
        return bool(poll.poll(0)) and os.read(self._parent, 1) == b""

    def _stop_tasks(self) -> int:
        """Stop all tasks at once, each within its own grace, and tell the centre."""
        reports = self._observe()
        living = [report for report in reports if not report.is_ended]
        log.info("stopping %d tasks", len(living))
        grace_s = max((report.stop_grace_s for report in living), default=0.0)
        deadline = time.monotonic() + grace_s + 2 * STOP_MARGIN_S
        while living and self._ending.asked == 1 and time.monotonic() < deadline:
            for report in living:
                self._runtime.stop(report.uid, "its agent was asked to stop all tasks")
            self._wait(GLANCE_S)
            self._bell.hush()
            living = [report for report in self._observe() if not report.is_ended]
        self._deliver_last(min(FAREWELL_S, deadline - time.monotonic()))
        return 0

    def _deliver_last(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while self._outbox.due() and self._ending.asked == 1 and time.monotonic() < deadline:
            self._link.kick()
            self._wait(GLANCE_S)
            self._bell.hush()


def _glance_s(reports: Sequence[TaskReport]) -> float | None:
    """How long nothing needs to be looked at; None when there is nothing to look at."""
    states = {report.state for report in reports}
    if "starting" in states:
        return GLANCE_AT_START_S
    return None if states <= ENDED else GLANCE_S


def _farewell(error: AtollError) -> int:
    log.error("%s", error)
    if isinstance(error, Fenced):
        log.error("another agent has this node now; the tasks go on under it")
        return EXIT_FENCED
    return EXIT_CANNOT_BEGIN


def hold_home(home: Path) -> int:
    """Hold the lock of an agent home for the life of this process; Conflict names who holds it."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                hint = "stop it first, or give this one another --home"
                raise Conflict(f"an agent with pid {pid} already runs on {home}", hint=hint) from error
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def key_source(key_file: Path | None) -> Callable[[], str]:
    """How to get the key to the centre: from a file, read anew at each connection, or ATOLL_SYSTEM_KEY."""
    given = os.environ.pop("ATOLL_SYSTEM_KEY", "").strip()
    if key_file is not None:
        return lambda: key_file.read_text().strip()
    if not given:
        raise Unauthorized("there is no key to the centre", hint="--key-file FILE, or ATOLL_SYSTEM_KEY")
    return lambda: given


def node_name(home: Path, given: str | None) -> str:
    """The node's name: as given, as it was before on this home, or the host's."""
    before = (read_json(home / "node.json") or {}).get("node")
    return given or (before if isinstance(before, str) else "") or _host_name()


def _host_name() -> str:
    """The host's name in the letters a node's name may have."""
    return re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.") or "node"


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="atoll agent", description="Run the tasks of this machine for a centre.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this node; agent/ in it is ours")
    parser.add_argument("--join", required=True, metavar="URL", help="address of the centre")
    parser.add_argument("--node", help="name of this node (default: as before, else the host's)")
    parser.add_argument("--site", default=os.environ.get("ATOLL_SITE") or "centre", help="site this node belongs to")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="label of this node")
    parser.add_argument("--key-file", type=Path, help="file with the key to the centre (else ATOLL_SYSTEM_KEY)")
    parser.add_argument("--centre-lock", default="", help="lock that the one possible centre holds on this machine")
    parser.add_argument("--stop-tasks", action="store_true", help="on SIGTERM stop all tasks before ending")
    return parser.parse_args(words)


def _begin(arguments: argparse.Namespace, bell: Bell, ending: Ending) -> Agent:
    home = (arguments.home / "agent").absolute()
    key = key_source(arguments.key_file)
    key()
    hold_home(home)
    node = node_name(home, arguments.node)
    hello = {
        "node": node,
        "site": arguments.site,
        "boot_id": boot_id(),
        "inventory": inventory(home, _labels(arguments.label)),
    }
    runtime, outbox = ProcessRuntime(home), Outbox()
    contact, executor = ContactFile(home, arguments.centre_lock), Executor(runtime, home)
    link = Link(arguments.join, key, hello, outbox, contact, runtime.tail, executor.works, bell.ring)
    write_json(home / "node.json", {"node": node, "join": arguments.join, "pid": os.getpid(), "boot_id": boot_id()})
    return Agent(runtime, executor, outbox, contact, link, bell, ending, _parent_descriptor())


def _parent_descriptor() -> int | None:
    """The pipe whose end of file says that the parent is gone, if the parent gave one; tasks must not inherit it."""
    word = os.environ.pop("ATOLL_PARENT_FD", "")
    if not word.isdigit():
        return None
    os.set_inheritable(int(word), False)
    return int(word)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    log_to_stderr("agent", os.environ.get("ATOLL_LOG_LEVEL") or "INFO")
    arguments, bell = _arguments(words), Bell()
    ending = Ending(bell)
    try:
        agent = _begin(arguments, bell, ending)
    except (AtollError, OSError) as error:
        sys.stderr.write(f"atoll agent: {error}\n")
        return EXIT_CANNOT_BEGIN
    return agent.run(stop_tasks=arguments.stop_tasks)


if __name__ == "__main__":
    sys.exit(main())
