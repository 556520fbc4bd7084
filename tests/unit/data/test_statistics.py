import pyarrow as pa
import pytest

from atoll.data.engine.scan import scan
from atoll.data.engine.statistics import exact_digests, statistics
from atoll.data.rules import COLUMNS


def _row(text: str) -> dict[str, float]:
    texts = pa.array([text])
    return statistics(texts, scan(texts)).to_pylist()[0]


def test_every_column_a_rule_may_name_is_there_and_no_other() -> None:
    assert list(_row("a")) == list(COLUMNS)


def test_statistics_of_a_small_text() -> None:
    row = _row("One two.\nOne two.\n\nüß 42")
    assert row["characters"] == 24
    assert row["bytes"] == 26
    assert row["words"] == 6
    assert row["lines"] == 3
    assert row["mean_word_length"] == pytest.approx(16 / 6)
    assert row["mean_line_length"] == 8
    assert row["alpha_ratio"] == pytest.approx(14 / 18)
    assert row["digit_ratio"] == pytest.approx(2 / 18)
    assert row["symbol_ratio"] == pytest.approx(2 / 18)
    assert row["duplicate_line_ratio"] == pytest.approx(1 / 3)
    assert row["latin_share"] == 1
    assert row["cjk_share"] == 0


def test_an_empty_text_has_zeros_everywhere() -> None:
    assert set(_row("").values()) == {0}


def test_a_line_repeated_in_another_text_is_no_repetition() -> None:
    texts = pa.array(["same\nsame\nsame", "same", "other\nsame"])
    ratios = statistics(texts, scan(texts))["duplicate_line_ratio"].to_pylist()
    assert ratios == [pytest.approx(2 / 3), 0, 0]


def test_chinese_is_told_from_latin() -> None:
    row = _row("这是中文 and")
    assert row["cjk_share"] == pytest.approx(4 / 7)
    assert row["latin_share"] == pytest.approx(3 / 7)
    assert row["words"] == 5
    assert row["stop_word_ratio"] == pytest.approx(4 / 5)


def test_equal_texts_have_equal_digests() -> None:
    one, other, same = exact_digests(pa.array(["a", "b", "a"]))
    assert one == same != other
    assert len(one) == 16
