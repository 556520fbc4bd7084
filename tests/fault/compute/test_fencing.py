"""A machine that lost the centre: what may not run twice has ended before the centre may start it elsewhere."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.compute.controllers import LOST_AFTER_TTLS
from atoll.compute.runtime.contact import ContactFile, contact_path
from atoll.compute.runtime.shim import Contact, lease_clock_s
from fault.compute.life import SLEEPER, is_alive, kill, processes_of, record, unique, until, written
from fault.compute.peer import AgentProcess, Peer
from fault.compute.test_shim import Shim

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TTL_S = 3.0
STUBBORN = ("sh", "-c", "trap '' TERM; echo started >> starts; while :; do sleep 0.05; done")
FENCED = {"on_partition": "stop", "stop_grace_s": 600}


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer(TTL_S)
    yield made
    if made._is_open:
        made.close()


@pytest.fixture
def agent(tmp_path: Path, peer: Peer) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path / "node", peer)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    for path in made.tasks.glob("*"):
        for pid in processes_of(path.name):
            kill(pid)


def contact_s(agent: AgentProcess) -> float:
    """The last contact the agent noted, on the clock of sleeping machines."""
    return contact_path(agent.home / "agent").stat().st_mtime_ns / 1e9


def runs(agent: AgentProcess, peer: Peer, *command: str, **fields: object) -> str:
    """The uid of a new task that runs, as the centre knows."""
    uid = peer.want(*command, **fields)
    written(agent.tasks / uid / "starts")
    peer.reaches(uid, "running")
    return uid


def ended_s(uid: str) -> float:
    """When no process of the task was left."""
    until(lambda: not processes_of(uid), what="the task ends")
    return lease_clock_s(False)


# -- with real agents -------------------------------------------------------------------------------------------


def test_a_task_of_a_dead_agent_ends_before_its_place_may_be_given_away(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *STUBBORN, **FENCED)
    free = runs(agent, peer, *SLEEPER, on_partition="continue")
    pid = peer.latest[free]["pid"]
    agent.kill()
    peer.close()
    contact_at = contact_s(agent)
    assert TTL_S < ended_s(fenced) - contact_at < LOST_AFTER_TTLS * TTL_S
    assert is_alive(pid)
    peer.latest.clear()
    peer.open()
    agent.joined()
    assert peer.reaches(fenced, "failed")["reason"].startswith("stopped: no contact with the centre for 3 s, killed")
    assert peer.reaches(free, "running")["pid"] == pid
    assert written(agent.tasks / free / "starts").count("started") == 1


def test_an_agent_that_dies_alone_is_enough(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    agent.kill()
    assert TTL_S < ended_s(fenced) - contact_s(agent) < LOST_AFTER_TTLS * TTL_S


def test_a_shim_that_is_stopped_is_ended_with_its_task_by_the_agent(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    os.kill(record(agent.tasks / fenced / "shim.json")["shim_pid"], signal.SIGSTOP)
    peer.close()
    ended_s(fenced)
    peer.open()
    assert peer.reaches(fenced, "failed")["reason"] == (
        "stopped: no contact with the centre for 3 s; the shim was killed"
    )


def test_an_agent_that_starts_again_inside_a_partition_wins_no_time(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *STUBBORN, **FENCED)
    peer.close()
    agent.kill()
    contact_at = contact_s(agent)
    agent.start()
    for part in (0.3, 0.6, 0.9):
        until(lambda part=part: lease_clock_s(False) > contact_at + part * TTL_S)  # type: ignore[misc]
        agent.kill()
        agent.start()
    assert ended_s(fenced) - contact_at < LOST_AFTER_TTLS * TTL_S
    assert contact_s(agent) == contact_at


def test_an_agent_that_is_back_within_the_lease_finds_its_tasks_running(agent: AgentProcess, peer: Peer) -> None:
    peer.lease_ttl_s = 30.0
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    pid, before_s = peer.latest[fenced]["pid"], contact_s(agent)
    agent.kill()
    peer.latest.clear()
    agent.joined()
    assert peer.reaches(fenced, "running")["pid"] == pid
    until(lambda: contact_s(agent) > before_s)


def test_tasks_beside_their_centre_go_on_while_it_is_down_and_heed_it_once_it_is_up(
    agent: AgentProcess, peer: Peer, tmp_path: Path
) -> None:
    """The centre's process is known by its lock: while that is free nobody can give a place away."""
    lock = tmp_path / "server.lock"
    lock.touch()
    agent.options = ("--centre-lock", str(lock))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        agent.joined()
        fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
        agent.kill()
        peer.close()
    down_s = lease_clock_s(False)
    until(lambda: lease_clock_s(False) > down_s + 2 * LOST_AFTER_TTLS * TTL_S)
    assert len(processes_of(fenced)) == 2
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        up_s = lease_clock_s(False)
        assert ended_s(fenced) - up_s < LOST_AFTER_TTLS * TTL_S


def test_a_centre_that_changes_its_lease_time_is_heeded_at_once(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    peer.lease_ttl_s = 1.0
    until(lambda: Contact(str(contact_path(agent.home / "agent"))).lease_ttl_s == 1.0)
    peer.close()
    ended_s(fenced)
    peer.open()
    assert peer.reaches(fenced, "failed")["reason"].startswith("stopped: no contact with the centre for 1 s")


# -- the shim alone ---------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> ContactFile:
    return ContactFile(tmp_path)


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Shim]:
    made = Shim(tmp_path / "task")
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()
    for pid in processes_of(made.uid):
        kill(pid)


def watched(task: Shim, *command: str, **fields: object) -> subprocess.Popen[bytes]:
    return task.start(*command, contact=str(contact_path(task.folder.parent)), **fields)


def test_a_command_never_starts_on_a_lease_that_has_ended(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s() - 5.1, 5.0)
    watched(task, "sh", "-c", "echo started > starts").wait(30)
    ended = record(task.folder / "exit.json")
    assert (ended["reason"], ended["exit_code"]) == ("cannot start: no contact with the centre for 5 s", 127)
    assert not (task.folder / "starts").exists()


def test_a_command_never_starts_where_contact_cannot_be_read(task: Shim) -> None:
    watched(task, "sh", "-c", "echo started > starts").wait(30)
    assert "no contact with the centre" in record(task.folder / "exit.json")["reason"]
    assert not (task.folder / "starts").exists()


def test_a_renewed_contact_keeps_a_command_running(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s(), 1.0)
    process = watched(task, "sh", "-c", "echo up; exec sleep 600")
    assert task.identity
    until_s = home.now_s() + 3.0
    until(lambda: home.renew(home.now_s(), 1.0) or home.now_s() > until_s)  # type: ignore[func-returns-value]
    assert process.poll() is None
    process.wait(30)
    ended = record(task.folder / "exit.json")
    assert (ended["stopped"], record(task.folder / "stop.json")) == (
        True,
        {"reason": "no contact with the centre for 1 s"},
    )


def test_the_end_of_the_lease_cuts_a_grace_that_began_before(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s(), 1.0)
    process = watched(task, *STUBBORN, stop_grace_s=600)
    written(task.folder / "starts")
    process.terminate()
    process.wait(30)
    assert record(task.folder / "exit.json")["forced"] is True


def test_a_shim_that_slept_does_not_take_a_new_contact_for_its_old_lease(task: Shim, home: ContactFile) -> None:
    """As after a machine's sleep: the agent is in contact again before the shim has looked at the clock."""
    home.renew(home.now_s(), 1.0)
    process = watched(task, *STUBBORN, stop_grace_s=600)
    written(task.folder / "starts")
    os.kill(process.pid, signal.SIGSTOP)
    since_s = home.now_s()
    until(lambda: home.renew(home.now_s(), 1.0) or home.now_s() > since_s + 1.6)  # type: ignore[func-returns-value]
    os.kill(process.pid, signal.SIGCONT)
    until(lambda: home.renew(home.now_s(), 1.0) or process.poll() is not None)  # type: ignore[func-returns-value]
    ended = record(task.folder / "exit.json")
    assert (ended["forced"], ended["signal"]) == (True, int(signal.SIGKILL))


def test_a_flood_of_output_does_not_hide_the_end_of_a_lease(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s(), 1.0)
    process = watched(task, "sh", "-c", "trap '' TERM; yes", stop_grace_s=600, log_bytes_max=1 << 20)
    process.wait(30)
    assert record(task.folder / "exit.json")["forced"] is True


def test_a_task_without_a_lease_watches_nothing(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = unique()
    runs(agent, peer, *SLEEPER, uid=uid, on_partition="continue")
    assert "contact" not in record(agent.tasks / uid / "task.json")
