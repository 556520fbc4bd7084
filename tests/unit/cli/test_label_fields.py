"""Fields and answers of labelling as words of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atoll.cli.label_fields import (
    agreement_rows,
    asked_lines,
    dispute_lines,
    field_from,
    item_lines,
    items_in,
    values_from,
)
from atoll.core.errors import Invalid

FIELDS = [field_from(text) for text in ("tone:class=kind,rude", "topics:classes=a,b", "who:spans=person", "n:rating")]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("tone:class=kind,rude", {"name": "tone", "type": "class", "options": ["kind", "rude"]}),
        ("tone:class=kind, very rude ,", {"name": "tone", "type": "class", "options": ["kind", "very rude"]}),
        ("n:rating=-2..2", {"name": "n", "type": "rating", "min": -2, "max": 2}),
        ("n:rating", {"name": "n", "type": "rating"}),
        ("better:pair", {"name": "better", "type": "pair"}),
        ("why:text", {"name": "why", "type": "text"}),
    ],
)
def test_a_field_is_a_name_a_type_and_options(text: str, field: dict[str, Any]) -> None:
    assert field_from(text) == field


@pytest.mark.parametrize("text", ["tone", "tone:colour=red", ":class=a", "n:rating=5", "n:rating=a..b"])
def test_a_field_that_is_none_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        field_from(text)
    assert refused.value.field == "--field"
    assert refused.value.hint


def test_values_have_the_types_of_their_fields() -> None:
    words = ["tone=kind", "topics=a, b", 'who=[{"start": 0, "stop": 3, "label": "person"}]', "n=4", "other=x=y"]
    assert values_from(words, FIELDS) == {
        "tone": "kind",
        "topics": ["a", "b"],
        "who": [{"start": 0, "stop": 3, "label": "person"}],
        "n": 4,
        "other": "x=y",
    }


@pytest.mark.parametrize("word", ["tone", "=kind", "who=[1"])
def test_a_word_that_is_no_value_is_refused(word: str) -> None:
    with pytest.raises(Invalid):
        values_from([word], FIELDS)


def test_items_are_read_by_line_and_wrong_ones_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('\ufeff{"id": 7, "text": "t", "url": "u"}\n\n{"key": "k"}\n[1]\n')
    found = items_in(path)
    assert next(found) == {"key": "7", "text": "t", "meta": {"url": "u"}}
    assert next(found) == {"key": "k", "meta": {}}
    with pytest.raises(Invalid, match=r"items.jsonl:4 is not a JSON object"):
        next(found)


@pytest.mark.parametrize("line", ['{"id": null}', '{"id": 1, "meta": {"x": NaN}}', '{"id": 1, "text": "\\ud800"}'])
def test_what_is_no_item_is_refused_by_file_and_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"id": 0, "text": "t"}}\n{line}\n')
    with pytest.raises(Invalid, match=r"items.jsonl:2 ") as refused:
        list(items_in(path))
    assert refused.value.hint


def test_an_item_in_hand_shows_its_texts_and_the_models_word() -> None:
    item = {"item": "k", "text": "one\ntwo", "meta": {}, "suggestion": {"tone": "kind"}, "suggested_by": "m@v1"}
    assert list(item_lines(item)) == ["[k]", "  text: one", "  text: two", '  m@v1 suggests: {"tone": "kind"}']


def test_what_is_asked_is_shown_as_it_is_answered() -> None:
    common = {"description": "", "required": True}
    fields = [
        {**common, "name": "tone", "type": "class", "options": ["kind", "rude"], "description": "Of it."},
        {**common, "name": "stars", "type": "rating", "min": 1, "max": 3, "required": False},
        {**common, "name": "better", "type": "pair", "ties": False},
    ]
    assert list(asked_lines({"instructions": "Read\ntwice.", "fields": fields})) == [
        *("Read", "twice.", "tone=kind|rude  Of it.", "stars=1..3  (may be left out)", "better=a|b")
    ]


def test_a_dispute_shows_the_item_what_was_said_and_why_it_was_skipped() -> None:
    answer = {"labeller": "L1", "values": {"tone": "kind"}, "comment": "irony?"}
    skips = [{"labeller": "L2", "comment": "unreadable"}, {"labeller": "L3", "comment": ""}]
    row = {"id": "k", "item": {"text": "t"}, "agreement": None, "answers": [answer], "skips": skips}
    assert list(dispute_lines(row)) == [
        *("[k]", "  text: t", '  L1: {"tone": "kind"}  # irony?', "  L2 skipped it: unreadable", "  L3 skipped it")
    ]


def test_a_table_of_agreement_has_people_pairs_and_the_model() -> None:
    figures = {"field": "tone", "pairs": 2, "percent": 1.0, "kappa": None, "alpha": 0.5, "f1_exact": None}
    pair = {"field": "tone", "first": "L1", "second": "L2", "pairs": 2, "percent": 1.0, "kappa": 1.0}
    rows = agreement_rows({"fields": [figures], "pairs": [pair], "model": [figures]})
    assert [row[1] for row in rows] == ["people", "L1 and L2", "model and people"]
    assert rows[0] == ["tone", "people", "2", "1.000", "-", "0.500", "-"]
