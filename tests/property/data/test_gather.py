"""Gathered strings are those that Arrow would pick."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.gather import gathered

TEXTS = st.lists(st.text(max_size=12), min_size=1, max_size=12)


@settings(deadline=None)
@given(TEXTS, st.data())
def test_rows_are_picked_in_any_order_and_as_often_as_named_and_some_replaced(
    texts: list[str], data: st.DataObject
) -> None:
    low = data.draw(st.integers(0, len(texts) - 1))
    column = pa.array(texts, pa.string()).slice(low)
    row = st.integers(0, len(column) - 1)
    rows = np.array(data.draw(st.lists(row, max_size=20)), np.int64)
    instead = data.draw(st.dictionaries(row, st.text(max_size=30), max_size=5))
    shown = [instead.get(number, text) for number, text in enumerate(texts[low:])]
    picked = gathered(column, rows, {number: text.encode() for number, text in instead.items()})
    picked.validate(full=True)
    assert picked.to_pylist() == [shown[number] for number in rows]


def test_what_one_column_cannot_hold_is_refused_by_size() -> None:
    column = pa.array(["x" * (1 << 20)], pa.string())
    with pytest.raises(pa.ArrowCapacityError, match=str(1 << 31)):
        gathered(column, np.zeros(1 << 11, np.int64))
