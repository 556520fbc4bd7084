"""What may be said about an item, and what answers come to together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from atoll.core.errors import Forbidden, Invalid
from atoll.data.labelling.assignment import DECIDED, DISPUTED, OPEN, TAKEN, Terms, group_of, joined, left, standing
from atoll.data.labelling.resources import LABEL_TASK
from atoll.data.labelling.schema import AnyField, Item, answer_schema, check_item
from atoll.data.labelling.table import columns_of, preference, table_row
from atoll.data.labelling.values import agreement_of, check_values, consensus, from_model, similarity

TEXT = "Ada Lovelace met Charles Babbage in London."
SPECS: list[dict[str, Any]] = [
    {"name": "tone", "type": "class", "options": ["kind", "rude"]},
    {"name": "topics", "type": "classes", "options": ["law", "sport", "art"]},
    {"name": "people", "type": "spans", "options": ["person", "place"]},
    {"name": "better", "type": "pair", "ties": False},
    {"name": "stars", "type": "rating", "min": 1, "max": 5},
    {"name": "why", "type": "text", "required": False, "characters_max": 40},
]
FIELDS = TypeAdapter(list[AnyField]).validate_python(SPECS)
ADA = {"start": 0, "stop": 12, "label": "person"}
GOOD: dict[str, Any] = {"tone": "kind", "topics": ["art", "law"], "people": [ADA], "better": "a", "stars": 4}


def field(name: str) -> Any:
    return next(f for f in FIELDS if f.name == name)


def test_a_whole_answer_is_taken_in_one_form() -> None:
    assert check_values(FIELDS, GOOD, TEXT) == {**GOOD, "topics": ["law", "art"]}


@pytest.mark.parametrize(
    ("name", "value", "where", "hint"),
    [
        ("tone", "angry", "values.tone", "kind, rude"),
        ("tone", ["kind"], "values.tone", "kind, rude"),
        ("topics", ["law", "war"], "values.topics", "law, sport, art"),
        ("topics", [["law"]], "values.topics", "law, sport, art"),
        ("people", "Ada", "values.people", "start, stop and label"),
        ("people", [{"start": 0, "stop": 3}], "values.people[0]", "start, stop and label"),
        ("people", [ADA, ADA | {"label": "dog"}], "values.people[1].label", "person, place"),
        ("people", [ADA | {"stop": 99}], "values.people[0]", "0 to 43"),
        ("people", [ADA | {"start": 12}], "values.people[0]", "start below stop"),
        ("people", [ADA | {"start": True}], "values.people[0]", "whole numbers"),
        ("better", "tie", "values.better", "a or b"),
        ("stars", 6, "values.stars", "from 1 to 5"),
        ("stars", 3.5, "values.stars", "from 1 to 5"),
        ("stars", True, "values.stars", "from 1 to 5"),
        ("why", "x" * 41, "values.why", "1 to 40 characters"),
        ("mood", "fine", "values.mood", "fields: tone"),
    ],
)
def test_a_wrong_value_is_refused_by_field_with_what_would_be_valid(
    name: str, value: Any, where: str, hint: str
) -> None:
    with pytest.raises(Invalid) as refused:
        check_values(FIELDS, {**GOOD, name: value}, TEXT)
    assert refused.value.field == where
    assert hint in refused.value.hint


def test_a_field_that_is_required_must_be_answered() -> None:
    with pytest.raises(Invalid, match="'stars' is not answered"):
        check_values(FIELDS, {**GOOD, "stars": None}, TEXT)


@pytest.mark.parametrize(
    ("name", "first", "second", "alike"),
    [
        ("tone", "kind", "rude", 0.0),
        ("topics", ["law", "art"], ["art"], 0.5),
        ("topics", [], [], 1.0),
        ("people", [ADA], [ADA, ADA | {"stop": 3}], 2 / 3),
        ("people", [], [], 1.0),
        ("stars", 1, 4, 0.25),
    ],
)
def test_values_are_alike_by_the_kind_of_their_field(name: str, first: Any, second: Any, alike: float) -> None:
    assert similarity(field(name), first, second) == pytest.approx(alike)


def test_consensus_is_the_majority_field_by_field() -> None:
    others = [GOOD, {**GOOD, "tone": "rude", "topics": ["law"], "people": [], "stars": 1}, {**GOOD, "stars": 5}]
    assert consensus(FIELDS, others) == {**GOOD, "topics": ["law", "art"]}


def test_two_who_say_different_things_have_no_consensus() -> None:
    answers = [{**GOOD, "tone": "kind"}, {**GOOD, "tone": "rude"}]
    assert consensus(FIELDS, answers) is None
    assert agreement_of(FIELDS, answers) == 0.0


def test_two_ratings_meet_in_the_middle() -> None:
    assert consensus([field("stars")], [{"stars": 2}, {"stars": 5}]) == {"stars": 3.5}


def test_a_value_only_one_has_counts_as_unlike_and_free_text_counts_nothing() -> None:
    optional = [field("tone"), field("why")]
    assert agreement_of(optional, [{"tone": "kind"}, {}]) == 0.0
    assert agreement_of(optional, [{"tone": "kind", "why": "one"}, {"tone": "kind", "why": "two"}]) == 1.0


def test_an_item_is_open_taken_decided_or_disputed() -> None:
    terms = Terms([field("tone")], 2, 0.3, 3)
    kind, rude = {"tone": "kind"}, {"tone": "rude"}
    assert standing(terms, [kind], 0, 0).state == OPEN
    assert standing(terms, [kind], 1, 0).state == TAKEN
    assert standing(terms, [kind, kind], 0, 0).state == DECIDED
    assert standing(terms, [kind, rude], 0, 0).state == DISPUTED
    assert standing(terms, [], 0, 3).state == DISPUTED


def test_two_of_three_decide_unless_more_agreement_is_wanted() -> None:
    answers = [{"tone": "kind"}, {"tone": "kind"}, {"tone": "rude"}]
    assert standing(Terms([field("tone")], 3, 0.3, 3), answers, 0, 0).final == {"tone": "kind"}
    assert standing(Terms([field("tone")], 3, 0.5, 3), answers, 0, 0).state == DISPUTED


def test_groups_are_named_by_whom_they_have_seen() -> None:
    assert group_of([]) == ""
    assert joined(joined("", 12), 3) == ",3,12,"
    assert left(",3,12,", 3) == ",12,"
    assert left(",12,", 12) == ""


def test_a_models_quotes_become_spans_and_what_is_not_there_is_left_out() -> None:
    said = {
        "people": [
            {"quote": "Charles Babbage", "label": "person"},
            {"quote": "Paris", "label": "place"},
            {"quote": "London", "label": "place"},
        ]
    }
    spans = from_model([field("people")], said, TEXT)["people"]
    assert [TEXT[s["start"] : s["stop"]] for s in spans] == ["Charles Babbage", "London"]


def test_a_quote_that_comes_twice_is_found_twice() -> None:
    said = {"people": [{"quote": "Bo", "label": "person"}] * 2}
    assert [s["start"] for s in from_model([field("people")], said, "Bo saw Bo")["people"]] == [0, 7]


def test_a_models_answer_outside_the_schema_is_refused() -> None:
    with pytest.raises(Invalid, match="'tone' cannot be 'meh'"):
        from_model([field("tone")], {"tone": "meh"}, TEXT)


def test_the_schema_for_models_bounds_every_string() -> None:
    schema = answer_schema(FIELDS)
    assert schema["required"] == ["tone", "topics", "people", "better", "stars"]
    assert schema["properties"]["people"]["items"]["properties"]["quote"]["maxLength"] == 300
    assert schema["properties"]["why"] == {"type": "string", "maxLength": 40}
    assert schema["properties"]["better"]["enum"] == ["a", "b"]


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({"key": "1", "text": "t"}, "items[0].a"),
        ({"key": "1", "a": "x", "b": "y"}, "items[0].text"),
        ({"key": "1", "text": "t", "a": "x"}, "items[0].b"),
    ],
)
def test_an_item_needs_what_its_fields_are_about(item: dict[str, Any], where: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_item(FIELDS, Item.model_validate(item), "items[0]")
    assert refused.value.field == where


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Tone", "type": "class", "options": ["a"]},
        {"name": "tone", "type": "class", "options": ["a", "a"]},
        {"name": "tone", "type": "class", "options": []},
        {"name": "stars", "type": "rating", "min": 5, "max": 5},
        {"name": "x", "type": "colour"},
    ],
)
def test_a_field_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AnyField).validate_python(wrong)


class Asker:
    """Who writes a task."""

    key_id = "k"
    is_admin = False

    def __init__(self, role: str) -> None:
        self._role = role

    def role_in(self, _: str) -> str:
        return self._role


def task(**spec: Any) -> dict[str, Any]:
    return LABEL_TASK.parse_spec({"fields": SPECS[:1], **spec})


def test_options_may_be_appended_but_never_moved() -> None:
    more = [{**SPECS[0], "options": ["kind", "rude", "both"]}]
    LABEL_TASK.guard(Asker("member"), "p", task(fields=more), task())
    moved = [{**SPECS[0], "options": ["rude", "kind"]}]
    with pytest.raises(Invalid, match="would change or move"):
        LABEL_TASK.guard(Asker("member"), "p", task(fields=moved), task())
    with pytest.raises(Invalid, match="would be gone"):
        LABEL_TASK.guard(Asker("member"), "p", task(fields=SPECS[1:2]), task())


def test_the_number_of_labels_stays() -> None:
    with pytest.raises(Invalid, match="labels_per_item is 1"):
        LABEL_TASK.guard(Asker("owner"), "p", task(labels_per_item=2), task())


def test_only_owners_name_adjudicators() -> None:
    LABEL_TASK.guard(Asker("owner"), "p", task(adjudicators=["ada"]), None)
    with pytest.raises(Forbidden, match="only owners"):
        LABEL_TASK.guard(Asker("member"), "p", task(adjudicators=["ada"]), None)


def test_a_source_is_a_dataset_or_a_file() -> None:
    with pytest.raises(Invalid, match="either dataset or file"):
        task(source={"dataset": "d", "file": "f"})


def test_a_decided_pair_is_an_example_of_preference() -> None:
    pair = [{"name": "better", "type": "pair"}]
    item = {"prompt": "Q", "a": "one", "b": "two"}
    assert preference(pair, {"final": {"better": "b"}, "item": item}) == {
        "prompt": "Q",
        "chosen": "two",
        "rejected": "one",
    }
    assert preference(pair, {"final": {"better": "tie"}, "item": item}) is None
    assert preference(pair, {"final": None, "item": item}) is None


def test_a_row_of_the_table_has_its_columns() -> None:
    exported = {
        "id": "k",
        "item": {"text": TEXT, "meta": {"year": 1833}},
        "final": GOOD,
        "decided_by": "answers",
        "agreement": 1.0,
        "answers": [],
        "prelabel": None,
        "prelabel_by": "",
    }
    row = table_row(SPECS, exported)
    assert list(columns_of(SPECS)) == list({**dict.fromkeys(columns_of(SPECS)), **row})
    assert row["label_tone"] == "kind"
    assert row["label_stars"] == 4.0
    assert row["label_topics"] == '["art","law"]'
    assert row["label_why"] is None
