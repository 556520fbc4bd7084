"""The environment of a task: what it gets, and above all what it does not."""

from __future__ import annotations

import sys
from pathlib import Path

from atoll.compute.runtime.base import TaskSpec
from atoll.compute.runtime.environment import node_environment, task_environment

AGENT = {
    "PATH": "/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PIP_INDEX_URL": "https://mirror/simple",
    "ATOLL_SYSTEM_KEY": "sk-secret",
    "ATOLL_PARENT_FD": "9",
    "AWS_SECRET_ACCESS_KEY": "s3-secret",
    "DATABASE_PASSWORD": "secret",
    "LD_PRELOAD": "/lib/trace.so",
}


def test_secrets_of_the_agent_do_not_reach_a_task() -> None:
    passed = node_environment(AGENT, "/srv/blobs")
    assert not [value for value in passed.values() if "secret" in value]
    assert set(passed) == {"PATH", "HOME", "LC_ALL", "PIP_INDEX_URL"}


def test_object_store_keys_pass_only_to_an_object_store() -> None:
    assert "AWS_SECRET_ACCESS_KEY" in node_environment(AGENT, "s3://bucket/blobs")
    assert "AWS_SECRET_ACCESS_KEY" not in node_environment(AGENT, "file:///srv/blobs")


def test_python_is_the_agents_own() -> None:
    assert node_environment(AGENT, "")["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_threads_follow_the_cores_and_are_never_none() -> None:
    for cpu, threads in ((4.0, "4"), (1.5, "2"), (0.1, "1"), (None, "1")):
        task = TaskSpec("a", 1, ("true",), resources={"cpu": cpu})
        assert task_environment(task, Path("/t"), Path("/h"), "")["OMP_NUM_THREADS"] == threads


def test_a_task_is_told_where_and_who_it_is() -> None:
    task = TaskSpec("a", 7, ("true",), workload_uid="w", rank=2, world_size=4)
    env = task_environment(task, Path("/h/tasks/a"), Path("/h"), "s3://b")
    assert env["ATOLL_TASK_DIR"] == "/h/tasks/a"
    assert (env["ATOLL_TASK_UID"], env["ATOLL_TASK_EPOCH"]) == ("a", "7")
    assert (env["ATOLL_RANK"], env["ATOLL_WORLD_SIZE"], env["ATOLL_BLOBS"]) == ("2", "4", "s3://b")
    assert (env["ATOLL_CACHE"], env["ATOLL_WORK"]) == ("/h/cache", "/h/work/w")
