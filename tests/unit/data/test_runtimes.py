"""Runtimes of child processes. Ray is tried in tests/integration/data."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import stage_work
from atoll.core.errors import Invalid, ResourceExhausted, Unavailable
from atoll.data.engine.runtimes import runtime_of
from atoll.data.engine.runtimes.processes import Processes
from atoll.data.engine.runtimes.stages import Inline, OperatorFailed, Stages

TESTS = Path(__file__).parents[2]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    running = Processes(2)
    yield running
    running.close()


def _texts(folders: list[Path]) -> list[str]:
    return [(folder / "item.txt").read_text() for folder in folders]


def test_children_work_off_all_items_and_serve_every_stage(runtime: Processes, tmp_path: Path) -> None:
    stages = Stages(tmp_path, runtime)
    first = _texts(stages.map("first", stage_work.process_of, list(range(6))))
    second = _texts(stages.map("second", stage_work.process_of, list(range(6))))
    assert len(set(first)) <= 2 and str(os.getpid()) not in str(first)
    assert set(second) <= set(first) or len(set(first) | set(second)) <= 2
    assert all(text.endswith(" 1") for text in first)
    assert runtime.cpu_s > 0


def test_a_child_that_is_killed_is_replaced_and_its_item_tried_again(runtime: Processes, tmp_path: Path) -> None:
    mark = f"once {tmp_path / 'mark'}"
    folders = Stages(tmp_path / "state", runtime).map("work", stage_work.work, ["a", mark, "c", "d"])
    assert _texts(folders) == ["a", mark, "c", "d"]


def test_an_item_that_kills_two_children_fails_the_run_and_is_named(runtime: Processes, tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match=r"stage work, item 000001 \(die\) killed its worker twice"):
        Stages(tmp_path, runtime).map("work", stage_work.work, ["a", "die", "c"])


def test_failures_come_back_as_what_they_were(runtime: Processes, tmp_path: Path) -> None:
    stages = Stages(tmp_path, runtime)
    with pytest.raises(OperatorFailed, match=r"stage work, item 000000 \(boom\): KeyError"):
        stages.map("work", stage_work.work, ["boom"])
    with pytest.raises(Invalid, match="this file is wrong") as caught:
        stages.map("more", stage_work.work, ["wrong"])
    assert caught.value.field == "sources[0]" and caught.value.hint == "correct it"
    assert _texts(stages.map("copy", stage_work.copy, ["a"])) == ["a"]


def test_a_nursery_that_died_is_told_as_such(runtime: Processes, tmp_path: Path) -> None:
    assert runtime._nursery
    runtime._nursery._process.kill()
    runtime._nursery._process.wait()
    with pytest.raises(Unavailable, match="the process that workers come from has died"):
        runtime.prepare(abs, 1, lambda: None)
    with pytest.raises(Unavailable, match="the process that workers come from has died"):
        Stages(tmp_path, runtime).map("work", stage_work.work, ["a", "b"])


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; import stage_work\n"
        "from atoll.data.engine.runtimes.stages import Stages\n"
        "from atoll.data.engine.runtimes.processes import Processes\n"
        "folders = Stages(Path(sys.argv[1]), Processes(1)).map('pid', stage_work.process_of, [1])\n"
        "print((folders[0] / 'item.txt').read_text().split()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE)
    child = int(done.stdout)
    until_s = time.monotonic() + 60
    while _is_running(child):
        assert time.monotonic() < until_s, f"process {child} outlived its parent"
        os.sched_yield()


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_one_worker_is_this_process_and_a_wrong_runtime_is_refused() -> None:
    assert isinstance(runtime_of("process", 1), Inline)
    with pytest.raises(Invalid, match="there is no runtime 'threads'"):
        runtime_of("threads", 2)
    with pytest.raises(Invalid, match="workers cannot be 0"):
        runtime_of("process", 0)
