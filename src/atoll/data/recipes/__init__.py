"""Recipes and sources: what a curation run is asked to do."""

from atoll.data.recipes.parts import (
    RESERVED_RULES,
    DedupSpec,
    LanguageSpec,
    NearSpec,
    Part,
    PrivacySpec,
    QuestionsSpec,
    RuleSpec,
    SplitSpec,
)
from atoll.data.recipes.presets import PRESETS
from atoll.data.recipes.reading import Recipe, parse_recipe, parse_source, rules_of
from atoll.data.recipes.source import FieldsSpec, Source

__all__ = [
    "PRESETS",
    "RESERVED_RULES",
    "DedupSpec",
    "FieldsSpec",
    "LanguageSpec",
    "NearSpec",
    "Part",
    "PrivacySpec",
    "QuestionsSpec",
    "Recipe",
    "RuleSpec",
    "Source",
    "SplitSpec",
    "parse_recipe",
    "parse_source",
    "rules_of",
]
