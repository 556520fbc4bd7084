"""Durations, ages, bytes, cells and plain tables."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cli.render import age, aligned, cell, clean, count, dig, duration, rich_table, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (-3, "0.0 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (185, "3 m 05 s"),
        (3599.6, "1 h 00 m"),
        (7800, "2 h 10 m"),
        (86_400, "1 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (86_400, "1d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert age(1_000_000 - seconds, now=1_000_000) == text


@pytest.mark.parametrize(
    ("count_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_610_612_736, "1.5 GiB"), (2**60, "1024.0 PiB")],
)
def test_sizes(count_bytes: int, text: str) -> None:
    assert size(count_bytes) == text


@settings(deadline=None)
@given(st.integers(0, 2**50))
def test_a_size_never_needs_more_than_four_digits(count_bytes: int) -> None:
    assert len(size(count_bytes).split()[0]) <= 6


@pytest.mark.parametrize(
    ("number", "text"),
    [(950, "950"), (9999, "9999"), (10_000, "10.0k"), (134_515_008, "134.5M"), (7e9, "7.0B"), (0.5, "0.5")],
)
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("status.reason", "", "-"),
        ("status.nodes", ["a", "b"], "a, b"),
        ("spec.counts", {"train": 3, "heldout": 1}, "train=3, heldout=1"),
        ("spec.inventory.memory_bytes", 2**31, "2.0 GiB"),
        ("status.started_at", 999_990.0, "10s"),
        ("status.started_at", 0.0, "-"),
        ("status.silent_s", 75.0, "1 m 15 s"),
        ("status.parameters", 134_515_008, "134.5M"),
        ("status.drop", 0.123456, "0.1235"),
        ("spec.revoked", False, "no"),
        ("status.ready", 0, "0"),
        ("status.reason", "two\nlines \x1b[31mred\x07", "two lines [31mred"),
        ("status.reason", "x" * 500, "x" * 399 + "…"),
    ],
)
def test_a_cell_is_shown_by_its_type_and_unit(path: str, value: object, text: str) -> None:
    assert cell(path, value, now=1_000_000) == text


@settings(deadline=None)
@given(st.text())
def test_cleaned_text_cannot_drive_a_terminal(text: str) -> None:
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in clean(text))


def test_columns_are_aligned_also_for_wide_characters() -> None:
    lines = aligned([["NAME", "PHASE"], ["文档", "ready"], ["é", "-"]])
    assert lines == ["NAME  PHASE", "文档  ready", "é     -"]
    assert aligned([]) == []


def test_a_path_that_leads_nowhere_is_none() -> None:
    assert dig({"a": {"b": 1}}, "a.b") == 1
    assert dig({"a": {"b": 1}}, "a.b.c") is None
    assert dig({}, "x.y") is None


def test_markup_in_a_cell_is_text() -> None:
    from rich.console import Console

    console = Console(width=60, color_system=None, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(rich_table(["NAME", "PHASE"], [["[red]x[/]", "ready"]]))
    assert "[red]x[/]" in captured.get()
