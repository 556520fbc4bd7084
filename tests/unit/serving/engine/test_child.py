"""A command kept as a child: its lines, its secrets, its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine.child import LINE_CHARS_MAX, Child
from running_engine import wait_until

SHELL = "/bin/sh"


def _lines(script: str, *secrets: str) -> list[str]:
    heard: list[str] = []
    with Child([SHELL, "-c", script], os.environ, heard.append, secrets) as child:
        wait_until(lambda: child.exit_code() is not None, "it ends")
    return heard


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_line_is_heard_and_progress_bars_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines(r"printf 'one\n10%%\r20%%\rdone\nlast'; echo error >&2") == ["one", "10%", "20%", "done", "lasterror"]
    assert capsys.readouterr().out.splitlines() == ["one", "10%", "20%", "done", "lasterror"]


def test_secrets_are_blotted_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines("echo key=hunter2 again hunter2", "hunter2", "") == ["key=*** again ***"]
    assert "hunter2" not in capsys.readouterr().out


def test_a_line_without_end_comes_in_pieces() -> None:
    heard = _lines(f"head -c {3 * LINE_CHARS_MAX + 5} /dev/zero | tr '\\0' x")
    assert sum(len(line) for line in heard) == 3 * LINE_CHARS_MAX + 5 and max(map(len, heard)) <= LINE_CHARS_MAX + 1


def test_the_exit_code_or_the_signal_is_told() -> None:
    with Child([SHELL, "-c", "exit 7"], os.environ, print) as child:
        wait_until(lambda: child.exit_code() is not None, "it ends")
        assert child.exit_code() == 7
    with Child([SHELL, "-c", "kill -9 $$"], os.environ, print) as child:
        wait_until(lambda: child.exit_code() is not None, "it ends")
        assert child.exit_code() == -9


def test_a_group_that_ignores_the_polite_stop_is_killed() -> None:
    heard: list[str] = []
    script = "trap '' TERM; sleep 100 & echo $!; while :; do sleep 100; done"
    child = Child([SHELL, "-c", script], os.environ, heard.append)
    wait_until(lambda: heard, "it has started")
    child.close(0.2)
    wait_until(lambda: not _lives(int(heard[0])) and not _lives(child.process.pid), "all are gone")


def test_what_cannot_be_run_is_named() -> None:
    with pytest.raises(Invalid, match="cannot run /nowhere/vllm"):
        Child(["/nowhere/vllm"], os.environ, print)


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    script = (
        "import os, sys, time\n"
        "from atoll.serving.engine.child import Child\n"
        "child = Child(['/bin/sh', '-c', 'sleep 100 & echo $! $$; wait'], os.environ, print)\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(_lives(pid) for pid in pids)
        parent.kill()
    wait_until(lambda: not any(_lives(pid) for pid in pids), "all are gone")
