import pyarrow as pa
import pytest

from atoll.data.engine.quality.conditions import evaluate
from atoll.data.rules import parse_expression

TABLE = pa.table(
    {
        "words": [0, 5, 10],
        "lines": [1, 0, 2],
        "symbol_ratio": [0.5, 0.0, 0.1],
        "language": ["en", "zh-hans", "zh"],
        "quality_prose": pa.array([0.2, 0.5, 0.9], pa.float32()),
        "pii_email": pa.array([0, 2, 0], pa.int32()),
    }
)


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
        ('language == "en"', [True, False, False]),
        ('language == "zh"', [False, True, True]),
        ('"zh-hans" == language', [False, True, False]),
        ('language != "zh"', [True, False, False]),
        ('not (language == "en" or language == "zh-hant") and words > 5', [False, False, True]),
        ("quality_prose < 0.6 and pii_email > 1", [False, True, False]),
    ],
)
@pytest.mark.parametrize("kind", ["table", "batch", "chunks"])
def test_an_expression_holds_row_by_row(text: str, holds: list[bool], kind: str) -> None:
    batch = TABLE.to_batches()[0]
    notes = {"table": TABLE, "batch": batch, "chunks": pa.Table.from_batches([batch.slice(0, 1), batch.slice(1)])}
    assert evaluate(parse_expression(text, refuse_constant=False), notes[kind]).tolist() == holds


def test_no_documents_are_no_rows() -> None:
    assert evaluate(parse_expression('language == "en" or words > 1'), TABLE.slice(0, 0)).tolist() == []


def test_a_column_the_notes_lack_is_named() -> None:
    with pytest.raises(KeyError, match=r"^'top_2_gram_ratio'$"):
        evaluate(parse_expression("top_2_gram_ratio > 0.2"), TABLE)
