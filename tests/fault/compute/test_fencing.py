"""A machine that lost the centre: what may not run twice has ended before the centre may start it elsewhere."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.compute.controllers import LOST_AFTER_TTLS
from atoll.compute.runtime.contact import ContactFile, contact_path
from atoll.compute.runtime.shim import lease_clock_s
from fault.compute.life import SLEEPER, is_alive, kill, processes_of, record, unique, until, written
from fault.compute.peer import AgentProcess, Peer
from fault.compute.test_shim import Shim

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TTL_S = 5.0
"""The lease once tasks run; they start under a longer one, which no stall of the machine uses up."""

STUBBORN = ("sh", "-c", "trap '' TERM; echo started >> starts; while :; do sleep 0.05; done")
FENCED = {"on_partition": "stop", "stop_grace_s": 600}


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer(answer_within_s=0.5)
    yield made
    made.leave()


@pytest.fixture
def agent(tmp_path: Path, peer: Peer) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path / "node", peer)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    for path in made.tasks.glob("*"):
        for pid in processes_of(path.name):
            kill(pid)


def runs(agent: AgentProcess, peer: Peer, *command: str, **fields: object) -> str:
    """The uid of a new task that runs, as the centre knows."""
    uid = peer.want(*command, **fields)
    written(agent.tasks / uid / "starts")
    peer.reaches(uid, "running")
    return uid


def ended_s(agent: AgentProcess, uid: str) -> float:
    """When no process of the task was left, but for its shim, which may wait for the disk."""
    shim = record(agent.tasks / uid / "shim.json")["shim_pid"]
    until(lambda: not set(processes_of(uid)) - {shim}, what="the task ends")
    return lease_clock_s(False)


# -- with real agents -------------------------------------------------------------------------------------------


def test_a_task_of_a_dead_agent_ends_before_its_place_may_be_given_away(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *STUBBORN, **FENCED)
    free = runs(agent, peer, *SLEEPER, on_partition="continue")
    pid = peer.latest[free]["pid"]
    agent.shorten_lease(TTL_S)
    agent.kill()
    peer.close()
    contact_at = agent.contact_s
    assert TTL_S < ended_s(agent, fenced) - contact_at < LOST_AFTER_TTLS * TTL_S
    assert is_alive(pid)
    peer.latest.clear()
    peer.open()
    agent.joined()
    assert peer.reaches(fenced, "failed")["reason"].startswith("stopped: no contact with the centre for 5 s, killed")
    assert peer.reaches(free, "running")["pid"] == pid
    assert written(agent.tasks / free / "starts").count("started") == 1


def test_an_agent_that_dies_alone_is_enough(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    agent.shorten_lease(TTL_S)
    agent.kill()
    assert TTL_S < ended_s(agent, fenced) - agent.contact_s < LOST_AFTER_TTLS * TTL_S


def test_a_shim_that_is_stopped_is_ended_with_its_task_by_the_agent(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    agent.shorten_lease(TTL_S)
    os.kill(record(agent.tasks / fenced / "shim.json")["shim_pid"], signal.SIGSTOP)
    peer.close()
    ended_s(agent, fenced)
    peer.open()
    assert peer.reaches(fenced, "failed")["reason"] == (
        "stopped: no contact with the centre for 5 s; the shim was killed"
    )


def test_an_agent_that_starts_again_inside_a_partition_wins_no_time(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *STUBBORN, **FENCED)
    agent.shorten_lease(TTL_S)
    peer.close()
    agent.kill()
    contact_at = agent.contact_s
    agent.start()
    for part in (0.3, 0.6, 0.9):
        until(lambda part=part: lease_clock_s(False) > contact_at + part * TTL_S)  # type: ignore[misc]
        agent.kill()
        agent.start()
    assert ended_s(agent, fenced) - contact_at < LOST_AFTER_TTLS * TTL_S
    assert agent.contact_s == contact_at


def test_an_agent_that_is_back_within_the_lease_finds_its_tasks_running(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    pid, before_s = peer.latest[fenced]["pid"], agent.contact_s
    agent.kill()
    peer.latest.clear()
    agent.joined()
    assert peer.reaches(fenced, "running")["pid"] == pid
    until(lambda: agent.contact_s > before_s)


def test_tasks_beside_their_centre_go_on_while_it_is_down_and_heed_it_once_it_is_up(
    agent: AgentProcess, peer: Peer, tmp_path: Path
) -> None:
    """The centre's process is known by its lock: while that is free nobody can give a place away."""
    lock, ttl_s = tmp_path / "server.lock", 3.0
    lock.touch()
    agent.options = ("--centre-lock", str(lock))
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        agent.joined()
        fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
        agent.shorten_lease(ttl_s)
        agent.kill()
        peer.close()
    down_s = lease_clock_s(False)
    until(lambda: lease_clock_s(False) > down_s + 2 * LOST_AFTER_TTLS * ttl_s)
    assert len(processes_of(fenced)) == 2
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        up_s = lease_clock_s(False)
        assert ended_s(agent, fenced) - up_s < LOST_AFTER_TTLS * ttl_s


def test_a_centre_that_changes_its_lease_time_is_heeded_at_once(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    fenced = runs(agent, peer, *SLEEPER, on_partition="stop")
    agent.shorten_lease(1.0)
    peer.close()
    ended_s(agent, fenced)
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


def keep_until(home: ContactFile, condition: Callable[[], bool], ttl_s: float) -> None:
    """Renew contact until `condition` holds."""
    until(lambda: home.renew(home.now_s(), ttl_s) or condition())  # type: ignore[func-returns-value]


def test_a_command_never_starts_on_a_lease_that_has_ended(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s() - 5.1, 5.0)
    watched(task, "sh", "-c", "echo started > starts").wait(60)
    ended = record(task.folder / "exit.json")
    assert (ended["reason"], ended["exit_code"]) == ("cannot start: no contact with the centre for 5 s", 127)
    assert not (task.folder / "starts").exists()


def test_a_command_never_starts_where_contact_cannot_be_read(task: Shim) -> None:
    watched(task, "sh", "-c", "echo started > starts").wait(60)
    assert "no contact with the centre" in record(task.folder / "exit.json")["reason"]
    assert not (task.folder / "starts").exists()


def test_a_renewed_contact_keeps_a_command_running(task: Shim, home: ContactFile) -> None:
    home.renew(home.now_s(), 3.0)
    process = watched(task, "sh", "-c", "echo up; exec sleep 600")
    keep_until(home, (task.folder / "shim.json").exists, 3.0)
    until_s = home.now_s() + 5.0
    keep_until(home, lambda: home.now_s() > until_s, 3.0)
    assert process.poll() is None
    process.wait(60)
    ended = record(task.folder / "exit.json")
    assert (ended["stopped"], record(task.folder / "stop.json")) == (
        True,
        {"reason": "no contact with the centre for 3 s"},
    )


def test_the_end_of_the_lease_cuts_a_grace_that_began_before(task: Shim, home: ContactFile) -> None:
    began_s = home.now_s()
    home.renew(began_s, 60.0)
    process = watched(task, *STUBBORN, stop_grace_s=600)
    written(task.folder / "starts")
    process.terminate()
    home.renew(began_s, 1.0)
    process.wait(60)
    assert record(task.folder / "exit.json")["forced"] is True


def test_a_shim_that_slept_does_not_take_a_new_contact_for_its_old_lease(task: Shim, home: ContactFile) -> None:
    """As after a machine's sleep: the agent is in contact again before the shim has looked at the clock."""
    home.renew(home.now_s(), 60.0)
    process = watched(task, *STUBBORN, stop_grace_s=600)
    written(task.folder / "starts")
    os.kill(process.pid, signal.SIGSTOP)
    since_s = home.now_s()
    keep_until(home, lambda: home.now_s() > since_s + 1.6, 1.0)
    os.kill(process.pid, signal.SIGCONT)
    keep_until(home, lambda: process.poll() is not None, 1.0)
    ended = record(task.folder / "exit.json")
    assert (ended["forced"], ended["signal"]) == (True, int(signal.SIGKILL))


def test_a_flood_of_output_does_not_hide_the_end_of_a_lease(task: Shim, home: ContactFile) -> None:
    began_s = home.now_s()
    home.renew(began_s, 60.0)
    process = watched(task, "sh", "-c", "trap '' TERM; yes", stop_grace_s=600, log_bytes_max=1 << 20)
    written(task.folder / "output.log")
    home.renew(began_s, 1.0)
    process.wait(60)
    assert record(task.folder / "exit.json")["forced"] is True


def test_a_task_without_a_lease_watches_nothing(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = unique()
    runs(agent, peer, *SLEEPER, uid=uid, on_partition="continue")
    assert "contact" not in record(agent.tasks / uid / "task.json")
