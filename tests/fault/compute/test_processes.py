"""The process runtime: at most one start, adoption, death of the shim, stops, logs, garbage."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.compute.runtime.proc import Family, members
from atoll.compute.runtime.processes import ProcessRuntime
from atoll.compute.runtime.shim import boot_id
from atoll.core.errors import Conflict, Invalid, NotFound
from fault.compute.life import (
    SLEEPER,
    is_alive,
    kill,
    processes_of,
    reaches,
    record,
    report,
    spec,
    unique,
    until,
    written,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

Make = Callable[..., ProcessRuntime]
PYTHON = (sys.executable, "-I", "-S", "-c")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes runtimes over one home, as agents do that follow each other; ends every task of it at last."""
    runtimes: list[ProcessRuntime] = []

    def one(**options: object) -> ProcessRuntime:
        runtimes.append(ProcessRuntime(tmp_path, **options))  # type: ignore[arg-type]
        return runtimes[-1]

    yield one
    uids = [path.name for path in (tmp_path / "tasks").iterdir()]
    for uid in uids:
        for pid in processes_of(uid):
            kill(pid)
    for runtime in runtimes:
        until(lambda runtime=runtime: all(r.is_ended for r in runtime.observe()))  # type: ignore[misc]
        until(lambda runtime=runtime: not runtime._unreaped or runtime.observe() is None)  # type: ignore[misc]
        runtime.close()


def starts(home: Path, uid: str) -> int:
    return written(home / "tasks" / uid / "starts").count("started")


# -- start ------------------------------------------------------------------------------------------------------


def test_a_task_runs_and_its_end_is_reported(make: Make) -> None:
    runtime = make()
    task = spec("sh", "-c", "echo working; exit 1", workload_uid="w", role="worker", index=2, epoch=3)
    runtime.start(task)
    ended = reaches(runtime, task.uid, "failed")
    assert (ended.exit_code, ended.signal, ended.reason) == (1, None, "exited with code 1")
    assert (ended.epoch, ended.slot, ended.log_tail) == (3, task.slot, ("working",))
    assert ended.started_at == pytest.approx(time.time(), abs=60)


def test_a_task_is_started_once_however_often_it_is_asked(make: Make, tmp_path: Path) -> None:
    task = spec(*SLEEPER)
    for runtime in (make(), make()):
        runtime.start(task)
        runtime.start(task)
    reaches(make(), task.uid, "running")
    assert starts(tmp_path, task.uid) == 1


def test_an_ended_task_is_not_started_again(make: Make, tmp_path: Path) -> None:
    runtime, task = make(), spec("sh", "-c", "echo started >> starts")
    runtime.start(task)
    reaches(runtime, task.uid, "succeeded")
    runtime.start(task)
    make().start(task)
    assert report(make(), task.uid).state == "succeeded"
    assert starts(tmp_path, task.uid) == 1


def test_of_many_runtimes_that_race_for_a_task_one_starts_it(make: Make, tmp_path: Path) -> None:
    for _ in range(5):
        task, runtimes = spec(*SLEEPER), [make() for _ in range(4)]
        threads = [threading.Thread(target=runtime.start, args=(task,)) for runtime in runtimes]
        for thread in threads:
            thread.start()
        for runtime in runtimes:
            runtime.observe()
        for thread in threads:
            thread.join()
        states = {reaches(runtime, task.uid, runtime_state(runtime, task.uid)).state for runtime in runtimes}
        assert len(states) == 1
        if states == {"running"}:
            assert starts(tmp_path, task.uid) == 1
        else:  # one looked before another had the lock, and its verdict is everybody's
            assert not (tmp_path / "tasks" / task.uid / "starts").exists()
        for runtime in runtimes:
            runtime.stop(task.uid, "test")


def runtime_state(runtime: ProcessRuntime, uid: str) -> str:
    """Running or failed, whichever it comes to."""
    return until(lambda: state if (state := report(runtime, uid).state) in ("running", "failed") else "")


def test_a_command_that_does_not_exist_is_a_reported_failure(make: Make) -> None:
    runtime, task = make(), spec("no-such-program", "--help")
    runtime.start(task)
    assert reaches(runtime, task.uid, "failed").reason == ("cannot start: No such file or directory: 'no-such-program'")


def test_python_in_braces_is_this_interpreter(make: Make) -> None:
    runtime, task = make(), spec("{python}", "-c", "import sys; print(sys.executable)")
    runtime.start(task)
    assert reaches(runtime, task.uid, "succeeded").log_tail == (sys.executable,)


def test_a_start_interrupted_before_the_shim_is_a_failure_and_never_a_start(make: Make, tmp_path: Path) -> None:
    """The agent died right after mkdir, and the next one sees an empty directory."""
    task = spec(*SLEEPER)
    (tmp_path / "tasks" / task.uid).mkdir(parents=True)
    runtime = make()
    assert report(runtime, task.uid).reason == "start interrupted"
    runtime.start(task)
    make().start(task)
    ended = report(runtime, task.uid)
    assert (ended.state, ended.exit_code) == ("failed", None)
    assert not (tmp_path / "tasks" / task.uid / "starts").exists()


def test_a_refused_task_is_reported_and_never_started(make: Make, tmp_path: Path) -> None:
    runtime, task = make(), spec(*SLEEPER, workload_uid="w", epoch=4)
    runtime.refuse(task, "stopped before it was started")
    runtime.start(task)
    ended = report(make(), task.uid)
    assert (ended.state, ended.reason, ended.epoch) == ("failed", "stopped before it was started", 4)
    assert processes_of(task.uid) == []


def test_a_task_that_cannot_be_written_is_reported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file where a folder should be")
    runtime, task = make(), spec(*SLEEPER, workload_uid="w")
    runtime.start(task)
    assert "cannot start" in report(runtime, task.uid).reason


def test_names_that_lead_out_of_the_folder_are_refused() -> None:
    for uid in ("..", "a/b", "", ".x", "a\0"):
        with pytest.raises(Invalid, match="cannot name a folder"):
            spec("true", uid=uid or "/")


def test_the_environment_of_a_task(make: Make, tmp_path: Path) -> None:
    runtime = make(environ={**os.environ, "ATOLL_SYSTEM_KEY": "secret"}, blobs="file:///blobs")
    task = spec("env", workload_uid="w9", rank=1, world_size=2, resources={"cpu": 2}, env={"COLOUR": "blue"}, epoch=5)
    runtime.start(task)
    reaches(runtime, task.uid, "succeeded")
    env = dict(line.split("=", 1) for line in runtime.tail(task.uid, 0, 1 << 16).data.decode().splitlines())
    folder = tmp_path / "tasks" / task.uid
    assert {name: env[name] for name in sorted(env) if name.startswith("ATOLL_")} == {
        "ATOLL_BLOBS": "file:///blobs",
        "ATOLL_CACHE": str(tmp_path / "cache"),
        "ATOLL_RANK": "1",
        "ATOLL_TASK_DIR": str(folder),
        "ATOLL_TASK_EPOCH": "5",
        "ATOLL_TASK_UID": task.uid,
        "ATOLL_WORK": str(tmp_path / "work/w9"),
        "ATOLL_WORLD_SIZE": "2",
    }
    assert (env["COLOUR"], env["OMP_NUM_THREADS"]) == ("blue", "2")
    assert (tmp_path / "work/w9").is_dir()
    assert record(folder / "input.json") == {}


def test_a_task_may_choose_its_own_threads(make: Make) -> None:
    runtime, task = make(), spec("sh", "-c", "echo $OMP_NUM_THREADS", env={"OMP_NUM_THREADS": "7"})
    runtime.start(task)
    assert reaches(runtime, task.uid, "succeeded").log_tail == ("7",)


# -- adoption ---------------------------------------------------------------------------------------------------


def test_a_later_runtime_adopts_the_task_with_its_process(make: Make, tmp_path: Path) -> None:
    first, task = make(), spec(*SLEEPER)
    first.start(task)
    pid = reaches(first, task.uid, "running").pid
    assert starts(tmp_path, task.uid) == 1
    first.close()
    second = make()
    assert report(second, task.uid).pid == pid
    assert len(second.alarms()) == 1
    second.stop(task.uid, "done")
    assert reaches(second, task.uid, "failed").reason == "stopped: done; killed by signal 15 (SIGTERM)"
    assert starts(tmp_path, task.uid) == 1


def test_an_end_rings_the_alarm(make: Make) -> None:
    runtime, task = make(), spec("sh", "-c", "read line < /dev/null; sleep 0.2")
    runtime.start(task)
    ready, _, _ = select.select(runtime.alarms(), [], [], 60)
    assert ready
    assert report(runtime, task.uid).state == "succeeded"
    assert list(runtime.alarms()) == []


def test_two_runtimes_on_one_folder_see_the_same(make: Make) -> None:
    one, two, task = make(), make(), spec(*SLEEPER)
    one.start(task)
    assert reaches(two, task.uid, "running").pid == reaches(one, task.uid, "running").pid
    two.stop(task.uid, "by the second")
    ended = reaches(one, task.uid, "failed")
    assert ended == reaches(two, task.uid, "failed")
    assert ended.reason.startswith("stopped: by the second")


def test_a_restart_of_the_machine_is_seen_and_nobody_elses_process_is_touched(make: Make, tmp_path: Path) -> None:
    """After a reboot the pids in shim.json are other processes'. Here: this test's own."""
    task = spec(*SLEEPER)
    folder = tmp_path / "tasks" / task.uid
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(task.to_dict()))
    me = {"shim_pid": os.getpid(), "child_pid": os.getpid(), "shim_start_ticks": 1, "child_start_ticks": 1}
    (folder / "shim.json").write_text(json.dumps({**me, "boot_id": "an-earlier-boot", "epoch": 1}))
    assert report(make(), task.uid).reason == "the machine, or its container, restarted while it ran"


# -- death of the shim ------------------------------------------------------------------------------------------

FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.execvp("sleep", ["sleep", "600"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("far", "w").write(str(os.getpid()))
        time.sleep(600)
    time.sleep(600)
if os.fork() == 0:
    os.execve("/bin/sh", ["sh", "-c", "echo $$ > bare; sleep 600; :"], {})
time.sleep(600)
"""


def test_when_the_shim_is_killed_all_its_processes_die_and_the_task_failed(make: Make, tmp_path: Path) -> None:
    """Among them one that left the session, and one that cleaned its environment."""
    runtime, task = make(), spec(*PYTHON, FAMILY)
    runtime.start(task)
    folder = tmp_path / "tasks" / task.uid
    others = [int(written(folder / name)) for name in ("far", "bare")]
    kill(record(folder / "shim.json")["shim_pid"])
    ended = reaches(runtime, task.uid, "failed")
    assert ended.reason == "the shim was killed"
    assert processes_of(task.uid) == []
    assert not [pid for pid in others if is_alive(pid)]


def test_a_shim_killed_while_nobody_watched_is_found_by_the_next_runtime(make: Make, tmp_path: Path) -> None:
    first, task = make(), spec(*PYTHON, FAMILY)
    first.start(task)
    folder = tmp_path / "tasks" / task.uid
    written(folder / "far")
    first.close()
    kill(record(folder / "shim.json")["shim_pid"])
    assert reaches(make(), task.uid, "failed").reason == "the shim was killed"
    assert processes_of(task.uid) == []


def test_a_dead_shims_clean_up_spares_other_tasks(make: Make, tmp_path: Path) -> None:
    """One with the same uid but another epoch, and one with another uid."""
    runtime, victim, neighbour = make(), spec(*SLEEPER), spec(*SLEEPER)
    runtime.start(victim)
    runtime.start(neighbour)
    later_env = {"PATH": os.environ["PATH"], "ATOLL_TASK_UID": victim.uid, "ATOLL_TASK_EPOCH": "2"}
    later = os.posix_spawn("/bin/sleep", ["sleep", "600"], later_env)
    try:
        reaches(runtime, victim.uid, "running")
        kill(record(tmp_path / "tasks" / victim.uid / "shim.json")["shim_pid"])
        reaches(runtime, victim.uid, "failed")
        assert is_alive(later)
        assert report(runtime, neighbour.uid).state in ("starting", "running")
    finally:
        kill(later)
        os.waitpid(later, 0)


def test_a_process_in_the_midst_of_an_exec_is_known(tmp_path: Path) -> None:
    """Its environment is empty then for some microseconds; this one does little else."""
    script = tmp_path / "again.sh"
    script.write_text('exec sh "$0"')
    env = {"PATH": os.environ["PATH"], "ATOLL_TASK_UID": unique(), "ATOLL_TASK_EPOCH": "1"}
    family = Family(env["ATOLL_TASK_UID"], 1, 0, 0)
    pid = os.posix_spawnp("sh", ["sh", str(script)], env)
    try:
        until(lambda: members(family))
        assert not [n for n in range(150) if list(members(family)) != [pid]]
    finally:
        kill(pid)
        os.waitpid(pid, 0)


def test_a_shim_that_breaks_leaves_its_last_words(make: Make, tmp_path: Path) -> None:
    runtime, task = make(), spec(*SLEEPER)
    folder = tmp_path / "tasks" / task.uid
    folder.mkdir(parents=True)
    identity = {"shim_pid": 1 << 22, "child_pid": 1 << 22, "boot_id": boot_id(), "epoch": 1}
    (folder / "shim.json").write_text(json.dumps(identity))
    (folder / "shim.log").write_text("Traceback\nOSError: [Errno 5] Input/output error\n")
    assert report(runtime, task.uid).reason == "the shim was killed: OSError: [Errno 5] Input/output error"


# -- stop -------------------------------------------------------------------------------------------------------


def test_a_stop_is_graceful_and_asking_again_changes_nothing(make: Make) -> None:
    script = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    runtime, task = make(), spec("sh", "-c", script)
    runtime.start(task)
    until(lambda: b"up" in runtime.tail(task.uid, 0, 10).data)
    for _ in range(3):
        runtime.stop(task.uid, "asked to stop")
    assert report(runtime, task.uid).state in ("stopping", "failed")
    make().stop(task.uid, "by another")
    ended = reaches(runtime, task.uid, "failed")
    assert ended.reason == "stopped: asked to stop; exited with code 0"
    assert ended.log_tail[-1] == "saved"
    runtime.stop(task.uid, "too late")
    assert report(runtime, task.uid) == ended


def test_a_stop_right_after_the_start_is_a_stop(make: Make) -> None:
    """The shim has not even set up its signals: the stop waits for it."""
    runtime = make()
    for _ in range(5):
        task = spec("sleep", "600")
        runtime.start(task)
        runtime.stop(task.uid, "never mind")
        assert reaches(runtime, task.uid, "failed").reason == "stopped: never mind; killed by signal 15 (SIGTERM)"


def test_a_stop_can_be_given_less_time_than_the_task_wants(make: Make) -> None:
    runtime, task = make(), spec("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done", stop_grace_s=600.0)
    runtime.start(task)
    until(lambda: b"up" in runtime.tail(task.uid, 0, 10).data)
    runtime.stop(task.uid, "hurry", grace_s=0.1)
    ended = reaches(runtime, task.uid, "failed")
    assert ended.reason == ("stopped: hurry, killed when its grace was over; killed by signal 9 (SIGKILL)")


def test_a_shim_that_does_not_answer_is_killed(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.compute.runtime.processes.STOP_MARGIN_S", 0.2)
    runtime, task = make(), spec(*SLEEPER, stop_grace_s=0.1)
    runtime.start(task)
    reaches(runtime, task.uid, "running")
    os.kill(record(tmp_path / "tasks" / task.uid / "shim.json")["shim_pid"], signal.SIGSTOP)
    runtime.stop(task.uid, "asked to stop")
    assert reaches(runtime, task.uid, "failed").reason == "stopped: asked to stop; the shim was killed"
    assert processes_of(task.uid) == []


def test_a_stop_asked_before_the_shim_is_known_is_carried_out_when_it_is(make: Make) -> None:
    """The second runtime has not seen shim.json when it is asked; looking on is enough."""
    for _ in range(5):
        one, two, task = make(), make(), spec("sleep", "600")
        one.start(task)
        two.stop(task.uid, "at once")
        assert reaches(two, task.uid, "failed").reason.startswith("stopped: at once; killed by signal 15")


def test_stopping_what_is_not_there_is_nothing(make: Make) -> None:
    make().stop(unique(), "nobody")


# -- files of the task ------------------------------------------------------------------------------------------


def test_progress_and_endpoint_show_while_it_runs_and_the_result_at_the_end(make: Make) -> None:
    script = """
import json, os, sys
def put(name, value):
    open("." + name, "w").write(json.dumps(value)); os.rename("." + name, name)
put("progress.json", {"stage": "load", "done": 1})
put("endpoint.json", {"url": "http://127.0.0.1:1", "api_key": "k"})
os.mkfifo("gate")
open("gate").read()
put("progress.json", {"stage": "load", "done": 2})
put("result.json", {"answer": 42})
"""
    runtime, task = make(), spec(*PYTHON, script)
    runtime.start(task)
    serving = until(lambda: r if (r := report(runtime, task.uid)).endpoint else None)
    assert serving.endpoint == {"url": "http://127.0.0.1:1", "api_key": "k"}
    gate = Path(runtime._tasks / task.uid / "gate")
    until(gate.exists)
    gate.write_text("go")
    ended = reaches(runtime, task.uid, "succeeded")
    assert (ended.progress, ended.result, ended.endpoint) == ({"stage": "load", "done": 2}, {"answer": 42}, None)


def test_garbage_in_a_tasks_files_is_a_reason(make: Make) -> None:
    runtime, task = make(), spec("sh", "-c", "echo '{{{' > progress.json; mkfifo endpoint.json; exec sleep 600")
    runtime.start(task)
    until(lambda: "endpoint.json" in report(runtime, task.uid).reason)
    told = report(runtime, task.uid)  # this one looked at progress.json when endpoint.json was there
    assert told.state == "running"
    assert "progress.json is not JSON" in told.reason
    assert "endpoint.json" in told.reason


def test_a_task_cannot_declare_itself_ended(make: Make) -> None:
    runtime, task = make(), spec("sh", "-c", "echo '{\"exit_code\": 0}' > exit.json; echo x > done; exec sleep 600")
    runtime.start(task)
    until((runtime._tasks / task.uid / "done").exists)
    assert not report(runtime, task.uid).is_ended
    assert not report(make(), task.uid).is_ended


# -- output -----------------------------------------------------------------------------------------------------


def test_output_can_be_read_in_pieces_from_both_ends(make: Make) -> None:
    runtime, task = make(log_bytes_max=1000), spec("seq", "-f", "%04.0f", "0", "499")
    runtime.start(task)
    reaches(runtime, task.uid, "succeeded")
    piece = runtime.tail(task.uid, -10, 1 << 20)
    assert (piece.data, piece.offset, piece.size_bytes, piece.is_ended) == (b"0498\n0499\n", 2490, 2500, True)
    pieces, offset = b"", 1000
    while offset < 2500:
        piece = runtime.tail(task.uid, offset, 333)
        pieces, offset = pieces + piece.data, piece.offset + len(piece.data)
    assert pieces == "".join(f"{n:04d}\n" for n in range(200, 500)).encode()


def test_output_of_an_unknown_task_is_not_found(make: Make) -> None:
    for uid in (unique(), "../..", ""):
        with pytest.raises(NotFound):
            make().tail(uid, 0, 10)


# -- forget -----------------------------------------------------------------------------------------------------


def test_an_ended_task_can_be_forgotten_and_a_living_one_cannot(make: Make, tmp_path: Path) -> None:
    runtime, ended, living = make(), spec("true"), spec(*SLEEPER)
    runtime.start(ended)
    runtime.start(living)
    reaches(runtime, ended.uid, "succeeded")
    runtime.forget(ended.uid)
    runtime.forget(ended.uid)
    with pytest.raises(Conflict, match="is alive"):
        runtime.forget(living.uid)
    assert [r.uid for r in runtime.observe()] == [living.uid]
    assert os.listdir(tmp_path / "tasks") == [living.uid]


def test_a_forgetting_that_was_interrupted_is_finished_by_the_next_runtime(make: Make, tmp_path: Path) -> None:
    grave = tmp_path / "tasks" / ".forgotten-x-1"
    (grave / "deep").mkdir(parents=True)
    assert make().observe() == []
    assert not grave.exists()


def test_a_directory_deleted_by_hand_is_no_longer_reported(make: Make, tmp_path: Path) -> None:
    runtime, task = make(), spec("true")
    runtime.start(task)
    reaches(runtime, task.uid, "succeeded")
    (tmp_path / "tasks" / task.uid).rename(tmp_path / "elsewhere")
    assert runtime.observe() == []
