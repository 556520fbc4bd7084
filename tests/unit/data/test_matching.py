"""What an erasure finds in tables: texts however deep a column holds them, ids whatever their type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from atoll.data.engine.versions.matching import Match, Origins, derived, ids_of_documents, meant
from atoll.data.resources import TEXT_CHARACTERS_MAX
from atoll.data.sought import Sought, is_sample_of

ANN = "ann@example.org"
TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
HELD: list[tuple[pa.DataType, Any, Any]] = [
    (pa.large_string(), f"mail {ANN}", "x"),
    (pa.string_view(), f"mail {ANN}", "x"),
    (TURN, {"role": "user", "content": ANN}, {"role": "user", "content": "x"}),
    (pa.list_(TURN), [{"role": "user", "content": "hi"}, {"role": "user", "content": ANN}], [{"content": "x"}]),
    (pa.large_list(pa.large_string()), ["x", ANN], ["x"]),
    (pa.list_(pa.list_(pa.string())), [[], [ANN]], [["x"], None]),
    (pa.list_(pa.string(), 2), ["x", ANN], ["x", None]),
    (pa.map_(pa.string(), pa.string()), [("to", ANN)], [("to", "x")]),
    (pa.map_(pa.string(), pa.string()), [(ANN, "to")], [("x", "to")]),
    (pa.binary(), b"\xff\x00" + ANN.encode(), b"\xffx"),
    (pa.binary(len(ANN)), ANN.encode(), b"x" * len(ANN)),
    (pa.dictionary(pa.int32(), pa.string()), ANN, "x"),
]


def texts(*found: str) -> Match:
    return Match(texts=found)


@pytest.mark.parametrize(("kind", "planted", "plain"), HELD, ids=lambda value: str(value)[:30])
def test_a_text_is_found_however_a_column_holds_it(kind: pa.DataType, planted: Any, plain: Any) -> None:
    values = [plain, None, planted, plain, planted]
    one = pa.array(values[:1]).cast(kind) if pa.types.is_dictionary(kind) else pa.array(values[:1], kind)
    rest = pa.array([None, planted, plain, planted]).cast(kind) if pa.types.is_dictionary(kind) else None
    rest = pa.array(values[1:], kind) if rest is None else rest
    table = pa.table({"column": pa.chunked_array([one, rest])})
    assert np.flatnonzero(meant(table, texts(ANN.upper()), Origins())).tolist() == [2, 4]
    assert np.flatnonzero(meant(table.slice(2), texts(ANN), Origins())).tolist() == [0, 2]


def test_columns_that_hold_something_else_than_their_names_say_are_no_trouble() -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3]),
            "documents": pa.array([7, 1, 9]),
            "source": pa.array([1, 2, 3]),
            "url": pa.array([{"a": "x"}] * 3),
            "text": pa.array([None, ANN, "x"]),
        }
    )
    match = Match(documents=("1",), sources=("3", "x*"), texts=(ANN,))
    rows = meant(table, match, Origins(prefixes=("9",)))
    assert rows.tolist() == [True, True, True]
    assert meant(table, Match(documents=("7",)), Origins()).tolist() == [False, False, False]
    assert ids_of_documents(table, rows) == ["1", "2", "3"]
    assert derived(table, pa.array(["2"])).tolist() == [False, True, False]


def test_a_sample_is_told_by_an_id_that_holds_a_colon() -> None:
    assert is_sample_of("a: b: how it begins", {"a: b"}) and is_sample_of("a", {"a"})
    assert not is_sample_of("a: b: how it begins", {"b", "a: b: how"})


@pytest.mark.parametrize(
    ("sought", "written"), [("STRASSE", "Große Straße"), ("Weiß", "FRAU WEISS"), ("ﬁnder", "Finder")]
)
def test_letters_that_become_several_in_another_case_are_found(sought: str, written: str) -> None:
    table = pa.table({"text": [written, "other"]})
    assert meant(table, texts(sought), Origins()).tolist() == [True, False]
    assert Sought.of({"texts": [sought], "documents": [], "sources": [], "files": []}).is_in(written)


def test_as_many_and_as_long_texts_as_may_be_asked_for_are_found() -> None:
    many = [f"{number} " + "地址" * (TEXT_CHARACTERS_MAX // 2 - 2) for number in range(100, 120)]
    table = pa.table({"text": ["other", many[-1], f"so {many[0]}"]})
    assert meant(table, texts(*many), Origins()).tolist() == [False, True, True]
