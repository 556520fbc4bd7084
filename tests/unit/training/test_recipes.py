"""Recipes: complete by default, described in full, and refused by name when they cannot work."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.training.recipes import TARGETS, Recipe, parse_recipe


def test_an_empty_recipe_is_complete() -> None:
    recipe = parse_recipe({})
    assert recipe == Recipe()
    assert recipe.targets == list(TARGETS)
    assert recipe.sequence_length <= recipe.micro_batch_tokens <= recipe.batch_tokens


def test_every_field_is_described() -> None:
    assert all(field.description for field in Recipe.model_fields.values())


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"rnak": 8}, "recipe.rnak"),
        ({"rank": 0}, "recipe.rank"),
        ({"alpha": -1.0}, "recipe.alpha"),
        ({"learning_rate": 0}, "recipe.learning_rate"),
        ({"targets": []}, "recipe.targets"),
        ({"targets": ["q_proj", "lm_head"]}, "recipe.targets.1"),
        ({"steps": 0}, "recipe.steps"),
        ({"text_share": 1.0}, "recipe.text_share"),
        ({"precision": "float16"}, "recipe.precision"),
        ({"steps": 3, "epochs": 1}, "recipe"),
        ({"sequence_length": 1024, "micro_batch_tokens": 512}, "recipe"),
        ({"batch_tokens": 128, "micro_batch_tokens": 256, "sequence_length": 64}, "recipe"),
        ({"targets": ["q_proj", "q_proj"]}, "recipe"),
        ("fast", "recipe"),
    ],
)
def test_what_cannot_work_is_refused_with_its_field(recipe: Any, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_recipe(recipe)
    assert refusal.value.field == field


def test_an_unknown_field_is_answered_with_the_fields_there_are() -> None:
    with pytest.raises(Invalid, match="learning_rate"):
        parse_recipe({"lr": 1e-3})


def test_a_contradiction_names_both_sides() -> None:
    with pytest.raises(Invalid, match="micro_batch_tokens 64 is less than sequence_length 128"):
        parse_recipe({"sequence_length": 128, "micro_batch_tokens": 64})
