"""The plan of an apply: what is new, and the smallest parts that change."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cli.apply import VALUE_CHARACTERS_MAX, differences, plan_rows, summary, value_text
from atoll.sdk.manifest import Manifest
from atoll.sdk.wire import Change, FieldChange

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)
MANIFEST = Manifest("Deployment", "a", None, {}, {"model": "m", "replicas": 2})


def test_of_something_new_only_what_is_written_is_told() -> None:
    fields = [
        FieldChange("spec.model", None, "m"),
        FieldChange("spec.replicas", None, 2),
        FieldChange("spec.slots", None, 4),
    ]
    assert plan_rows(Change("Deployment", "a", "create", fields, "default"), MANIFEST) == [
        ["+", "Deployment default/a", "spec.model", '"m"'],
        ["", "", "spec.replicas", "2"],
    ]


def test_of_a_change_every_field_is_told_before_and_after() -> None:
    fields = [FieldChange("spec.replicas", 1, 2), FieldChange("spec.price", {"currency": "EUR"}, None)]
    assert plan_rows(Change("Deployment", "a", "update", fields, "default"), MANIFEST) == [
        ["~", "Deployment default/a", "spec.replicas", "1 -> 2"],
        ["", "", "spec.price", '{"currency": "EUR"} -> none'],
    ]


def test_what_is_unchanged_is_one_line() -> None:
    rows = plan_rows(Change("Deployment", "a", "unchanged", [], "default"), MANIFEST)
    assert rows == [["=", "Deployment default/a", "", ""]]


def test_a_change_deep_in_a_list_is_told_alone() -> None:
    before = [{"command": ["x", "-c", "one"], "count": 1}]
    after = [{"command": ["x", "-c", "two"], "count": 1}, {"command": ["y"]}]
    assert list(differences("spec.roles", before, after)) == [
        ("spec.roles.0.command.2", "one", "two"),
        ("spec.roles.1", None, {"command": ["y"]}),
    ]


@settings(deadline=None)
@given(JSON)
def test_equal_values_have_no_differences(value: Any) -> None:
    assert list(differences("spec", value, value)) == []


def bare(value: Any) -> Any:
    """The value without what is none: a field that is none and one that is absent are shown alike."""
    if isinstance(value, dict):
        return {k: b for k, v in value.items() if (b := bare(v)) is not None} or None
    if isinstance(value, list):
        items = [bare(v) for v in value]
        while items and items[-1] is None:
            items.pop()
        return items or None
    return value


@settings(deadline=None)
@given(JSON, JSON)
def test_different_values_have_differences_that_differ(before: Any, after: Any) -> None:
    found = list(differences("spec", before, after))
    assert all(old != new for _, old, new in found)
    if bare(before) != bare(after):
        assert found


def test_of_long_values_the_part_that_differs_is_shown() -> None:
    before, after = "x" * 300 + "old" + "y" * 300, "x" * 300 + "new" + "y" * 300
    text = value_text(after, before)
    assert text.startswith("…")
    assert "new" in text
    assert len(text) <= VALUE_CHARACTERS_MAX + 2


def test_the_summary_counts() -> None:
    changes = [Change("A", "a", "create"), Change("A", "b", "unchanged"), Change("A", "c", "unchanged")]
    assert summary(changes) == "1 to create, 2 unchanged"
    assert summary(changes, "created") == "1 created, 2 unchanged"
