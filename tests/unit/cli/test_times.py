"""Durations and moments as people type them."""

from __future__ import annotations

from datetime import datetime

import pytest

from atoll.cli.times import moment_from, seconds_from
from atoll.core.errors import Invalid


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_from(text, "--expires-in") == seconds


def test_moments_are_dates_or_so_long_ago() -> None:
    assert moment_from("1d", "--since", now=1_000_000) == 1_000_000 - 86_400
    assert moment_from("2026-05-01", "--since") == datetime(2026, 5, 1).timestamp()
    assert moment_from("2026-05-01T12:00+00:00", "--since") == 1_777_636_800


@pytest.mark.parametrize("text", ["", "soon", "-3d", "3y", "1e3s"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(Invalid, match="--since cannot be"):
        moment_from(text, "--since")
    with pytest.raises(Invalid, match="12h"):
        seconds_from(text, "--expires-in")
