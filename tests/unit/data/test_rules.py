import pytest

from atoll.core.errors import Invalid
from atoll.data.rules import COLUMNS, EXPRESSION_CHARACTERS_MAX, parse_expression


@pytest.mark.parametrize(
    "text",
    [
        "characters < 200",
        "symbol_ratio > 0.4 or not (words >= 3 and lines != 1)",
        "10 < words <= 20",
        "-words + 2 * lines / 3 - 1 == +0.5",
        "  bytes < 5  ",
        *(f"{column} > 0" for column in COLUMNS),
    ],
)
def test_a_comparison_of_columns_and_numbers_parses(text: str) -> None:
    assert parse_expression(text).text == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "characters",
        "1",
        "True",
        "words < True",
        "words < 'a'",
        "words < 1j",
        "words in (1, 2)",
        "words is 3",
        "words ** 99 < 1",
        "words << 2 < 1",
        "words // 2 < 1",
        "~words < 1",
        "not words",
        "words and lines",
        "len(words) < 1",
        "__import__('os') < 1",
        "words.real < 1",
        "words[0] < 1",
        "(words := 3) < 1",
        "[w for w in words] < 1",
        "(lambda: 1)() < 1",
        "f'{words}' < 1",
        "words if lines else 1 < 2",
        "*words < 1",
        "(words < 1) < 2",
        "(words < 1) + 1 < 2",
    ],
)
def test_anything_else_is_refused_with_what_would_be_valid(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression(text, "recipe.rules[2].drop")
    assert caught.value.field == "recipe.rules[2].drop"
    assert "comparisons" in caught.value.hint


@pytest.mark.parametrize("text", ["", "words <", "words < 1; lines", "\0", "((((" * 200, "words\n<\n1\nlines"])
def test_what_is_not_an_expression_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not an expression"):
        parse_expression(text)


def test_an_unknown_column_names_the_nearest_and_all() -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression("charakters < 200")
    assert "did you mean characters?" in caught.value.hint
    assert "cjk_share" in caught.value.hint


@pytest.mark.parametrize("number", ["1e999", "9" * 400])
def test_a_number_beyond_all_floats_is_refused(number: str) -> None:
    with pytest.raises(Invalid, match="too large"):
        parse_expression(f"words < {number}")


def test_a_very_long_expression_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Invalid, match="the limit is"):
        parse_expression("words < 1 " + "or words < 1 " * EXPRESSION_CHARACTERS_MAX)


def test_deep_nesting_within_the_limit_is_refused_or_parsed_never_crashes() -> None:
    assert parse_expression("not " * 200 + "words < 1").tree is not None
    assert parse_expression("-" * 900 + "words < 1").tree is not None
