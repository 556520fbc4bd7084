"""A node that is away longer than the centre waits, and comes back: what it kept, what it gave up, what is cleaned."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.compute.controllers import AWAY_REASON
from atoll.core.files import read_json
from running import Platform, counted_workload, platform, starts, until

LEASE_TTL_S = 8


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose centre waits for nobody for long."""
    home = tmp_path_factory.mktemp("away") / "home"
    home.mkdir()
    (home / "atoll.toml").write_text(f"lease_ttl_s = {LEASE_TTL_S}\n")
    with platform(home) as made:
        yield made


def put(up: Platform, name: str, log: Path, on_partition: str) -> int:
    """A workload that runs; the process id of its one start."""
    with up.client() as client:
        client.put("Workload", name, counted_workload(log) | {"on_partition": on_partition})
    up.reaches("Workload", name, "running")
    (pid,) = until(lambda: starts(log), "the task to say it began")
    return pid


def node(up: Platform) -> str:
    with up.client() as client:
        return str(client.find_all("Node").items[0].name)


def test_a_node_that_is_back_goes_on_with_what_may_run_on_and_cleans_what_was_deleted(
    up: Platform, tmp_path: Path
) -> None:
    goes_on, deleted = put(up, "goes-on", tmp_path / "a", "continue"), put(up, "deleted", tmp_path / "b", "stop")
    [task] = [t for t in up.tasks() if t.spec["workload"] == "deleted"]
    folders = [up.home / "agent" / "tasks" / task.uid, up.home / "agent" / "work" / task.spec["workload_uid"]]
    assert all(folder.is_dir() for folder in folders)
    agent, name = up.pid("agent"), node(up)
    os.kill(agent, signal.SIGSTOP)
    try:
        until(lambda: not Path(f"/proc/{deleted}").exists(), "the shim to end what may not run on")
        up.reaches("Node", name, "lost")
        with up.client() as client:
            client.delete("Workload", "deleted")
        until(lambda: up.is_gone("Workload", "deleted"), "the workload to go")
        until(lambda: _reason(up, "goes-on") == AWAY_REASON, "people to be told")
        assert all(folder.is_dir() for folder in folders)
    finally:
        os.kill(agent, signal.SIGCONT)
    up.reaches("Node", name, "schedulable")
    until(lambda: not any(folder.exists() for folder in folders), "what was deleted to be cleaned")
    until(lambda: _reason(up, "goes-on") == "", "the doubt to be over")
    assert starts(tmp_path / "a") == [goes_on]
    assert Path(f"/proc/{goes_on}").exists()


def _reason(up: Platform, name: str) -> str | None:
    found = up.read("Workload", name)
    return None if found is None or found.phase != "running" else str(found.status["reason"])


def test_tasks_beside_their_centre_know_its_lock(up: Platform) -> None:
    """So they go on while it is down, however long: `tests/fault/compute/test_fencing.py` shows that."""
    said = read_json(up.home / "agent" / "contact.json")
    assert said is not None
    assert said["centre_lock"] == str(up.home / "run" / "server.lock")
    assert said["lease_ttl_s"] == LEASE_TTL_S
