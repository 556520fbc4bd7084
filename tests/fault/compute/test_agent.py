"""The agent as a process, against a real HTTP peer: it may die at any time, and so may the centre."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.compute.agent.main import ASKING
from atoll.compute.runtime.shim import lease_clock_s
from fault.compute.life import SLEEPER, is_alive, kill, processes_of, record, unique, until, written
from fault.compute.peer import AgentProcess, Peer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

STUBBORN = ("sh", "-c", "trap '' TERM; echo started >> starts; while :; do sleep 0.05; done")


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.leave()


@pytest.fixture
def agent(tmp_path: Path, peer: Peer) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path / "node", peer)
    yield made
    _clear(made)


@pytest.fixture
def obedient(tmp_path: Path, peer: Peer) -> Iterator[AgentProcess]:
    """An agent that stops its tasks when it is asked to end."""
    made = AgentProcess(tmp_path / "node", peer, "--stop-tasks")
    yield made
    _clear(made)


def _clear(agent: AgentProcess) -> None:
    if agent.process is not None and agent.process.poll() is None:
        agent.kill()
    for path in agent.tasks.glob("*"):
        for pid in processes_of(path.name):
            kill(pid)


def starts(agent: AgentProcess, uid: str) -> int:
    return written(agent.tasks / uid / "starts").count("started")


def open_files(pid: int) -> list[str]:
    """What `pid` has open, but for what it closes while we look."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return found


def identity(agent: AgentProcess, uid: str) -> dict[str, int]:
    return record(agent.tasks / uid / "shim.json")


# -- the common life --------------------------------------------------------------------------------------------


def test_an_agent_registers_with_its_inventory(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    (said,) = peer.registrations
    assert (said["node"], said["site"]) == ("n1", "centre")
    assert set(said) == {"node", "site", "boot_id", "agent_id", "inventory"}
    assert said["inventory"]["cpu"] > 0
    assert peer.syncs[0]["observed"] == []
    assert record(agent.home / "agent" / "node.json")["pid"] == agent.pid


def test_a_wanted_task_runs_and_its_end_is_told(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("sh", "-c", "echo $ATOLL_BLOBS; echo '{\"n\": 1}' > result.json")
    told = peer.reaches(uid, "succeeded")
    assert (told["exit_code"], told["result"], told["log_tail"]) == (0, {"n": 1}, ["file:///blobs"])
    assert (told["epoch"], told["role"], told["workload_uid"]) == (1, "worker", f"w-{uid}")


def test_changes_are_told_at_once(agent: AgentProcess, peer: Peer) -> None:
    """A start and an end cross the waiting sync, which would take ten seconds; the bound is for a busy machine."""
    agent.joined()
    delays = []
    for _ in range(5):
        asked = time.monotonic()
        uid = peer.want("sh", "-c", "read line < /dev/null; exit 1")
        peer.reaches(uid, "failed")
        delays.append(time.monotonic() - asked)
    assert sorted(delays)[2] < 5


def test_progress_is_told_while_it_runs(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(
        "sh", "-c", 'for n in 1 2 3; do echo "{\\"done\\": $n}" > p; mv p progress.json; done; exec sleep 600'
    )
    until(lambda: peer.latest.get(uid, {}).get("progress") == {"done": 3})
    assert peer.latest[uid]["state"] == "running"


def test_a_task_to_be_stopped_is_stopped_and_then_forgotten(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    peer.reaches(uid, "running")
    written(agent.tasks / uid / "starts")
    peer.stop(uid)
    assert peer.reaches(uid, "failed")["reason"] == "stopped: asked to stop; killed by signal 15 (SIGTERM)"
    work = agent.home / "agent" / "work" / f"w-{uid}"
    assert work.is_dir()
    peer.drop(uid, forget=True, workloads=True)
    until(lambda: not (agent.tasks / uid).exists() and not work.exists(), what="forgotten")


def test_work_of_which_no_task_is_left_here_goes_when_its_workload_is_gone(agent: AgentProcess, peer: Peer) -> None:
    """Its last tasks ran elsewhere, and it was deleted while this node was away."""
    agent.joined()
    gone, kept = peer.want("false"), peer.want("false")
    works = {uid: agent.home / "agent" / "work" / f"w-{uid}" for uid in (gone, kept)}
    for uid in (gone, kept):
        peer.reaches(uid, "failed")
    peer.drop(gone, forget=True)
    until(lambda: not (agent.tasks / gone).exists())
    assert works[gone].is_dir()
    agent.kill()
    peer.forgets_unknown = True
    agent.joined()
    until(lambda: not works[gone].exists(), what="its work is deleted")
    assert works[kept].is_dir()


def test_a_task_the_centre_does_not_know_is_stopped(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    peer.reaches(uid, "running")
    written(agent.tasks / uid / "starts")
    peer.drop(uid)
    assert "no longer wanted" in peer.reaches(uid, "failed")["reason"]


def test_a_task_stopped_before_it_came_is_told_and_never_starts(agent: AgentProcess, peer: Peer) -> None:
    uid = peer.want(*SLEEPER, stop=True)
    agent.joined()
    assert peer.reaches(uid, "failed")["reason"] == "stopped before it was started"
    assert not (agent.tasks / uid / "starts").exists()


def test_a_newer_epoch_starts_when_the_older_has_ended(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    place = {"workload_uid": unique(), "stop_grace_s": 0.5}
    old = peer.want(*STUBBORN, epoch=1, **place)
    starts(agent, old)
    new = peer.want(*SLEEPER, epoch=2, **place)
    assert peer.reaches(old, "failed")["reason"].startswith("stopped: replaced by epoch 2")
    peer.reaches(new, "running")
    ended_at = record(agent.tasks / old / "exit.json")["ended_at"]
    assert identity(agent, new)["started_at"] >= ended_at


def test_a_command_that_cannot_start_is_told(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("no-such-program")
    assert peer.reaches(uid, "failed")["reason"] == "cannot start: No such file or directory: 'no-such-program'"
    broken = peer.want()
    assert "is not a list of words" in peer.reaches(broken, "failed")["reason"]


def test_logs_are_sent_on_demand(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("sh", "-c", "seq 1 1000; exec sleep 600")
    text = "".join(f"{n}\n" for n in range(1, 1001)).encode()
    until(lambda: peer.demand(uid, 0, 1)["size_bytes"] == len(text))
    piece = peer.demand(uid, 10, 100)
    assert (piece["data"], piece["offset"], piece["ended"]) == (text[10:110], 10, False)
    assert peer.demand(uid, -5, 100)["data"] == b"1000\n"
    assert peer.demand(unique(), 0, 100)["ended"] is True
    assert peer.demand("../..", 0, 100)["data"] == b""


# -- deaths -----------------------------------------------------------------------------------------------------


def test_tasks_outlive_a_killed_agent_and_are_adopted(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    pid = peer.reaches(uid, "running")["pid"]
    starts(agent, uid)
    for _ in range(3):
        agent.kill()
        peer.latest.clear()
        agent.joined()
        assert peer.reaches(uid, "running")["pid"] == pid
    assert is_alive(pid)
    assert starts(agent, uid) == 1
    peer.stop(uid)
    peer.reaches(uid, "failed")
    assert not is_alive(pid)


def test_a_task_that_ended_while_no_agent_was_there_is_told_by_the_next(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("sh", "-c", "mkfifo gate; read line < gate; exit 5")
    gate = agent.tasks / uid / "gate"
    until(gate.exists)
    agent.kill()
    gate.write_text("go\n")
    until((agent.tasks / uid / "exit.json").exists)
    agent.joined()
    assert peer.reaches(uid, "failed")["exit_code"] == 5


def test_a_killed_shim_is_told_at_once(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    starts(agent, uid)
    kill(identity(agent, uid)["shim_pid"])
    told = peer.reaches(uid, "failed")
    assert (told["reason"], told["exit_code"], told["signal"]) == ("the shim was killed", None, None)
    assert processes_of(uid) == []


def test_agent_and_shim_killed_together_leave_nothing_behind(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("sh", "-c", "(setsid sleep 600 &) ; echo started >> starts; sleep 600; :")
    starts(agent, uid)
    shim = identity(agent, uid)["shim_pid"]
    agent.kill()
    kill(shim)
    agent.joined()
    assert peer.reaches(uid, "failed")["reason"] == "the shim was killed"
    assert processes_of(uid) == []
    assert starts(agent, uid) == 1


def test_a_second_agent_on_one_home_gives_way_and_names_the_first(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    second = AgentProcess(agent.home, peer).start()
    assert second.ends() == 2
    assert f"an agent with pid {agent.pid} already runs on {agent.home}" in agent.words()
    assert len(peer.registrations) == 1


def test_an_agent_asked_to_end_leaves_its_tasks(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    pid = peer.reaches(uid, "running")["pid"]
    assert agent.end() == 0
    assert is_alive(pid)


def test_an_agent_asked_to_end_with_its_tasks_stops_them_side_by_side(obedient: AgentProcess, peer: Peer) -> None:
    obedient.joined()
    uids = [peer.want(*STUBBORN, stop_grace_s=3) for _ in range(3)]
    for uid in uids:
        starts(obedient, uid)
    assert obedient.end() == 0
    asked_at = [(obedient.tasks / uid / "stop.json").stat().st_mtime for uid in uids]
    ended_at = [record(obedient.tasks / uid / "exit.json")["ended_at"] for uid in uids]
    assert max(asked_at) < min(ended_at), "all were asked before one had ended"
    for uid in uids:
        told = peer.latest[uid]
        assert told["state"] == "failed"
        assert told["reason"].startswith("stopped: its agent was asked to stop all tasks, killed when its grace was")
        assert processes_of(uid) == []


def test_an_agent_asked_to_end_before_its_first_instruction_stops_what_it_finds(
    obedient: AgentProcess, peer: Peer
) -> None:
    """Its parent holds the signal back until the agent can heed it."""
    obedient.joined()
    uid = peer.want(*SLEEPER)
    starts(obedient, uid)
    obedient.kill()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        obedient.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert obedient.end() == 0
    assert processes_of(uid) == []


def test_an_agent_that_cannot_reach_the_centre_ends_all_the_same(obedient: AgentProcess, peer: Peer) -> None:
    obedient.joined()
    uid = peer.want(*SLEEPER)
    starts(obedient, uid)
    peer.close()
    assert obedient.end() == 0
    assert processes_of(uid) == []


def test_an_agent_ends_with_its_parent_and_leaves_its_tasks(agent: AgentProcess, peer: Peer) -> None:
    ours, theirs = os.pipe()
    agent.start(env={"ATOLL_PARENT_FD": str(ours)}, pass_fds=[ours])
    os.close(ours)
    uid = peer.want("sh", "-c", "ls -l /proc/self/fd > fds; exec sleep 600")
    pid = peer.reaches(uid, "running")["pid"]
    written(agent.tasks / uid / "fds")
    assert f"pipe:[{os.fstat(theirs).st_ino}]" not in open_files(identity(agent, uid)["shim_pid"])
    os.close(theirs)
    assert agent.ends() == 0
    assert is_alive(pid)


# -- the centre goes away ---------------------------------------------------------------------------------------


def test_a_restart_of_the_centre_is_survived(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    pid = peer.reaches(uid, "running")["pid"]
    peer.close()
    other = peer.want("sh", "-c", "exit 1")
    peer.open()
    peer.reaches(other, "failed")
    assert is_alive(pid)
    assert peer.latest[uid]["state"] == "running"
    assert len(peer.registrations) == 1


def test_what_happened_while_the_centre_was_away_is_told_afterwards(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want("sh", "-c", "mkfifo gate; read line < gate; exit 6")
    gate = agent.tasks / uid / "gate"
    until(gate.exists)
    peer.close()
    gate.write_text("go\n")
    until((agent.tasks / uid / "exit.json").exists)
    peer.open()
    assert peer.reaches(uid, "failed")["exit_code"] == 6


def test_a_centre_that_forgot_the_node_hears_everything_again(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    peer.reaches(uid, "running")
    peer.latest.clear()
    peer.refusal = (404, "not_found")
    peer.want("true")  # wakes the waiting sync
    until(lambda: "refused: not_found" in agent.words())
    peer.refusal = None
    peer.reaches(uid, "running")
    assert len(peer.registrations) >= 2


def test_a_fenced_agent_ends_and_leaves_its_tasks(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uid = peer.want(*SLEEPER)
    pid = peer.reaches(uid, "running")["pid"]
    peer.refusal = (409, "fenced")
    peer.want("true")
    assert agent.ends() == 4
    assert is_alive(pid)


def test_a_wrong_key_ends_the_agent_with_a_message(agent: AgentProcess) -> None:
    agent.start(env={"ATOLL_SYSTEM_KEY": "wrong"})
    assert agent.ends() == 2
    assert "the key is wrong" in agent.words()


def test_no_key_at_all_is_said_at_once(agent: AgentProcess) -> None:
    agent.start(env={"ATOLL_SYSTEM_KEY": ""})
    assert agent.ends() == 2
    assert "there is no key to the centre" in agent.words()


def test_a_changed_key_file_takes_effect(agent: AgentProcess, peer: Peer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-test\n")
    agent.options = ("--key-file", str(key))
    agent.start(env={"ATOLL_SYSTEM_KEY": "wrong"})
    uid = peer.want(*SLEEPER)
    peer.reaches(uid, "running")


def test_fenced_tasks_stop_when_the_lease_ends_and_others_go_on(agent: AgentProcess, peer: Peer) -> None:
    peer.answer_within_s = 0.5
    agent.joined()
    fenced = peer.want(*STUBBORN, on_partition="stop", stop_grace_s=600)
    free = peer.want(*SLEEPER, on_partition="continue")
    for uid in (fenced, free):
        starts(agent, uid)
        peer.reaches(uid, "running")
    agent.shorten_lease(4.0)
    peer.close()
    until((agent.tasks / fenced / "exit.json").exists, what="the fenced task ends")
    assert lease_clock_s(False) - agent.contact_s > 4.0
    until(lambda: not processes_of(fenced))
    until(lambda: len(processes_of(free)) == 2)
    peer.open()
    assert peer.reaches(fenced, "failed")["reason"].startswith("stopped: no contact with the centre for 4 s, killed")
    assert peer.latest[free]["state"] == "running"


def test_a_centre_that_hangs_counts_as_gone(agent: AgentProcess, peer: Peer) -> None:
    """Its socket accepts and says nothing: the lease must end all the same."""
    peer.answer_within_s = 0.5
    agent.joined()
    fenced = peer.want(*SLEEPER, on_partition="stop")
    starts(agent, fenced)
    peer.reaches(fenced, "running")
    agent.shorten_lease(4.0)
    answer: Callable[..., object] = peer.answer
    peer.answer = lambda *_: time.sleep(30) or (503, {})  # type: ignore[method-assign,assignment,return-value]
    until((agent.tasks / fenced / "exit.json").exists, what="the fenced task ends")
    peer.answer = answer  # type: ignore[method-assign,assignment]


# -- size -------------------------------------------------------------------------------------------------------

HEAVY = ("fastapi", "httpx", "pydantic", "sqlalchemy", "typer", "fsspec", "uvicorn", "rich", "numpy")


def test_the_agent_imports_nothing_heavy() -> None:
    script = "import sys, atoll.compute.agent.main; print([m for m in sys.argv[1:] if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script, *HEAVY], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_agent_is_small_and_quiet(agent: AgentProcess, peer: Peer) -> None:
    agent.joined()
    uids = [peer.want(*SLEEPER) for _ in range(3)]
    for uid in uids:
        peer.reaches(uid, "running")
    status = Path(f"/proc/{agent.pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss_kib < 35 * 1024


def test_a_hang_up_of_the_terminal_does_not_reach_the_tasks(agent: AgentProcess, peer: Peer) -> None:
    agent.start(start_new_session=True)
    uid = peer.want(*SLEEPER)
    pid = peer.reaches(uid, "running")["pid"]
    os.killpg(agent.pid, signal.SIGINT)
    assert agent.ends() == 0
    assert is_alive(pid)
