"""Reading a task directory: whatever is in it, a report comes out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.compute.runtime.base import TaskSpec
from atoll.compute.runtime.folder import TaskFolder, read_object
from atoll.core.files import write_json

SPEC = TaskSpec("a", 2, ("true",), workload_uid="w", role="worker", index=3)


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    path = tmp_path / "a"
    path.mkdir()
    write_json(path / "task.json", SPEC.to_dict())
    return TaskFolder(path)


def ended(folder: TaskFolder, **record: object) -> str:
    write_json(folder.path / "exit.json", {"exit_code": None, "signal": None, **record})
    return folder.report_ended(SPEC).reason


def test_a_spec_survives_the_disk(folder: TaskFolder) -> None:
    assert folder.spec() == SPEC


def test_reasons_are_sentences(folder: TaskFolder) -> None:
    assert ended(folder, exit_code=1) == "exited with code 1"
    assert ended(folder, signal=9) == "killed by signal 9 (SIGKILL)"
    assert ended(folder, signal=64) == "killed by signal 64 (SIGRTMAX)"
    assert ended(folder, signal=99) == "killed by signal 99 (unknown)"
    assert ended(folder, exit_code=127, reason="cannot start: No such file") == "cannot start: No such file"
    assert ended(folder, exit_code=0) == ""


def test_a_lack_of_memory_shows(folder: TaskFolder) -> None:
    reason = ended(folder, signal=9, oom_kills=1, rss_max_bytes=3 << 30)
    assert reason == (
        "killed by signal 9 (SIGKILL); "
        "the kernel killed 1 process here for lack of memory while it ran; its peak was 3072 MiB"
    )
    assert "memory" not in ended(folder, signal=9, oom_kills=1, forced=True)
    assert "memory" not in ended(folder, exit_code=1, oom_kills=1)


def test_the_error_an_engine_left_is_part_of_the_reason(folder: TaskFolder) -> None:
    write_json(folder.path / "result.json", {"error": {"code": "invalid", "message": "no such dataset"}})
    assert ended(folder, exit_code=3) == "exited with code 3: no such dataset"


def test_a_stopped_task_succeeded_only_if_it_has_a_result(folder: TaskFolder) -> None:
    write_json(folder.path / "stop.json", {"reason": "asked to stop"})
    assert ended(folder, exit_code=0, stopped=True) == "stopped: asked to stop; exited with code 0"
    assert folder.report_ended(SPEC).state == "failed"
    write_json(folder.path / "result.json", {"model": "m"})
    assert folder.report_ended(SPEC).state == "succeeded"


def test_a_result_that_is_garbage_is_a_failure_with_a_reason(folder: TaskFolder) -> None:
    (folder.path / "result.json").write_bytes(b"{" * 100)
    assert ended(folder, exit_code=0).startswith("exited with code 0; result.json is not JSON")
    (folder.path / "result.json").write_bytes(b"[1]")
    assert ended(folder, exit_code=0) == "exited with code 0; result.json is not a JSON object"
    (folder.path / "result.json").write_bytes(b" " * (2 << 20))
    assert ended(folder, exit_code=0) == "exited with code 0; result.json has 2097152 bytes, the limit is 1048576"
    assert folder.report_ended(SPEC).state == "failed"


def test_a_pipe_or_a_link_in_place_of_a_file_does_not_hold_anyone(folder: TaskFolder) -> None:
    os.mkfifo(folder.path / "progress.json")
    (folder.path / "endpoint.json").symlink_to("/etc/hostname")
    os.mkfifo(folder.path / "output.log")
    report = folder.report_alive(SPEC)
    assert report.progress is None
    assert report.endpoint is None
    assert "progress.json is not a file" in report.reason
    assert "endpoint.json cannot be read" in report.reason


@given(
    name=st.sampled_from(["shim.json", "exit.json", "stop.json", "progress.json", "endpoint.json", "result.json"]),
    content=st.one_of(
        st.binary(max_size=64),
        st.sampled_from(
            [b"{}", b"null", b'{"epoch":"x","shim_pid":[]}', b'{"signal":"9","exit_code":{}}', b'{"exit_code":1e400}']
        ),
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_no_content_of_any_file_breaks_a_report(folder: TaskFolder, name: str, content: bytes) -> None:
    (folder.path / name).write_bytes(content)
    folder.report_alive(folder.spec())
    folder.report_ended(folder.spec())
    (folder.path / name).unlink()


def test_an_absent_file_is_neither_value_nor_problem(tmp_path: Path) -> None:
    found = read_object(tmp_path / "no.json", 10)
    assert (found.value, found.problem) == (None, "")


# -- output -----------------------------------------------------------------------------------------------------


def test_the_tail_is_what_a_person_would_have_seen(folder: TaskFolder) -> None:
    text = "first\n" + "10%\r50%\r100%\n" + "\x1b[31mred\x1b[0m\n" + "\n" + "x" * 900 + "\n" + "\xff"
    (folder.path / "output.log").write_bytes(text.encode("latin-1"))
    assert folder.log_tail() == ("first", "100%", "red", "x" * 500, "\ufffd")


def test_the_tail_has_twenty_lines(folder: TaskFolder) -> None:
    (folder.path / "output.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert folder.log_tail() == tuple(f"line {n}" for n in range(80, 100))


@given(offset=st.integers(-40, 60), limit=st.integers(0, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_a_cut_log_reads_as_one_stream(folder: TaskFolder, offset: int, limit: int) -> None:
    stream = bytes(range(48, 78))
    (folder.path / "output.log.20").write_bytes(stream[10:20])
    (folder.path / "output.log").write_bytes(stream[20:])
    piece = folder.log(offset, limit)
    begin = max(10, min(30, 30 + offset if offset < 0 else offset))
    assert (piece.offset, piece.data, piece.size_bytes) == (begin, stream[begin : begin + limit], 30)


def test_no_output_is_an_empty_stream(folder: TaskFolder) -> None:
    piece = folder.log(-100, 100)
    assert (piece.data, piece.offset, piece.size_bytes, piece.is_ended) == (b"", 0, 0, False)
