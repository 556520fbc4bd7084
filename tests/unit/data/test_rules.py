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
        'language == "en"',
        '"zh-hans" != language and language_score > 0.5',
        "quality_prose < 0.3 or words_slurs > 0 or pii_email >= 3",
        *(f"{column} > 0.5" for column in COLUMNS),
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


def test_an_unknown_column_names_the_nearest_and_where_all_are_told() -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression("charakters < 200")
    assert "did you mean characters?" in caught.value.hint
    assert "all columns: atoll data columns" in caught.value.hint
    with pytest.raises(Invalid, match=r"did you mean duplicate_\d_gram_ratio, .* or duplicate_\d_gram_ratio"):
        parse_expression("duplicate_4_gram_ratio < 0.2")


def test_personal_data_of_a_kind_that_is_none_names_the_nearest() -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression("pii_mail > 0")
    assert caught.value.message == "there is no column 'pii_mail'"
    assert "pii_email" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 < 2", "'1 < 2' holds for every document"),
        ("lines < 5 and 3 < 1", "'3 < 1' in 'lines < 5 and 3 < 1' holds for no document"),
        ("words < 10 / 0", "'10 / 0' divides by 0"),
        ("words / (2 - 2) > 1", "divides by 0"),
    ],
)
def test_a_condition_that_no_document_changes_is_refused(text: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression(text)
    assert what in caught.value.message


def test_columns_a_recipe_defines_are_known_by_name() -> None:
    extra = frozenset({"quality_prose", "words_slurs"})
    assert parse_expression("quality_prose < 0.3 and words_slurs > 1", extra=extra).columns == extra
    with pytest.raises(Invalid) as caught:
        parse_expression("quality_prosa < 0.3", extra=extra)
    assert "did you mean quality_prose?" in caught.value.hint
    assert "define 'prosa' under `quality` of the recipe" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        *('language < "en"', "language == 3", 'language + 1 == "en"', '"en" == "en"', 'words == "en"'),
        *('language == "EN"', 'language == "en" == "zh"', "language == words", "language", 'not language == ""'),
    ],
)
def test_language_compares_with_one_code_only(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_expression(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("characters < 0", "no document"),
        ("characters >= 0", "every document"),
        ("alpha_ratio > 1.5", "no document"),
        ("alpha_ratio > 1", "no document"),
        ("digit_ratio <= 1", "every document"),
        ("latin_share + cjk_share > 2", "no document"),
        ("2 * symbol_ratio - 1 < -1", "no document"),
        ("words != -1", "every document"),
        ("words == -1", "no document"),
        ("quality_prose > 1", "no document"),
        ("0 <= words < 5", "every document"),
        ("words < 5 or not language_score <= 1", "every document"),
    ],
)
def test_a_threshold_out_of_a_columns_range_is_refused_with_the_range(text: str, what: str) -> None:
    with pytest.raises(Invalid, match=f"holds for {what}") as caught:
        parse_expression(text)
    assert "runs from 0" in caught.value.hint
    assert parse_expression(text, refuse_constant=False)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("words < 10 and words > 20", "no document"),
        ("words < 10 and lines > 3 and 10 <= words", "no document"),
        ("words > 10 or words <= 10", "every document"),
        ("lines > 3 or 20 > words or words > 10", "every document"),
        ("lines < 5 or 20 < words < 10", "no document"),
        ("words == 3 and words == 4", "no document"),
        ("alpha_ratio > 0.5 and alpha_ratio < -0.5 + 1", "no document"),
        ('language != "en" or language != "zh"', "every document"),
        ('"de" == language and language == "zh-hans"', "no document"),
    ],
)
def test_comparisons_that_exclude_each_other_are_refused(text: str, what: str) -> None:
    with pytest.raises(Invalid, match=f"holds for {what}") as caught:
        parse_expression(text)
    assert "of its comparisons of" in caught.value.hint
    assert parse_expression(text, refuse_constant=False)


@pytest.mark.parametrize(
    "text",
    [
        *("words >= 10 and words <= 10", "10 < words < 20", "words < 10 or words > 20", "words < 10 or words > 10"),
        *("words < 10 and lines > 20", "words < 20 or words > 10 and lines < 3", "words != 3 or words < 3"),
        *("words < 5 and not words > 3", 'language == "zh" and language == "zh-hans"'),
        *('language != "en" and language != "zh"', "words < 5 or 1 < words < 9"),
    ],
)
def test_comparisons_that_leave_something_are_taken(text: str) -> None:
    assert parse_expression(text)


@pytest.mark.parametrize(
    "text",
    ["alpha_ratio >= 1", "words <= 0", "words / lines < -1", "words - lines < 0", "top_2_gram_ratio > 1"],
)
def test_a_threshold_within_reach_is_taken(text: str) -> None:
    assert parse_expression(text)


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
