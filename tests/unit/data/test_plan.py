import pickle
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.data.engine.curate.planning import plan_of


def _plan_input(**changes: Any) -> dict[str, Any]:
    return {"sources": [{"kind": "stdlib"}], "recipe": {}, "seed": 1} | changes


def test_an_input_becomes_plain_values() -> None:
    plan = plan_of(_plan_input(sources=[{"kind": "folder", "path": "docs"}, {"kind": "stdlib"}]))
    assert [source.patterns for source in plan.sources] == [None, None]
    assert [source.licence for source in plan.sources] == ["unknown", "PSF-2.0"]
    assert [source.name for source in plan.sources] == ["s0", "s1"]
    assert plan.dedup.exact and plan.near.permutations == 112


def test_every_part_of_a_recipe_becomes_a_plain_value_that_travels() -> None:
    recipe = {
        "preset": "web-en",
        "privacy": {"actions": {"email": "hash"}},
        "mix": {"weights": {"s0": 2}},
        "decontaminate": {"sets": ["test.jsonl"]},
        "words": [{"name": "rude", "words": ["a", "b"]}],
        "quality": [{"name": "edu", "model": "/models/edu"}],
        "pack": {"tokenizer": "bytes"},
    }
    plan = plan_of(_plan_input(recipe=recipe))
    assert pickle.loads(pickle.dumps(plan)).dedup == plan.dedup
    assert plan.dedup.lines is not None and plan.dedup.url
    assert plan.language is not None and plan.language.keep == ("en",)
    assert plan.privacy is not None and plan.privacy.action("email") == "hash" and plan.privacy.action("ip") == "mask"
    assert plan.mix is not None and plan.mix.weights == (("s0", 2.0),)
    assert plan.words[0].words == ("a", "b") and plan.quality[0].model == "/models/edu"
    assert [rule.name for rule in plan.rules][:2] == ["too_short", "too_long"]
    assert "c4_lorem_ipsum" in [rule.name for rule in plan.rules]


def test_two_sources_of_one_name_are_refused() -> None:
    sources = [{"kind": "folder", "path": "a", "name": "docs"}, {"kind": "folder", "path": "b", "name": "docs"}]
    with pytest.raises(Invalid, match="docs"):
        plan_of(_plan_input(sources=sources))


def test_without_near_duplicates_dropped_the_clusters_of_the_split_still_have_a_threshold() -> None:
    plan = plan_of(_plan_input(recipe={"dedup": {"near": None}}))
    assert plan.dedup.near is None
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
