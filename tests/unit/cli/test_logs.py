"""The last lines of a log that comes in pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cli.logs import last_lines


@settings(deadline=None)
@given(st.text("ab\n", max_size=60), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 10))
def test_the_last_lines_are_the_same_however_the_log_is_cut(text: str, places: list[int], count: int) -> None:
    borders = [0, *sorted(min(p, len(text)) for p in places), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert "".join(last_lines(pieces, count)) == "".join(text.splitlines(keepends=True)[-count:])
