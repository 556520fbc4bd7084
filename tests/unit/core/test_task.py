"""The engine's side of a task directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.core import task
from atoll.core.errors import Invalid, Unavailable, error_from_dict
from atoll.core.files import read_json, write_json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ATOLL_WORK", "ATOLL_CACHE", "ATOLL_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ATOLL_TASK_DIR", str(tmp_path))
    return tmp_path


def test_an_engine_reads_its_input_and_leaves_its_result(folder: Path) -> None:
    write_json(folder / "input.json", {"n": 2})
    task.run(lambda given: {"twice": given["n"] * 2})
    assert read_json(folder / "result.json") == {"twice": 4}


def test_a_result_of_none_leaves_what_the_engine_wrote_itself(folder: Path) -> None:
    write_json(folder / "input.json", {})
    task.run(lambda given: task.write_result({"own": 1}))
    assert read_json(folder / "result.json") == {"own": 1}


def test_an_error_on_purpose_is_permanent_and_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(folder / "input.json", {})

    def engine(given: dict[str, Any]) -> None:
        raise Invalid("no such recipe", field="recipe", hint="see: atoll explain")

    with pytest.raises(SystemExit) as ended:
        task.run(engine)
    assert ended.value.code == task.PERMANENT_FAILURE
    left = read_json(folder / "result.json")
    assert left is not None
    error = error_from_dict(left["error"])  # type: ignore[arg-type]
    assert isinstance(error, Invalid)
    assert error.field == "recipe"
    assert capsys.readouterr().err == "invalid: no such recipe (see: atoll explain)\n"


def test_what_may_pass_is_not_permanent(folder: Path) -> None:
    write_json(folder / "input.json", {})

    def engine(given: dict[str, Any]) -> None:
        raise Unavailable("the blob store is away")

    with pytest.raises(SystemExit) as ended:
        task.run(engine)
    assert ended.value.code == 1
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize("data", [None, b"", b"[1]", b"{"])
def test_an_input_that_cannot_be_read_is_named(folder: Path, data: bytes | None) -> None:
    if data is not None:
        (folder / "input.json").write_bytes(data)
    with pytest.raises(Invalid, match=r"task input .*input\.json"):
        task.read_input()


def test_progress_is_replaced_and_limited(folder: Path) -> None:
    task.report_progress("train", 1, 10, "step", "going", loss=2.5)
    task.report_progress("train", 2, 10, "step", loss=2.25)
    expected = {"stage": "train", "done": 2, "total": 10, "unit": "step", "message": "", "loss": 2.25}
    assert read_json(folder / "progress.json") == expected
    with pytest.raises(Invalid, match="the limit is 65536"):
        task.report_progress("train", 3, message="x" * 70_000)
    assert read_json(folder / "progress.json") == expected


def test_a_result_is_limited(folder: Path) -> None:
    with pytest.raises(Invalid, match="put it in a blob"):
        task.write_result({"text": "x" * (1 << 20)})
    assert not (folder / "result.json").exists()


def test_an_endpoint_is_readable_by_its_owner_only(folder: Path) -> None:
    task.write_endpoint("http://127.0.0.1:1", "secret", ("chat",))
    assert read_json(folder / "endpoint.json") == {
        "url": "http://127.0.0.1:1",
        "api_key": "secret",
        "capabilities": ["chat"],
    }
    assert (folder / "endpoint.json").stat().st_mode & 0o777 == 0o600


def test_directories_are_made_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert task.work_dir() == folder / "work"
    assert task.cache_dir().is_dir()
    monkeypatch.setenv("ATOLL_WORK", str(folder / "deep" / "work"))
    assert task.work_dir().is_dir()
    with pytest.raises(Invalid, match="ATOLL_BLOBS is not set"):
        task.blobs_url()
    monkeypatch.setenv("ATOLL_BLOBS", "s3://bucket")
    assert task.blobs_url() == "s3://bucket"
