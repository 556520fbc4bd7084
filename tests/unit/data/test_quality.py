import pyarrow as pa
import pytest

from atoll.data.engine.quality import KEPT, evaluate, first_reasons
from atoll.data.rules import Rule, parse_expression

TABLE = pa.table({"words": [0, 5, 10], "lines": [1, 0, 2], "symbol_ratio": [0.5, 0.0, 0.1]})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("words < 6", [True, True, False]),
        ("not words < 6", [False, False, True]),
        ("words >= 5 and symbol_ratio <= 0.05", [False, True, False]),
        ("words == 0 or lines != 1", [True, True, True]),
        ("1 < words < 9", [False, True, False]),
        ("words * 2 - 1 > 10 + lines", [False, False, True]),
        ("-words < -7", [False, False, True]),
        ("+words > 4", [False, True, True]),
        ("words / lines > 2", [False, True, True]),
        ("lines / words < 1", [False, True, True]),
        ("1 < 2", [True, True, True]),
        ("0 / 0 < 1", [False, False, False]),
    ],
)
def test_an_expression_holds_row_by_row(text: str, holds: list[bool]) -> None:
    assert evaluate(parse_expression(text), TABLE).tolist() == holds


def test_the_first_rule_that_holds_is_the_reason() -> None:
    rules = [Rule("one", parse_expression("words > 7")), Rule("two", parse_expression("words > 3"))]
    assert first_reasons(rules, TABLE).tolist() == [KEPT, 1, 0]


def test_no_rules_keep_everything() -> None:
    assert first_reasons([], TABLE).tolist() == [KEPT] * 3
