"""Packing loses nothing, cuts nothing that fits, and wastes little."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.compose.pack import Packer, best_fit, concatenated
from atoll.data.engine.compose.tokenizer import Bytes

TEXTS = st.lists(st.text("ab环 \n", max_size=60), max_size=40)


@settings(deadline=None)
@given(TEXTS, st.integers(16, 40), st.integers(1, 7))
def test_every_document_is_found_again_whole_and_in_order(texts, length, portion) -> None:
    ids = [f"d{number}" for number in range(len(texts))]
    packer = Packer(Bytes(), length)
    for start in range(0, len(texts), portion):
        packer.add(pa.array(ids[start : start + portion]), pa.array(texts[start : start + portion], pa.string()))
    found: dict[str, list[list[int]]] = {name: [] for name in ids}
    for row in packer.table().to_pylist():
        assert len(row["tokens"]) == length
        assert set(row["tokens"][row["used"] :]) <= {256}
        stops = [*row["starts"][1:], row["used"]]
        for start, stop, name in zip(row["starts"], stops, row["documents"], strict=True):
            found[name].append(row["tokens"][start:stop])
    for name, text in zip(ids, texts, strict=True):
        whole = [*text.encode(), 256]
        pieces = sorted(found[name], key=len, reverse=True)
        assert len(pieces) == 1 or len(whole) > length
        assert sorted(t for piece in pieces for t in piece) in (sorted(whole), sorted(whole[:-1]))
        assert all(len(piece) == length for piece in pieces[:-1])


@given(st.lists(st.integers(1, 50), max_size=200))
def test_best_fit_needs_at_most_a_fifth_more_than_any_packing_could(sizes) -> None:
    bins = best_fit(sizes, 50)
    assert sorted(piece for held in bins for piece in held) == list(range(len(sizes)))
    assert all(sum(sizes[piece] for piece in held) <= 50 for held in bins)
    least, _ = concatenated(sizes, 50)
    large = np.count_nonzero(np.array(sizes) > 25)
    assert len(bins) <= 11 / 9 * max(least, large) + 1 or len(bins) <= 1.25 * max(least, large) + 1
