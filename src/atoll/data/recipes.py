"""Recipes: what a curation run does to documents, with every field described and unknown fields refused.

A recipe starts from a preset and changes what it names. The schema feeds `atoll explain`. What a recipe means is
decided by the engine; here it is only read, checked and completed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from atoll.core.errors import Invalid
from atoll.data.rules import Rule, parse_expression

Share = Annotated[float, Field(ge=0, le=1)]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
RESERVED_RULES = frozenset({"unreadable", "too_short", "too_long", "language", "exact_duplicate", "near_duplicate"})
"""Reasons the engine gives itself; a rule of one's own needs another name."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Part = TypeVar("Part", bound=_Part)


class RuleSpec(_Part):
    """A document is dropped when the expression holds; the first rule that holds is its reason."""

    rule: RuleName = Field(description="Name of the rule: the reason a dropped document keeps.")
    drop: str = Field(description="Condition over the statistics of a document, such as `symbol_ratio > 0.4`.")

    @field_validator("rule")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_RULES:
            raise ValueError(f"{name!r} is a reason the engine gives itself; choose another name")
        return name

    @field_validator("drop")
    @classmethod
    def _parses(cls, drop: str) -> str:
        try:
            return parse_expression(drop).text
        except Invalid as error:
            fault = {"fault": error.message, "hint": error.hint}
            raise PydanticCustomError("expression", "{fault} ({hint})", fault) from error


class NearSpec(_Part):
    """Near duplicates by MinHash; every candidate pair is verified by the exact Jaccard index of its shingles."""

    threshold: float = Field(
        default=0.75, ge=0.5, le=1, description="Jaccard index of 5-token shingles from which two texts are duplicates."
    )
    permutations: int = Field(
        default=112, ge=16, le=512, description="Length of a MinHash signature; more finds more at more cost."
    )


class DedupSpec(_Part):
    """Which duplicates go; of each cluster the longest document stays (the smallest id of equally long ones)."""

    exact: bool = Field(default=True, description="Drop documents whose normalised text is equal to another's.")
    near: NearSpec | None = Field(default=NearSpec(), description="How near duplicates are found; null keeps them.")


class SplitSpec(_Part):
    """Documents held out from training, by whole clusters of near duplicates, so nothing leaks."""

    heldout_fraction: float = Field(default=0.1, ge=0, le=0.5, description="Share of the clusters that is held out.")


class QuestionsSpec(_Part):
    """Question and answer pairs cut from the documents themselves; an answer is an exact span of its document."""

    enabled: bool = Field(default=True, description="Whether to derive question and answer pairs.")
    per_document_max: int = Field(default=8, ge=1, le=100, description="At most so many pairs of one document.")
    answer_characters_min: int = Field(default=40, ge=1, description="Shorter answers are not used.")
    answer_characters_max: int = Field(default=600, ge=20, description="Longer answers end at an earlier sentence.")

    @model_validator(mode="after")
    def _ordered(self) -> QuestionsSpec:
        if self.answer_characters_min > self.answer_characters_max:
            raise ValueError("answer_characters_min is greater than answer_characters_max")
        return self


class LanguageSpec(_Part):
    """Which scripts a document may be written in, by counting letters (no language identification)."""

    scripts: list[Literal["latin", "cjk"]] = Field(min_length=1, description="Scripts to keep.")
    share_min: Share = Field(default=0.5, description="Share of a document's letters those scripts must have.")


_DOCUMENT_RULES = [
    RuleSpec(rule="few_letters", drop="alpha_ratio < 0.4"),
    RuleSpec(rule="long_words", drop="mean_word_length > 20"),
    RuleSpec(rule="repeated_lines", drop="lines >= 10 and duplicate_line_ratio > 0.5"),
]


class Recipe(_Part):
    """What a curation run does: rules, then exact and near duplicates, then a leak-free split and questions."""

    preset: Literal["documents"] = Field(
        default="documents", description="Where the defaults come from: `documents` suits prose and reference texts."
    )
    min_characters: int = Field(default=120, ge=0, description="Shorter documents are dropped as too_short.")
    max_characters: int = Field(default=1_000_000, ge=1, description="Longer documents are dropped as too_long.")
    rules: list[RuleSpec] = Field(
        default=_DOCUMENT_RULES, max_length=100, description="Quality rules, in order; replaces those of the preset."
    )
    language: LanguageSpec | None = Field(default=None, description="Scripts to keep; null keeps every script.")
    dedup: DedupSpec = Field(default=DedupSpec(), description="Which duplicates are dropped.")
    split: SplitSpec = Field(default=SplitSpec(), description="What is held out from training.")
    questions: QuestionsSpec = Field(default=QuestionsSpec(), description="Question and answer pairs.")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters is greater than max_characters, so every document would be dropped")
        names = [rule.rule for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rules need names of their own; used twice: {', '.join(twice)}")
        return self


class Source(_Part):
    """Where documents come from."""

    kind: Literal["stdlib", "folder"] = Field(
        description="`stdlib`: the documentation of this Python's standard library; `folder`: files under a path."
    )
    path: str = Field(default="", description="Folder on the node the run is placed on; for kind folder only.")
    patterns: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, description="File names to read, such as `*.md`; null reads txt, md, rst and html."
    )
    licence: str = Field(default="", description="SPDX name of the documents' licence, if known.")

    @model_validator(mode="after")
    def _fits_kind(self) -> Source:
        if self.kind == "folder" and not self.path:
            raise ValueError("a source of kind folder needs a path")
        if self.kind == "stdlib" and (self.path or self.patterns):
            raise ValueError("a source of kind stdlib has neither path nor patterns")
        return self


def parse_source(value: object, path: str) -> Source:
    """The source in `value`; Invalid names the field under `path` and the way out."""
    return _validated(Source, value, path)


def parse_recipe(value: object, path: str = "recipe") -> Recipe:
    """The recipe in `value`, completed and checked to the last rule; Invalid names the field and the way out."""
    return _validated(Recipe, value, path)


def rules_of(recipe: Recipe) -> list[Rule]:
    """Every rule of the recipe in the order it is applied: length, script, then its own rules."""
    rules = [
        Rule("too_short", parse_expression(f"characters < {recipe.min_characters}")),
        Rule("too_long", parse_expression(f"characters > {recipe.max_characters}")),
    ]
    if recipe.language:
        shares = " + ".join(f"{script}_share" for script in sorted(set(recipe.language.scripts)))
        rules.append(Rule("language", parse_expression(f"{shares} < {recipe.language.share_min}")))
    return rules + [Rule(spec.rule, parse_expression(spec.drop)) for spec in recipe.rules]


def _validated(kind: type[Part], value: object, path: str) -> Part:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refusal(kind, error, path) from error


def _refusal(kind: type[_Part], error: ValidationError, path: str) -> Invalid:
    first = error.errors(include_url=False)[0]
    where = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown_field(_part_at(kind, first["loc"][:-1]), str(first["loc"][-1]), where)
    if first["type"] == "expression":
        return Invalid(f"{where}: {first['ctx']['fault']}", field=where, hint=first["ctx"]["hint"])
    message = first["msg"].removeprefix("Value error, ")
    is_plain = first["type"] == "value_error" or isinstance(first["input"], Mapping | _Part)
    given = "" if is_plain else f", not {first['input']!r:.80}"
    hint = "" if first["type"] == "value_error" else "see the schema: atoll explain curationrun.spec"
    return Invalid(f"{where}: {message[0].lower()}{message[1:]}{given}", field=where, hint=hint)


def _unknown_field(part: type[BaseModel], name: str, where: str) -> Invalid:
    names = list(part.model_fields)
    nearest = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return Invalid(f"there is no field {where!r}", field=where, hint=f"{guess}fields here: {', '.join(names)}")


def _part_at(kind: type[_Part], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The part of a recipe that stands at `location`."""
    parts: dict[tuple[str, ...], type[BaseModel]] = {
        ("rules",): RuleSpec,
        ("language",): LanguageSpec,
        ("dedup",): DedupSpec,
        ("dedup", "near"): NearSpec,
        ("split",): SplitSpec,
        ("questions",): QuestionsSpec,
    }
    return parts.get(tuple(part for part in location if isinstance(part, str)), kind)
