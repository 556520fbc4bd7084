"""Logs are one JSON object a line, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from atoll.core.logs import JsonLines, log_to_stderr
from atoll.core.telemetry import RECONCILE_ERRORS


def line(message: str, *args: object, extra: dict[str, Any] | None = None, error: bool = False) -> dict[str, Any]:
    record = logging.getLogger("atoll.test").makeRecord(
        "atoll.test", logging.WARNING, "f", 1, message, args, sys.exc_info() if error else None, extra=extra
    )
    text = JsonLines("server").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_says_when_who_and_what() -> None:
    found = line("hello %s", "world", extra={"project": "red"})
    assert found.pop("at").endswith("Z")
    assert found == {
        "level": "warning",
        "role": "server",
        "logger": "atoll.test",
        "message": "hello world",
        "project": "red",
    }


def test_a_traceback_is_part_of_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        assert "ValueError: two\nlines" in line("broke", error=True)["traceback"]


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {3}}, b"\xff", float("nan"), "\udcff"])
def test_anything_can_be_logged(value: object) -> None:
    assert "value" in line("odd: %s", value, extra={"value": value})


def test_logging_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        log_to_stderr("gateway", "INFO")
        logging.getLogger("atoll").info("up")
        logging.getLogger("atoll").debug("not shown")
    finally:
        root.handlers[:], root.level = before[0], before[1]
    written = capsys.readouterr().err.splitlines()
    assert [json.loads(text)["message"] for text in written] == ["up"]
    assert json.loads(written[0])["role"] == "gateway"


def test_failed_reconciles_are_counted() -> None:
    counter = RECONCILE_ERRORS.labels("telemetry-test")
    counter.inc()
    assert counter._value.get() == 1


def test_what_a_library_marks_a_record_with_is_not_told() -> None:
    told = line("hello", extra={"_marked_ns": 1, "project": "red"})
    assert "_marked_ns" not in told and told["project"] == "red"
