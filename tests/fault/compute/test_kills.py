"""kill -9 of anything at any moment: no task is lost, started twice, or left without a keeper."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest

from fault.compute.life import kill, processes_of, until
from fault.compute.peer import AgentProcess, Peer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

ROUNDS = 30
MOMENTS_S = 0.15
FAMILY = ("sh", "-c", "echo started >> starts; setsid sleep 600 & sleep 600 & wait; exit 1")
"""It fails however it ends, also when both its sleeps are killed, one after the other."""


def test_tasks_survive_or_end_wholly_whatever_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("ATOLL_TEST_SEED", "0")) or random.randrange(1 << 30)
    print(f"ATOLL_TEST_SEED={seed}")
    chance, peer = random.Random(seed), Peer()
    agent = AgentProcess(tmp_path / "node", peer).start()
    uids: list[str] = []
    try:
        for _ in range(ROUNDS):
            uids.append(peer.want(*FAMILY, stop_grace_s=1))
            _wait_until(time.monotonic() + chance.uniform(0, MOMENTS_S))
            _strike(chance, agent, uids)
        for uid in uids:
            until(lambda uid=uid: _is_settled(peer, agent, uid), 60, f"{uid}: {peer.latest.get(uid)}")  # type: ignore[misc]
        for uid in uids:
            peer.stop(uid)
        for uid in uids:
            peer.reaches(uid, "failed", 60)
            until(lambda uid=uid: not processes_of(uid))  # type: ignore[misc]
            assert _starts(agent, uid) <= 1
        assert _starts_in_all(agent, uids) > 0
    finally:
        agent.kill()
        peer.leave()
        for uid in uids:
            for pid in processes_of(uid):
                kill(pid)


def _wait_until(moment: float) -> None:
    until(lambda: time.monotonic() >= moment)


def _strike(chance: random.Random, agent: AgentProcess, uids: list[str]) -> None:
    """Kill the agent, or a process of some task, or both; then see that there is an agent."""
    target = chance.choice(["agent", "process", "both", "process of an older task"])
    uid = uids[-1] if target != "process of an older task" else chance.choice(uids)
    if target in ("agent", "both"):
        agent.kill()
    if target != "agent" and (pids := processes_of(uid)):
        kill(chance.choice(pids))
    if target in ("agent", "both"):
        agent.start()


def _is_settled(peer: Peer, agent: AgentProcess, uid: str) -> bool:
    """Told as running and wholly there, or told as failed and wholly gone."""
    told = peer.latest.get(uid)
    if told is None or told["state"] not in ("running", "failed"):
        return False
    assert _starts(agent, uid) <= 1, f"{uid} was started twice"
    count = len(processes_of(uid))
    return count == 0 if told["state"] == "failed" else count >= 1


def _starts(agent: AgentProcess, uid: str) -> int:
    path = agent.tasks / uid / "starts"
    return path.read_text().count("started") if path.exists() else 0


def _starts_in_all(agent: AgentProcess, uids: list[str]) -> int:
    return sum(_starts(agent, uid) for uid in uids)
