"""One task under its shim, the shim started by hand."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.compute.runtime import shim
from atoll.compute.runtime.folder import TaskFolder
from fault.compute.life import is_alive, kill, processes_of, record, unique, until, written

SHIM = [sys.executable, "-I", "-S", str(Path(shim.__file__))]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

STANDARD_SIGNALS = (1 << 31) - 1
"""Signals 1 to 31; 32 and 33 belong to the C library, which lets nobody set them."""


class Shim:
    """A task directory, and the shim over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uid = unique()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str, preexec: Any = None, **fields: Any) -> subprocess.Popen[bytes]:
        self.folder.mkdir(exist_ok=True)
        task = {"uid": self.uid, "epoch": 1, "command": command, "env": {}, "stop_grace_s": 60, **fields}
        (self.folder / "task.json").write_text(json.dumps(task))
        env = {"PATH": os.environ["PATH"], "ATOLL_TASK_UID": self.uid, "ATOLL_TASK_EPOCH": "1"}
        self.process = subprocess.Popen([*SHIM, str(self.folder)], env=env, preexec_fn=preexec, stderr=subprocess.PIPE)
        return self.process

    def run(self, *command: str, **fields: Any) -> dict[str, Any]:
        """Run to the end; the exit record."""
        process = self.start(*command, **fields)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
        return record(self.folder / "exit.json")

    @property
    def identity(self) -> dict[str, Any]:
        return record(self.folder / "shim.json")

    @property
    def output(self) -> str:
        return (self.folder / "output.log").read_text()


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Shim]:
    made = Shim(tmp_path / "task")
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()
    for pid in processes_of(made.uid):
        kill(pid)


def test_the_end_of_the_command_is_written_down(task: Shim) -> None:
    ended = task.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ended["exit_code"], ended["signal"], ended["reason"], ended["stopped"]) == (7, None, "", False)
    assert ended["rss_max_bytes"] > 1 << 16
    assert task.output == "out\nerr\n"
    assert task.identity["uid"] == task.uid


def test_a_signal_that_kills_the_command_is_written_down(task: Shim) -> None:
    ended = task.run("sh", "-c", "kill -SEGV $$")
    assert (ended["exit_code"], ended["signal"]) == (None, int(signal.SIGSEGV))


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program"], "cannot start: No such file or directory: 'no-such-program'"),
        (["./task.json"], "cannot start: Permission denied: './task.json'"),
        (["/"], "cannot start: Permission denied: '/'"),
    ],
)
def test_a_command_that_cannot_start_says_why(task: Shim, command: list[str], reason: str) -> None:
    ended = task.run(*command)
    assert (ended["exit_code"], ended["reason"]) == (127, reason)


def test_a_task_file_that_is_not_whole_is_a_reason_too(task: Shim) -> None:
    process = task.start("true", env=[1])
    process.wait(60)
    assert "cannot start" in record(task.folder / "exit.json")["reason"]


def test_the_command_has_its_own_session_and_nothing_else_of_ours(task: Shim) -> None:
    script = (
        "import os,resource,signal\n"
        "print(os.getsid(0) == os.getpgid(0) == os.getpid() != os.getppid(), os.getcwd())\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:4], os.readlink('/proc/self/fd/0'))\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn'))])\n"
    )
    # An interpreter without site, whose own ignored signals are switched off, shows what it was given.
    task.run(sys.executable, "-I", "-S", "-c", script)
    lines = task.output.splitlines()
    assert lines[0] == f"True {task.folder}"
    assert lines[1] == "['0', '1', '2', '3'] /dev/null"  # 3 is the listing itself
    assert lines[2] == "(0, 0)"
    blocked = int(lines[3].split("'")[1], 16)
    assert blocked & STANDARD_SIGNALS == 0


def test_ignored_signals_of_the_starter_are_not_handed_on(task: Shim) -> None:
    task.run("sh", "-c", "grep SigIgn /proc/self/status")
    name, ignored = task.output.split()
    assert name == "SigIgn:"
    assert int(ignored, 16) & STANDARD_SIGNALS == 0


def test_the_environment_is_the_starters_the_tasks_and_never_a_false_identity(task: Shim) -> None:
    task.run("sh", "-c", "echo $COLOUR $ATOLL_TASK_UID", env={"COLOUR": "blue", "ATOLL_TASK_UID": "another"})
    assert task.output == f"blue {task.uid}\n"


def test_a_second_shim_on_a_living_task_gives_way(task: Shim) -> None:
    task.start("sleep", "600")
    assert task.identity
    second = subprocess.run([*SHIM, str(task.folder)], capture_output=True, timeout=60, check=False)
    assert second.returncode == shim.REFUSED
    assert b"another shim holds the lock" in second.stderr
    assert is_alive(task.identity["child_pid"])


def test_a_second_shim_on_an_ended_task_gives_way(task: Shim) -> None:
    task.run("sh", "-c", "echo x >> starts")
    second = subprocess.run([*SHIM, str(task.folder)], capture_output=True, timeout=60, check=False)
    assert second.returncode == shim.REFUSED
    assert (task.folder / "starts").read_text() == "x\n"


def test_the_lock_is_held_exactly_while_the_task_lives(task: Shim) -> None:
    task.folder.mkdir()
    os.mkfifo(task.folder / "gate")
    process = task.start("sh", "-c", "read line < gate")
    assert task.identity
    with (task.folder / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        process.terminate()
        process.wait(60)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_stop_reaches_the_whole_group_and_is_graceful(task: Shim) -> None:
    script = (
        "trap 'echo bye; exit 0' TERM; (trap 'echo child bye; exit' TERM; echo up; while :; do sleep 0.05; done) & wait"
    )
    process = task.start("sh", "-c", script)
    until(lambda: (task.folder / "output.log").exists() and "up" in task.output)
    process.terminate()
    process.communicate(timeout=60)
    ended = record(task.folder / "exit.json")
    assert (ended["exit_code"], ended["stopped"], ended["forced"]) == (0, True, False)
    assert "bye" in task.output


def test_a_command_that_ignores_the_stop_is_killed_after_its_grace(task: Shim) -> None:
    process = task.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done", stop_grace_s=0.3)
    until(lambda: (task.folder / "output.log").exists() and "up" in task.output)
    process.terminate()
    process.terminate()
    process.wait(60)
    ended = record(task.folder / "exit.json")
    assert (ended["signal"], ended["stopped"], ended["forced"]) == (9, True, True)
    assert processes_of(task.uid) == []


def test_a_grace_can_be_cut_short(task: Shim) -> None:
    process = task.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done", stop_grace_s=600)
    until(lambda: (task.folder / "output.log").exists() and "up" in task.output)
    process.terminate()
    process.send_signal(signal.SIGUSR1)
    process.wait(60)
    assert record(task.folder / "exit.json")["forced"] is True


def test_a_command_that_is_suspended_can_still_be_ended(task: Shim) -> None:
    process = task.start("sleep", "600", stop_grace_s=0.2)
    os.kill(task.identity["child_pid"], signal.SIGSTOP)
    process.terminate()
    process.wait(60)
    assert record(task.folder / "exit.json")["signal"] in (9, 15)


def test_descendants_that_left_the_session_end_with_the_command(task: Shim) -> None:
    script = (
        "import os,time\n"
        "for depth in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        open(f'orphan{depth}', 'w').write(str(os.getpid()))\n"
        "        time.sleep(600)\n"
        "while not all(os.path.exists(f'orphan{d}') and os.path.getsize(f'orphan{d}') for d in range(3)):\n"
        "    time.sleep(0.01)\n"
    )
    task.run(sys.executable, "-I", "-S", "-c", script)
    orphans = [int((task.folder / f"orphan{depth}").read_text()) for depth in range(3)]
    assert not [pid for pid in orphans if is_alive(pid)]
    assert processes_of(task.uid) == []


def test_a_family_that_forks_faster_than_it_dies_is_ended(task: Shim) -> None:
    script = (
        "import os,time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        end = time.monotonic() + 3\n"
        "        while time.monotonic() < end:\n"
        "            if os.fork() == 0:\n"
        "                time.sleep(0.02)\n"
        "                os._exit(0)\n"
        "            time.sleep(0.005)\n"
        "        os._exit(0)\n"
    )
    task.run(sys.executable, "-I", "-S", "-c", script)
    assert processes_of(task.uid) == []


def test_a_killed_shim_takes_the_command_with_it(task: Shim) -> None:
    process = task.start("sleep", "600")
    child = task.identity["child_pid"]
    process.kill()
    process.wait(60)
    until(lambda: not is_alive(child), what="the command dies")
    assert not (task.folder / "exit.json").exists()


def test_a_shim_killed_before_it_let_the_command_go_lets_nothing_run(task: Shim) -> None:
    """Ten tries at random moments of the first 40 ms: either the command never ran, or it is dead."""
    for attempt in range(10):
        folder = task.folder.with_name(f"early{attempt}")
        early = Shim(folder)
        process = early.start("sh", "-c", "echo ran >> starts; exec sleep 600")
        try:
            process.wait(0.004 * attempt)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        until(lambda early=early: not processes_of(early.uid), what="nothing of it runs")  # type: ignore[misc]


# -- output -----------------------------------------------------------------------------------------------------


def test_the_log_is_cut_and_no_byte_is_lost(task: Shim) -> None:
    numbers = "".join(f"{n:06d}\n" for n in range(2500))
    task.run("sh", "-c", "seq -f %06.0f 0 2499", log_bytes_max=8192)
    folder = TaskFolder(task.folder)
    assert sorted(path.name for path in task.folder.glob("output.log*")) == ["output.log", "output.log.16384"]
    piece = folder.log(0, 1 << 20)
    assert (piece.offset, piece.size_bytes, piece.is_ended) == (8192, 17500, True)
    assert piece.data.decode() == numbers[8192:]
    assert folder.log_tail()[-1] == "002499"


def test_a_flood_of_output_does_not_keep_a_task_from_being_stopped(task: Shim) -> None:
    process = task.start("sh", "-c", "trap '' TERM; yes", stop_grace_s=0.2, log_bytes_max=1 << 20)
    until(lambda: (task.folder / "output.log").exists() and (task.folder / "output.log").stat().st_size > 4096)
    process.terminate()
    process.wait(60)
    assert sum(path.stat().st_size for path in task.folder.glob("output.log*")) <= 2 << 20


def test_a_full_disk_costs_log_lines_and_nothing_else(task: Shim) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    ended = task.run("sh", "-c", "head -c 200000 /dev/zero; exit 5", preexec=small_files)
    assert (ended["exit_code"], ended["log_lost_bytes"]) == (5, 200000 - 65536)


def test_output_left_in_the_pipe_is_in_the_log(task: Shim) -> None:
    task.run("sh", "-c", "head -c 60000 /dev/zero | tr '\\0' x; kill -9 $$")
    assert len(task.output) == 60000


def test_a_command_that_closes_its_output_goes_on(task: Shim) -> None:
    task.run("sh", "-c", "exec >&- 2>&-; echo x > later; sleep 0.1; exit 4")
    assert record(task.folder / "exit.json")["exit_code"] == 4
    assert written(task.folder / "later") == "x\n"


# -- size -------------------------------------------------------------------------------------------------------


def test_a_shim_is_small(task: Shim) -> None:
    task.start("sleep", "600")
    status = Path(f"/proc/{task.identity['shim_pid']}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss_kib < 14 * 1024
