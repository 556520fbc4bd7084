from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.plan import FOLDER_PATTERNS, plan_of


def _plan_input(**changes: Any) -> dict[str, Any]:
    return {"sources": [{"kind": "stdlib"}], "recipe": {}, "seed": 1} | changes


def test_an_input_becomes_plain_values() -> None:
    plan = plan_of(_plan_input(sources=[{"kind": "folder", "path": "docs"}, {"kind": "stdlib"}]))
    assert plan.sources[0].patterns == FOLDER_PATTERNS
    assert [source.licence for source in plan.sources] == ["unknown", "PSF-2.0"]
    assert plan.drop_exact and plan.drop_near and plan.near.permutations == 112


def test_without_near_duplicates_dropped_the_clusters_of_the_split_still_have_a_threshold() -> None:
    plan = plan_of(_plan_input(recipe={"dedup": {"near": None}}))
    assert not plan.drop_near
    assert plan.near.threshold == 0.75


def test_a_source_as_a_resource_dumps_it_is_accepted() -> None:
    dumped = {"kind": "stdlib", "path": "", "patterns": None, "licence": ""}
    assert plan_of(_plan_input(sources=[dumped])).sources[0].licence == "PSF-2.0"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sources": []}, "sources"),
        ({"sources": None}, "sources"),
        ({"sources": "docs"}, "sources"),
        ({"sources": [{"kind": "stdlib"}, {"kind": "folder", "path": 3}]}, "sources[1].path"),
        ({"sources": [{"kind": "folder", "path": "x", "patterns": [""]}]}, "sources[0].patterns[0]"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"recipe": {"no": 1}}, "recipe.no"),
        ({"recipe": []}, "recipe"),
        ({"sede": 1}, "sede"),
    ],
)
def test_a_wrong_input_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan_of(_plan_input(**changes))
    assert caught.value.field == field
    assert str(caught.value)
