"""`kill -9` of each process of the platform, and of all at once: work goes on, once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from atoll.core.files import read_json
from running import Platform, counted_workload, platform, processes, starts, until
from tiny_gguf import write_model

ROLE_SETS = [("server",), ("agent",), ("gateway",), ("server", "agent"), ("server", "gateway", "agent")]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that serves a tiny model."""
    root = tmp_path_factory.mktemp("kill")
    with platform(root / "home") as made:
        model = write_model(root / "tiny.gguf")
        with made.client() as client:
            client.put("ModelVersion", "tiny.v1", {"model": "tiny", "source": f"file:{model}"})
            client.put("Deployment", "tiny", {"model": "tiny", "context": 256, "slots": 2, "cpu": 0.1, "threads": 1})
        made.reaches("Deployment", "tiny", "ready")
        yield made


def engine_pid(up: Platform) -> int:
    return until(lambda: processes(up.home, "atoll.serving.engine.llamacpp"), "the engine")[0]


def noted_pid(up: Platform) -> object:
    """The agent that has taken the node last."""
    return (read_json(up.home / "agent" / "node.json") or {}).get("pid")


def answer(up: Platform, key: str = "") -> int:
    """Tokens of one completion."""
    reply = up.openai(key, retries=5).chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=4
    )
    assert reply.usage is not None
    return reply.usage.completion_tokens


@pytest.mark.parametrize("roles", ROLE_SETS, ids="+".join)
def test_tasks_and_replicas_outlive_killed_roles(up: Platform, tmp_path: Path, roles: tuple[str, ...]) -> None:
    name = "-".join(("count", *roles))
    log = tmp_path / "starts"
    with up.client() as client:
        client.put("Workload", name, counted_workload(log))
    up.reaches("Workload", name, "running")
    pids_before, engine_before = until(lambda: starts(log), "the task to say it began"), engine_pid(up)
    up.kill(*roles)
    answer(up)
    with_new = until(lambda: [up.pid(role) for role in roles], "the roles to be started again")
    assert len(with_new) == len(roles)
    until(lambda: (found := up.read("Workload", name)) and found.phase == "running", "the workload to be seen running")
    assert starts(log) == pids_before
    assert engine_pid(up) == engine_before
    with up.client() as client:
        client.delete("Workload", name)
    until(lambda: up.is_gone("Workload", name), "the workload to go")
    assert not Path(f"/proc/{pids_before[0]}").exists()


def test_the_gateway_serves_while_the_server_is_down(up: Platform) -> None:
    server = up.pid("server")
    os.kill(server, signal.SIGSTOP)
    try:
        assert answer(up) == 4
    finally:
        os.kill(server, signal.SIGCONT)


def test_usage_of_killed_gateways_reaches_the_ledger_once(up: Platform) -> None:
    """By a key of its own: what others used may reach the ledger only now."""
    with up.client() as client:
        key = client.create_key("billed")
    until(lambda: key.id in (up.home / "gateway" / "snapshot.json").read_text(), "the gateway to note the key")

    def billed() -> int:
        with up.client() as client:
            return sum(row.completion_tokens for row in client.usage(by=["key"]).rows if row.key == key.id)

    told = 0
    for _ in range(3):
        told += answer(up, key.key)
        up.kill("gateway")
    told += answer(up, key.key)
    until(lambda: billed() >= told, "the ledger to hold what was answered")
    assert billed() == told


def test_a_supervisor_killed_with_everything_is_started_again_and_finds_its_tasks(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    with platform(tmp_path / "home") as up:
        with up.client() as client:
            client.put("Workload", "count", counted_workload(log))
        up.reaches("Workload", "count", "running")
        until(lambda: starts(log), "the task to say it began")
        for roles in (("up",), ("up", "server", "gateway", "agent")):
            before = noted_pid(up)
            up.kill(*roles)
            up.start()
            until(lambda before=before: noted_pid(up) != before, "the next agent")  # type: ignore[misc]
            up.reaches("Workload", "count", "running")
            assert len(starts(log)) == 1
            assert Path(f"/proc/{starts(log)[0]}").exists()
        assert up.stop() == 0
        assert not Path(f"/proc/{starts(log)[0]}").exists(), "Ctrl-C stops the tasks"
        assert processes(up.home, "atoll") == []


def test_a_crashed_replica_is_started_again_and_its_last_words_are_the_reason(up: Platform) -> None:
    before = engine_pid(up)
    os.kill(before, signal.SIGKILL)
    reasons: set[str] = set()
    names: set[str] = set()

    def is_back() -> bool:
        with contextlib.suppress(Exception), up.client() as client:
            names.update(r.name for r in client.find_all("Replica").items if r.spec["deployment"] == "tiny")
        replica = up.read("Replica", min(names)) if names else None
        if replica is not None:
            reasons.add(str(replica.status["reason"]))
        return replica is not None and replica.phase == "ready" and replica.status["restarts"] >= 1

    until(is_back, "the replica to be ready again")
    assert len(names) == 1, "it is the same replica"
    assert engine_pid(up) != before
    with up.client() as client:  # where it stood as well, should it have been passed over too quickly to be read
        reasons |= {event.message for event in client.events("Replica", min(names))}
    assert any("signal 9" in reason for reason in reasons), reasons
    assert answer(up) == 4


def test_a_workload_that_fails_says_its_last_line(up: Platform) -> None:
    role = {"command": ["{python}", "-c", "print('out of cheese'); raise SystemExit(7)"], "resources": {"cpu": 0.1}}
    with up.client() as client:
        client.put("Workload", "sad", {"roles": [role], "restart": {"limit": 2, "backoff_min_s": 0.1}})
    reason = up.reaches("Workload", "sad", "failed").status["reason"]
    assert "exited with code 7" in reason
    assert "out of cheese" in reason
    assert "after 2 restarts" in reason


def test_no_request_fails_while_the_only_engine_is_killed_again_and_again(up: Platform) -> None:
    """Whole answers and streams alike: those under way go on on its successor, those that come wait for it."""
    told: Counter[str] = Counter()
    is_over = threading.Event()

    def ask(stream: bool) -> None:
        door = up.openai()
        while not is_over.is_set():
            try:
                done = door.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=16, stream=stream
                )
                told["streams" if stream and list(done) else "whole"] += 1
            except openai.OpenAIError as error:
                told[f"failed: {error}"] += 1

    asking = [threading.Thread(target=ask, args=(number % 2 == 1,)) for number in range(4)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(3):
            before = dict(told)
            os.kill(engine_pid(up), signal.SIGKILL)
            until(lambda seen=before: all(told[k] > seen.get(k, 0) + 2 for k in ("whole", "streams")), "answers", 120)  # type: ignore[misc]
    finally:
        is_over.set()
        for thread in asking:
            thread.join(60)
    assert set(told) == {"whole", "streams"}


def test_a_ctrl_c_while_everything_still_starts_ends_the_tasks_that_are_found(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    with platform(tmp_path / "home") as up:
        with up.client() as client:
            client.put("Workload", "count", counted_workload(log))
        (task,) = until(lambda: starts(log), "the task to say it began")
        up.kill("up", "server", "gateway", "agent")
        up.launch()
        up.pid("agent")  # its first instruction, at most
        assert up.stop() == 0
        assert not Path(f"/proc/{task}").exists()


def test_a_second_ctrl_c_does_not_wait_for_a_task_that_will_not_stop(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    stubborn = counted_workload(log)
    stubborn["roles"][0] |= {"command": ["sh", "-c", f"trap '' TERM; echo $$ >> {log}; while :; do sleep 0.1; done"]}
    with platform(tmp_path / "home") as up:
        with up.client() as client:
            client.put("Workload", "stubborn", stubborn | {"stop_grace_s": 600})
        (task,) = until(lambda: starts(log), "the task to say it began")
        assert up.process is not None
        up.process.send_signal(signal.SIGINT)
        until(lambda: "Ctrl-C again" in (up.home / "up.log").read_text(), "it to say what it does")
        until(lambda: list(up.home.rglob("stop.json")), "the task to be asked to stop")
        assert up.stop() == 0
        assert processes(up.home, "atoll.server") == [] and Path(f"/proc/{task}").exists()
