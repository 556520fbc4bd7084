"""What a kind's fields mean, read from the schemas the kinds themselves give."""

from __future__ import annotations

import pytest

from atoll.cli.explain import FieldFacts, local_kind, page
from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import KINDS
from atoll.sdk.wire import KindInfo


def fields(shown: list[tuple[str, list[FieldFacts]]]) -> dict[str, FieldFacts]:
    return {f.name: f for _, group in shown for f in group}


def test_a_kind_shows_its_spec_and_its_status() -> None:
    shown = page(local_kind("deployments"), [])
    assert shown.title == "Deployment (deployments)"
    assert [title for title, _ in shown.groups] == ["spec", "status"]
    known = fields(shown.groups)
    assert known["model"].is_required
    assert (known["replicas"].type, known["replicas"].default) == ("whole number", "1")
    assert known["replicas"].limits == "at least 0, at most 64"


def test_spec_is_meant_unless_status_is_said() -> None:
    info = local_kind("Deployment")
    assert page(info, ["replicas"]) == page(info, ["spec", "replicas"])
    assert page(info, ["status", "ready"]).facts.type == "whole number"


def test_a_nested_optional_object_shows_its_fields() -> None:
    shown = page(local_kind("Deployment"), ["spec", "price"])
    assert (shown.facts.type, shown.facts.description) == (
        "Price or none",
        "What its use costs; empty: the Price of its model.",
    )
    assert set(fields(shown.groups)) == {
        *("input_per_million", "cached_input_per_million", "output_per_million", "per_accelerator_hour", "currency")
    }
    assert page(local_kind("Deployment"), ["price", "currency"]).facts.limits.startswith("pattern")


def test_lists_of_objects_are_walked_through() -> None:
    shown = page(local_kind("Workload"), ["roles"])
    assert shown.facts.type == "list of RoleSpec"
    assert "command" in fields(shown.groups)
    assert page(local_kind("Workload"), ["roles", "command"]).facts.type == "list of text"
    assert page(local_kind("Workload"), ["roles", "resources", "cpu"]).facts.default == "1.0"


def test_choices_are_listed() -> None:
    assert page(local_kind("Workload"), ["restart", "policy"]).facts.type == 'one of "never", "on_failure", "always"'


def test_a_union_shows_the_fields_of_each_of_its_kinds() -> None:
    schema = {
        "properties": {"source": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]}},
        "$defs": {
            "A": {"type": "object", "title": "A", "description": "One.", "properties": {"x": {"type": "string"}}},
            "B": {"type": "object", "title": "B", "properties": {"y": {"const": 3}}},
        },
    }
    shown = page(KindInfo("K", "ks", spec_schema=schema), ["source"])
    assert shown.facts.type == "A or B"
    assert [title for title, _ in shown.groups] == ["A: One.", "B"]
    assert page(KindInfo("K", "ks", spec_schema=schema), ["source", "y"]).facts.type == "3"


def test_a_wrong_field_names_the_nearest() -> None:
    with pytest.raises(Invalid, match=r"Deployment\.spec has no field 'replica'.*did you mean 'replicas'"):
        page(local_kind("Deployment"), ["replica"])
    with pytest.raises(Invalid, match="it has no fields"):
        page(local_kind("Deployment"), ["replicas", "x"])
    with pytest.raises(NotFound, match="nearest"):
        local_kind("deploymend")


def test_every_field_of_every_kind_can_be_explained() -> None:
    local_kind("Deployment")
    for kind in KINDS:
        info = local_kind(kind.name)
        for root, schema in (("spec", info.spec_schema), ("status", info.status_schema)):
            for name in schema.get("properties", {}):
                shown = page(info, [root, name])
                assert shown.facts.type not in ("", "anything") or shown.facts.description, f"{kind.name}.{root}.{name}"
                for _, group in shown.groups:
                    for field in group:
                        page(info, [root, name, field.name])
