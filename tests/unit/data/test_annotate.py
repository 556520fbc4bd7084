import pyarrow as pa
import pytest
import xxhash

from atoll.data.engine.annotate.table import DIGEST, Wanted, annotate, shingles_of
from atoll.data.rules import COLUMNS, REPETITION_COLUMNS

TEXTS = pa.array(["The first text.\n\nIt has two lines.", "", "zweiter Text über\nzweiter  Text über", "中文的文本"])


def test_every_column_a_rule_may_name_is_there_and_the_digest() -> None:
    assert annotate(TEXTS, Wanted()).notes.schema.names == [*COLUMNS, *DIGEST]


def test_columns_of_repetition_are_left_out_where_not_wanted() -> None:
    with_all, without = annotate(TEXTS, Wanted()).notes, annotate(TEXTS, Wanted(repetition=False)).notes
    assert set(with_all.schema.names) - set(without.schema.names) == REPETITION_COLUMNS
    assert without.equals(with_all.select(without.schema.names))


def test_the_digest_is_xxh3_of_the_text() -> None:
    notes = annotate(TEXTS, Wanted()).notes.to_pylist()
    for text, row in zip(TEXTS.to_pylist(), notes, strict=True):
        assert row["digest_high"] << 64 | row["digest_low"] == xxhash.xxh3_128_intdigest(text.encode())


def test_lines_are_hashed_without_their_spaces_and_blank_ones_left_out() -> None:
    found = annotate(TEXTS, Wanted(lines=True))
    assert found.line_starts.tolist() == [0, 2, 2, 4, 5]
    assert found.lines[2] == found.lines[3] != found.lines[0]
    assert len(annotate(TEXTS, Wanted()).lines) == 0


def test_signatures_have_as_many_entries_as_wanted() -> None:
    assert annotate(TEXTS, Wanted(permutations=16)).signatures.shape == (4, 16)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_slice_of_a_batch_is_annotated_as_if_alone(start: int) -> None:
    alone = annotate(pa.array(TEXTS.to_pylist()[start:]), Wanted(lines=True))
    part = annotate(TEXTS.slice(start), Wanted(lines=True))
    assert part.notes.equals(alone.notes)
    assert part.lines.tolist() == alone.lines.tolist()
    assert part.signatures.tolist() == alone.signatures.tolist()


def test_no_texts_are_annotated_by_nothing() -> None:
    found = annotate(pa.array([], pa.string()), Wanted(lines=True))
    assert found.notes.num_rows == len(found.lines) == 0
    assert found.signatures.shape == (0, 112)
    assert found.line_starts.tolist() == [0]


def test_shingles_of_one_text() -> None:
    assert len(shingles_of(TEXTS.slice(3, 1), Wanted(cjk_characters=3))) == 3
    assert len(shingles_of(TEXTS.slice(3, 1), Wanted(cjk_characters=5))) == 1
