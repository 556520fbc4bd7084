# ruff: noqa: RUF001 - texts in many scripts
"""Compiled and as Python, in a batch and alone, a text has one language and one score."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.data.engine.language import identify as identifying
from atoll.data.engine.language.identify import identify
from atoll.data.engine.language.predict import room_for
from atoll.data.engine.language.scripts import LETTERS_BYTES, SCRIPTS, script_table
from atoll.data.engine.scan import utf8_of

PIECES = st.sampled_from(
    [
        *(
            "the",
            "and",
            "während",
            "l’été",
            "don't",
            "и",
            "який",
            "و",
            "है",
            "של",
            "中文",
            "頭髮",
            "头发",
            "おはよう",
            "한국어",
        ),
        *(" ", "\n", ", ", ". ", "1", "'", "\u0301", "ﬁ", "😀", "—", "。", "x" * 17, "ß" * 9, "\x00", "\U000e0041"),
    ]
)
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=25).map("".join)
LONG = st.tuples(TEXTS, st.integers(1, 40)).map(lambda drawn: drawn[0] * drawn[1])


def _as_python(texts: pa.StringArray) -> tuple[list[int], list[float]]:
    data, starts = utf8_of(texts)
    tables = identifying._model().tables
    found, scores = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.float32)
    counts, letters = np.zeros(len(SCRIPTS), np.int32), np.zeros(LETTERS_BYTES, np.uint8)
    with np.errstate(over="ignore"):
        identifying._identify.py_func(  # type: ignore[attr-defined]
            *(data, starts, script_table(), identifying._untold(), counts, letters, tables, room_for(tables)),
            *(found, scores),
        )
    return found.tolist(), scores.tolist()


@given(st.lists(LONG, max_size=3))
@settings(deadline=None, max_examples=40)
def test_python_finds_the_same_to_the_last_bit(texts: list[str]) -> None:
    array = pa.array(texts, pa.string())
    codes, scores = identify(array)
    found, expected = _as_python(array)
    assert codes.to_pylist() == identifying._languages().take(pa.array(found, pa.int32())).to_pylist()
    assert scores.tolist() == expected


@given(st.lists(LONG, max_size=20))
@settings(deadline=None)
def test_a_batch_says_of_each_text_what_it_says_of_it_alone(texts: list[str]) -> None:
    codes, scores = identify(pa.array(texts, pa.string()))
    alone = [identify(pa.array([text])) for text in texts]
    assert codes.to_pylist() == [code[0].as_py() for code, _ in alone]
    assert scores.tolist() == [score[0] for _, score in alone]
    assert all(0 <= score <= 1 for score in scores.tolist())
