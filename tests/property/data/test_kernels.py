"""The compiled kernels and numpy alone give the same bits, whatever the text."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.minhash import shingles, signatures_compiled, signatures_plain
from atoll.data.engine.scan import Scan, scan_compiled, scan_plain
from atoll.data.engine.statistics import statistics

CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("aZé_ \n\t\r.0٣中のกन\u0301\u3000\x1c\U0001f600\U000e0041"),
)
TEXTS = st.lists(st.text(CHARACTERS, max_size=200), max_size=8)


def _parts(scan: Scan) -> list[list]:
    return [part.tolist() for part in (scan.counts, scan.tokens, scan.token_starts, scan.lines, scan.line_starts)]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_both_scans_are_equal(texts: list[str]) -> None:
    batch = pa.array(texts, pa.string())
    assert _parts(scan_compiled(batch)) == _parts(scan_plain(batch))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 130))
def test_both_signatures_are_equal(texts: list[str], permutations: int) -> None:
    scan = scan_plain(pa.array(texts, pa.string()))
    compiled, plain = signatures_compiled(scan, permutations), signatures_plain(scan, permutations)
    assert compiled.dtype == plain.dtype == np.uint32
    assert compiled.tolist() == plain.tolist()


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_batch_says_of_each_text_what_it_says_of_it_alone(texts: list[str]) -> None:
    together = pa.array(texts, pa.string())
    scan = scan_compiled(together)
    table, found = statistics(together, scan).to_pylist(), signatures_compiled(scan, 16)
    for index, text in enumerate(texts):
        alone = pa.array([text])
        single = scan_compiled(alone)
        assert statistics(alone, single).to_pylist() == [table[index]]
        assert signatures_compiled(single, 16).tolist() == [found[index].tolist()]
        assert shingles(single.tokens).tolist() == shingles(scan.tokens_of(index)).tolist()


@settings(max_examples=200, deadline=None)
@given(st.text(CHARACTERS, max_size=300))
def test_statistics_are_what_python_counts(text: str) -> None:
    batch = pa.array([text])
    row = statistics(batch, scan_compiled(batch)).to_pylist()[0]
    assert row["characters"] == len(text)
    assert row["bytes"] == len(text.encode())
    assert row["lines"] == sum(bool(line.split()) for line in text.split("\n"))
    for name in ("alpha_ratio", "digit_ratio", "symbol_ratio", "duplicate_line_ratio", "latin_share", "cjk_share"):
        assert 0 <= row[name] <= 1
    letters = sum(character.isalpha() for character in text if ord(character) < 0x32400)
    solid = sum(not character.isspace() for character in text)
    assert row["alpha_ratio"] == (letters / solid if solid else 0)
