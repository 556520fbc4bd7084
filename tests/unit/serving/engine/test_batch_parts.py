"""The parts of the process that works a batch off: requests, journal and pace."""

from __future__ import annotations

import io
import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.serving.engine import batch_requests
from atoll.serving.engine.batch_journal import Journal
from atoll.serving.engine.batch_pace import Pace
from atoll.serving.engine.batch_requests import Requests

URL = "/v1/embeddings"


def line(name: str, **fields: Any) -> str:
    return json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": {"model": "m"}, **fields})


def read(path: Path, *lines: str, end: str = "\n") -> Requests:
    path.write_text(end.join(lines))
    return Requests(path, URL, "m")


def wrong(path: Path, *lines: str) -> list[tuple[int | None, str]]:
    with pytest.raises(Invalid) as caught:
        read(path, *lines)
    return [(error["line"], error["code"]) for error in caught.value.details["errors"]]


def test_requests_are_read_wherever_they_lie(tmp_path: Path) -> None:
    with closing(read(tmp_path / "a", line("é"), "", "  ", line("b", body={"model": "m", "input": "ü"}))) as requests:
        assert len(requests) == 2
        assert [requests[n].custom_id for n in (1, 0)] == ["b", "é"]
        assert json.loads(requests[1].body) == {"model": "m", "input": "ü"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("3", "invalid_json_line"),
        (line(""), "missing_required_parameter"),
        (line("x" * 513), "missing_required_parameter"),
        (line("a", custom_id=3), "missing_required_parameter"),
        (line("a", method="GET"), "invalid_method"),
        (line("a", url="/v1/files"), "mismatched_endpoint"),
        (line("a", body=[]), "missing_required_parameter"),
        (line("a", body={"model": "n"}), "mismatched_model"),
        (line("a", body={"model": "m", "stream": True}), "invalid_request"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, code: str) -> None:
    assert wrong(tmp_path / "a", line("ok"), text) == [(2, code)]


def test_wrong_lines_are_counted_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(wrong(tmp_path / "a", *["{"] * 300)) == 100
    assert wrong(tmp_path / "a", "", " ") == [(None, "empty_file")]
    monkeypatch.setattr(batch_requests, "REQUESTS_MAX", 2)
    assert wrong(tmp_path / "a", *[line(str(n)) for n in range(9)]) == [(3, "too_many_requests")]
    monkeypatch.setattr(batch_requests, "LINE_BYTES_MAX", 200)
    assert wrong(tmp_path / "a", line("a", body={"model": "m", "input": "x" * 500})) == [(1, "line_too_long")]


def results(journal: Journal) -> tuple[list[Any], list[Any]]:
    output, error = io.BytesIO(), io.BytesIO()
    journal.write_results(output, error)
    return tuple([json.loads(text) for text in sink.getvalue().splitlines()] for sink in (output, error))  # type: ignore[return-value]


def test_a_journal_gives_back_in_order_what_came_in_any(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "j")) as journal:
        for number in (3, 0, 2, 1):
            journal.add(number, {"n": number}, is_good=number != 2)
        journal.add(3, {"n": "again"}, is_good=True)
        assert journal.counts == (3, 1)
        assert results(journal) == ([{"n": 0}, {"n": 1}, {"n": 3}], [{"n": 2}])


@pytest.mark.parametrize("torn", [b"{", b'{"number": 9, "good": true, "record": {}}', b"\0\0\0", b""])
def test_a_torn_end_is_cut_off_and_written_over(tmp_path: Path, torn: bytes) -> None:
    with closing(Journal(tmp_path / "j")) as journal:
        journal.add(0, {"n": 0}, is_good=True)
    with (tmp_path / "j").open("ab") as file:
        file.write(torn)
    with closing(Journal(tmp_path / "j")) as journal:
        assert 9 not in journal
        journal.add(1, {"n": 1}, is_good=True)
        assert results(journal)[0] == [{"n": 0}, {"n": 1}]
    with closing(Journal(tmp_path / "j")) as journal:
        assert journal.counts == (2, 0)


class Times:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pace_quickens_with_answers_and_halves_once_a_push_back() -> None:
    times = Times()
    pace = Pace(8, times)
    assert pace.limit == 2
    for _ in range(60):
        assert pace.begin()
        pace.answered()
    assert pace.limit == 8
    assert all(pace.begin() for _ in range(8))
    for _ in range(8):
        pace.pushed_back(5.0)  # eight refusals of one moment are one sign
    assert pace.limit == 4
    times.now = 5.0
    for _ in range(6):
        assert pace.begin()
        pace.pushed_back(1.0)
        times.now += 1.0
    assert pace.limit == 1


def test_nobody_begins_before_the_wait_is_over_or_after_the_stop() -> None:
    pace = Pace(1)
    assert pace.begin()
    pace.pushed_back(30.0)
    began: list[bool] = []
    thread = threading.Thread(target=lambda: began.append(pace.begin()))
    thread.start()
    assert pace.wait_idle(0.0)
    assert began == []
    pace.stop()
    thread.join(60)
    assert began == [False]
