import pyarrow as pa
import pytest

from atoll.data.engine.annotate.table import Wanted, annotate
from atoll.data.rules import COLUMNS


def _rows(*texts: str) -> list[dict[str, float]]:
    return annotate(pa.array(texts, pa.string()), Wanted()).notes.select(list(COLUMNS)).to_pylist()


def _row(text: str) -> dict[str, float]:
    return _rows(text)[0]


def test_statistics_of_a_small_text() -> None:
    row = _row("One two.\nOne two.\n\nüß 42")
    assert row["characters"] == 24
    assert row["bytes"] == 26
    assert row["words"] == 6
    assert row["pieces"] == 8
    assert row["plain_words"] == 6
    assert (row["lines"], row["newlines"], row["paragraphs"]) == (3, 3, 2)
    assert row["mean_word_length"] == pytest.approx(16 / 6)
    assert row["mean_line_length"] == 8
    assert row["alpha_ratio"] == pytest.approx(14 / 18)
    assert row["digit_ratio"] == pytest.approx(2 / 18)
    assert row["symbol_ratio"] == pytest.approx(2 / 18)
    assert row["duplicate_line_ratio"] == pytest.approx(1 / 3)
    assert row["duplicate_line_character_ratio"] == pytest.approx(8 / 24)
    assert row["duplicate_line_text_ratio"] == pytest.approx(8 / 21)
    assert row["newline_ratio"] == pytest.approx(3 / 8)
    assert row["ended_line_ratio"] == pytest.approx(2 / 3)
    assert row["alphabetic_word_ratio"] == pytest.approx(5 / 8)
    assert (row["latin_share"], row["cjk_share"]) == (1, 0)


def test_an_empty_text_has_zeros_everywhere() -> None:
    assert set(_row("").values()) == {0}


def test_a_line_repeated_in_another_text_is_no_repetition() -> None:
    ratios = [row["duplicate_line_ratio"] for row in _rows("same\nsame\nsame", "same", "other\nsame")]
    assert ratios == [pytest.approx(2 / 3), 0, 0]


def test_lines_that_differ_in_white_space_are_no_repetition() -> None:
    assert _row("a  b\na b\n a b")["duplicate_line_ratio"] == 0


def test_chinese_is_told_from_latin() -> None:
    row = _row("这是中文 and")
    assert row["cjk_share"] == pytest.approx(4 / 7)
    assert row["latin_share"] == pytest.approx(3 / 7)
    assert row["words"] == 5
    assert row["stop_word_ratio"] == pytest.approx(4 / 5)


def test_symbols_are_counted_per_piece() -> None:
    row = _row("# a ... b… c .... d")
    assert row["hash_ratio"] == pytest.approx(1 / row["pieces"])
    assert row["ellipsis_ratio"] == pytest.approx(3 / row["pieces"])


def test_lines_with_bullets_and_ellipses_are_counted_among_all_lines() -> None:
    row = _row("- one\n • two...\n\nthree…\nfour\n")
    assert row["bullet_line_ratio"] == pytest.approx(2 / 5)
    assert row["ellipsis_line_ratio"] == pytest.approx(2 / 5)


def test_short_and_ended_lines_are_counted_among_lines_that_are_not_blank() -> None:
    row = _row("x" * 31 + ".\n" + "y" * 30 + "\n\n中文。\nno end. \n")
    assert row["short_line_ratio"] == pytest.approx(3 / 4)
    assert row["ended_line_ratio"] == pytest.approx(2 / 4)


def test_paragraphs_end_at_two_line_feeds() -> None:
    row = _row("one\ntwo\n\n\none\ntwo\n\nthree")
    assert row["paragraphs"] == 3
    assert row["duplicate_paragraph_ratio"] == pytest.approx(1 / 3)
    assert row["duplicate_paragraph_character_ratio"] == pytest.approx(7 / row["characters"])


@pytest.mark.parametrize(
    ("line", "finished"),
    [
        ("It is a line.", 1),
        ('He said: "so it is"', 1),
        ("It is a line...", 0),
        ("It is a line", 0),
        ("Two words.", 0),
        ("It was shown.[12][3]", 1),
        ("It was shown.[x]", 0),
        ("a b " + "c" * 1001 + ".", 0),
        ("a b " + "c" * 999 + ".", 1),
    ],
)
def test_a_line_is_finished_by_a_mark_and_three_words(line: str, finished: int) -> None:
    assert _row(f"x\n{line}\ny")["finished_lines"] == finished


def test_phrases_are_found_in_finished_lines_in_any_case() -> None:
    row = _row(
        "Please enable JavaScript now.\nSee our Privacy Policy.\nLorem Ipsum dolor sit.\nplain javascript\nA { b."
    )
    assert (row["javascript_lines"], row["policy_lines"], row["lorem_ipsum_lines"], row["curly_lines"]) == (1, 1, 1, 1)
    assert row["finished_sentences"] == 2


def test_sentences_end_at_marks_before_what_is_no_punctuation() -> None:
    assert _row('He came. "I saw!" he said? Yes.')["finished_sentences"] == 4
    assert _row("Version 3.14 is e.g. here, i.e. not there.")["finished_sentences"] == 1


def test_common_words_are_counted_once_each() -> None:
    assert _row("the the of THE and withal")["common_words"] == 3


def test_a_text_of_many_blocks_is_counted_whole() -> None:
    line = "Word and word, another 中文 line.\n"
    row, one = _row(line * 500), _row(line)
    assert row["characters"] == 500 * one["characters"]
    assert row["pieces"] == 500 * one["pieces"]
    assert row["duplicate_line_ratio"] == pytest.approx(499 / 500)
    assert row["finished_sentences"] == 500


def test_lines_of_other_lengths_are_never_equal() -> None:
    lines = [" \0", "#", "a", "a\0", "a\0\0", *("b" * length for length in range(1, 40))]
    row = annotate(pa.array(["\n".join(lines)]), Wanted()).notes.to_pylist()[0]
    assert row["duplicate_line_ratio"] == 0
    assert annotate(pa.array(["\n".join(lines * 2)]), Wanted()).notes["duplicate_line_ratio"][0].as_py() == 0.5


@pytest.mark.parametrize("before", range(12))
@pytest.mark.parametrize("dots", range(12))
def test_three_dots_are_counted_wherever_they_stand(before: int, dots: int) -> None:
    row = annotate(pa.array([f"{'x' * before}{'.' * dots}y z"]), Wanted()).notes.to_pylist()[0]
    assert row["ellipsis_ratio"] * row["pieces"] == pytest.approx(dots // 3)
