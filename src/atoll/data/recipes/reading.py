"""Recipes: what a curation run does to documents, read, checked to the last rule and completed by a preset.

The schema feeds `atoll explain`. What a recipe means is decided by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from atoll.core.errors import Invalid
from atoll.data.recipes import parts
from atoll.data.recipes.parts import Part, PresetName, RuleSet, RuleSpec
from atoll.data.recipes.presets import completed
from atoll.data.recipes.refusal import refusal
from atoll.data.recipes.source import Source
from atoll.data.rules import Rule, parse_expression
from atoll.data.rulesets import RULE_SETS, rule_set

P = TypeVar("P", bound=Part)


class Recipe(Part):
    """What a curation run does: measure, drop by rules, deduplicate, protect, split, derive."""

    preset: PresetName = Field(
        default="documents", description="Where the defaults come from; `documents` suits prose and reference texts."
    )
    normalise: parts.NormaliseSpec = Field(default=parts.NormaliseSpec(), description="One spelling for equal texts.")
    chinese_words: parts.ChineseWords = Field(
        default="characters",
        description="What a word of Chinese is to rules: each of its `characters`, or what the package `jieba` cuts, "
        "which datatrove counts. Duplicates are told by characters.",
    )
    min_characters: int = Field(default=120, ge=0, description="Shorter documents are dropped as too_short.")
    max_characters: int = Field(default=1_000_000, ge=1, description="Longer documents are dropped as too_long.")
    language: parts.LanguageSpec | None = Field(default=None, description="Languages to keep; null keeps all.")
    rule_sets: list[RuleSet] = Field(default_factory=list, description="Published sets of rules, applied first.")
    rules: list[RuleSpec] = Field(
        default_factory=list, max_length=100, description="Rules, in order; replaces those of the preset."
    )
    quality: list[parts.QualitySpec] = Field(default_factory=list, max_length=8, description="Models that score texts.")
    words: list[parts.WordsSpec] = Field(default_factory=list, max_length=16, description="Lists of sensitive words.")
    dedup: parts.DedupSpec = Field(default=parts.DedupSpec(), description="Which duplicates are dropped.")
    privacy: parts.PrivacySpec | None = Field(default=None, description="Personal data; null leaves it as it is.")
    decontaminate: parts.DecontaminateSpec | None = Field(default=None, description="Evaluation sets to keep out.")
    split: parts.SplitSpec = Field(default=parts.SplitSpec(), description="What is held out from training.")
    mix: parts.MixSpec | None = Field(default=None, description="How much of each source; null takes everything.")
    pack: parts.PackSpec | None = Field(default=None, description="Token sequences beside the texts; null: none.")
    questions: parts.QuestionsSpec = Field(default=parts.QuestionsSpec(), description="Question and answer pairs.")

    @model_validator(mode="before")
    @classmethod
    def _over_its_preset(cls, value: Any) -> Any:
        return completed(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters is greater than max_characters, so every document would be dropped")
        for what, names in (
            (
                "rules",
                [rule.rule for rule in self.rules] + [rule for s in set(self.rule_sets) for rule, _ in RULE_SETS[s]],
            ),
            ("quality models", [quality.name for quality in self.quality]),
            ("word lists", [words.name for words in self.words]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} need names of their own; used twice: {', '.join(twice)}")
        if self.dedup.keep == "best" and not self.quality:
            raise ValueError("dedup.keep is best, which a model under `quality` decides: name one, or keep the longest")
        defined = {f"quality_{quality.name}" for quality in self.quality} | {
            f"words_{words.name}" for words in self.words
        }
        for rule in self.rules:
            _check_defined(rule, defined)
        return self


def _check_defined(rule: RuleSpec, defined: Set[str]) -> None:
    """ValueError when a rule speaks of a score or a list of words the recipe has not."""
    try:
        parse_expression(rule.drop, extra=defined)
    except Invalid as error:
        raise ValueError(f"rule {rule.rule!r}: {error.message} ({error.hint})") from error


def parse_source(value: object, path: str) -> Source:
    """The source in `value`; Invalid names the field under `path` and the way out."""
    return _validated(Source, value, path)


def parse_recipe(value: object, path: str = "recipe") -> Recipe:
    """The recipe in `value`, completed and checked to the last rule; Invalid names the field and the way out."""
    return _validated(Recipe, value, path)


def rules_of(recipe: Recipe) -> list[Rule]:
    """Every rule of the recipe in the order it is applied: length, script, published sets, then its own rules."""
    rules = [
        Rule("too_short", parse_expression(f"characters < {recipe.min_characters}", refuse_constant=False)),
        Rule("too_long", parse_expression(f"characters > {recipe.max_characters}")),
    ]
    if recipe.language and recipe.language.scripts:
        shares = " + ".join(f"{script}_share" for script in sorted(set(recipe.language.scripts)))
        rules.append(
            Rule("language", parse_expression(f"{shares} < {recipe.language.share_min}", refuse_constant=False))
        )
    sets = [rule_set(name, recipe.chinese_words) for name in dict.fromkeys(recipe.rule_sets)]
    rules += [Rule(name, parse_expression(drop)) for published in sets for name, drop in published]
    return rules + [Rule(spec.rule, parse_expression(spec.drop)) for spec in recipe.rules]


def _validated(kind: type[P], value: object, path: str) -> P:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise refusal(kind, error, path) from error
