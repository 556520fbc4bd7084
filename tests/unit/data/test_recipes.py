import pytest
from pydantic import BaseModel

from atoll.core.errors import Invalid
from atoll.data.recipes import RESERVED_RULES, Recipe, Source, parse_recipe, parse_source, rules_of
from atoll.data.recipes.refusal import PATTERNS


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
        ({"min_characters": -1}, "recipe.min_characters", "must be at least 0, not -1"),
        ({"dedup": {"near": {"threshold": 0.2}}}, "recipe.dedup.near.threshold", "must be at least 0.5, not 0.2"),
        ({"split": {"heldout_fraction": 0.9}}, "recipe.split.heldout_fraction", "must be at most 0.5, not 0.9"),
        ({"rules": [{"rule": "a", "drop": "chars < 2"}]}, "recipe.rules[0].drop", "did you mean characters?"),
        ({"rules": [{"rule": "a", "drop": "words <"}]}, "recipe.rules[0].drop", "is not an expression"),
        ({"rules": [{"rule": "A b", "drop": "words < 1"}]}, "recipe.rules[0].rule", "small letters, digits and _"),
        ({"min_characters": 9, "max_characters": 3}, "recipe", "every document would be dropped"),
        ({"questions": {"answer_characters_min": 900}}, "recipe.questions", "greater than"),
        (
            {"language": {"scripts": ["klingon"]}},
            "recipe.language.scripts[0]",
            "must be one of latin, cjk, not 'klingon'",
        ),
        ({"preset": "web"}, "recipe.preset", "did you mean web-en or web-zh?"),
        ({"privacy": {"actions": {"mail": "mask"}}}, "recipe.privacy.actions.mail", "did you mean email?"),
        ({"rules": [{"rule": "a", "dorp": "words < 1"}]}, "recipe.rules[0].dorp", "did you mean drop?"),
        ({"rules": [{"rule": "a"}]}, "recipe.rules[0].drop", "must be given"),
        ({"rules": "words < 1"}, "recipe.rules", "must be a list, not 'words < 1'"),
        ({"rules": ["words < 1"]}, "recipe.rules[0]", "fields here: rule, drop"),
        ({"language": {"keep": ["english"]}}, "recipe.language.keep[0]", "two or three letters such as en"),
        ({"min_characters": "many"}, "recipe.min_characters", "must be a whole number, not 'many'"),
        ({"dedup": {"near": {"threshold": "x"}}}, "recipe.dedup.near.threshold", "must be a number"),
        (
            {"dedup": {"near": {"words": 99}}},
            "recipe.dedup.near.words",
            "see: atoll explain curationrun.spec.recipe.dedup",
        ),
        ({"mix": {"weights": {"s0": 0}}}, "recipe.mix.weights.s0", "must be above 0, not 0"),
        ({"pack": {"length": 64}}, "recipe.pack", "give one of tokenizer and model"),
        ([], "recipe", "must be an object, not []"),
    ],
)
def test_a_wrong_recipe_names_the_field_and_the_way_out(value: object, field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_recipe(value)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_every_pattern_of_the_schema_is_told_in_words() -> None:
    found = {m["pattern"] for kind in (Recipe, Source) for m in _patterns(kind.model_json_schema())}
    assert found <= PATTERNS.keys() and found


def _patterns(schema: object) -> list[dict[str, str]]:
    if isinstance(schema, list):
        return [found for item in schema for found in _patterns(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if isinstance(schema.get("pattern"), str) else []
    return own + [found for item in schema.values() for found in _patterns(item)]


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
        ({"kind": "web"}, "must be one of stdlib, folder"),
        ({"kind": "folder", "path": "x", "pattern": "*"}, "did you mean patterns?"),
        ({"kind": "package", "reference": "numpy"}, "a package is pypi:"),
        ({"kind": "package", "reference": "file:/etc"}, "its reference begins with pypi:"),
        ({"kind": "hub", "reference": "pypi:texts==1.0"}, "its reference begins with hf:"),
        ("docs", "must be an object, not 'docs'"),
    ],
)
def test_a_wrong_source_is_refused(value: object, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_source(value, "sources[0]")
    assert caught.value.field.startswith("sources[0]")
    assert said in str(caught.value)


def test_a_language_that_no_text_is_told_to_be_in_is_refused() -> None:
    for recipe in ({"language": {"keep": ["en", "jp"]}}, {"rules": [{"rule": "a", "drop": 'language == "jp"'}]}):
        with pytest.raises(Invalid, match="no text is told to be in the language 'jp'") as caught:
            parse_recipe(recipe)
        assert "ISO 639" in caught.value.hint
        assert caught.value.field in ("recipe.language.keep", "recipe.rules[0].drop")
    assert parse_recipe({"language": {"keep": ["zh-hant", "no", "und"]}}).language is not None
