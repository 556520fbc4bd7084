import pytest
from pydantic import BaseModel

from atoll.core.errors import Invalid
from atoll.data.recipes import RESERVED_RULES, Recipe, parse_recipe, parse_source, rules_of


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= _models(kind)
    return found


def test_an_empty_recipe_is_the_documents_preset() -> None:
    recipe = parse_recipe({})
    assert recipe.preset == "documents"
    assert recipe.dedup.exact and recipe.dedup.near
    assert [rule.name for rule in rules_of(recipe)][:2] == ["too_short", "too_long"]


def test_every_field_is_described() -> None:
    models = _models(Recipe)
    assert len(models) > 15
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def test_a_recipe_read_from_its_own_dump_is_the_same() -> None:
    recipe = parse_recipe({"min_characters": 7, "dedup": {"near": None}, "language": {"scripts": ["cjk"]}})
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ({"min_character": 3}, "recipe.min_character", "did you mean min_characters?"),
        ({"dedup": {"near": {"treshold": 1}}}, "recipe.dedup.near.treshold", "did you mean threshold?"),
        ({"split": {"x": 1}}, "recipe.split.x", "heldout_fraction"),
        ({"rules": [{"rule": "a", "drop": "words < 1", "why": ""}]}, "recipe.rules[0].why", "fields here: rule, drop"),
        ({"min_characters": -1}, "recipe.min_characters", "not -1"),
        ({"dedup": {"near": {"threshold": 0.2}}}, "recipe.dedup.near.threshold", "0.5"),
        ({"split": {"heldout_fraction": 0.9}}, "recipe.split.heldout_fraction", "0.5"),
        ({"rules": [{"rule": "a", "drop": "chars < 2"}]}, "recipe.rules[0].drop", "columns: characters"),
        ({"rules": [{"rule": "a", "drop": "words <"}]}, "recipe.rules[0].drop", "is not an expression"),
        ({"rules": [{"rule": "A b", "drop": "words < 1"}]}, "recipe.rules[0].rule", "pattern"),
        ({"min_characters": 9, "max_characters": 3}, "recipe", "every document would be dropped"),
        ({"questions": {"answer_characters_min": 900}}, "recipe.questions", "greater than"),
        ({"language": {"scripts": ["klingon"]}}, "recipe.language.scripts[0]", "'latin' or 'cjk'"),
        ({"preset": "magic"}, "recipe.preset", "documents"),
        ([], "recipe", "dictionary"),
    ],
)
def test_a_wrong_recipe_names_the_field_and_the_way_out(value: object, field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_recipe(value)
    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize("name", sorted(RESERVED_RULES))
def test_a_rule_may_not_take_a_reason_of_the_engine(name: str) -> None:
    with pytest.raises(Invalid, match="choose another name"):
        parse_recipe({"rules": [{"rule": name, "drop": "words < 1"}]})


def test_two_rules_may_not_share_a_name() -> None:
    with pytest.raises(Invalid, match="used twice: a"):
        parse_recipe({"rules": [{"rule": "a", "drop": "words < 1"}, {"rule": "a", "drop": "lines < 1"}]})


def test_scripts_become_one_rule_over_their_shares() -> None:
    recipe = parse_recipe({"language": {"scripts": ["latin", "cjk"], "share_min": 0.25}})
    drop = {rule.name: rule.drop.text for rule in rules_of(recipe)}
    assert drop["language"] == "cjk_share + latin_share < 0.25"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kind": "folder"}, "needs a path"),
        ({"kind": "stdlib", "path": "x"}, "has no path"),
        ({"kind": "stdlib", "patterns": ["*.md"]}, "neither path nor patterns"),
        ({"kind": "web"}, "'stdlib', 'folder'"),
        ({"kind": "folder", "path": "x", "pattern": "*"}, "did you mean patterns?"),
        ({"kind": "package", "reference": "numpy"}, "a package is pypi:"),
        ({"kind": "package", "reference": "file:/etc"}, "its reference begins with pypi:"),
        ({"kind": "hub", "reference": "pypi:texts==1.0"}, "its reference begins with hf:"),
        ("docs", "dictionary"),
    ],
)
def test_a_wrong_source_is_refused(value: object, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_source(value, "sources[0]")
    assert caught.value.field.startswith("sources[0]")
    assert said in str(caught.value)
