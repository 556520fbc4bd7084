"""The plan of a curation run: the input, read and checked once, as plain values for the engine.

Nothing here opens a file; a plan that exists is valid apart from what the sources hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.errors import Invalid
from atoll.data.recipes import NearSpec, Recipe, parse_recipe, parse_source, rules_of
from atoll.data.rules import Rule

FOLDER_PATTERNS = ("*.txt", "*.md", "*.markdown", "*.rst", "*.html", "*.htm")
SEED_MAX = 2**63


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from: `stdlib` (this Python's own documentation) or `folder` (files under `path`)."""

    kind: str
    path: str = ""
    patterns: tuple[str, ...] = FOLDER_PATTERNS
    licence: str = "unknown"


@dataclass(frozen=True, slots=True)
class Near:
    """Duplicates are texts whose shingle sets have at least this Jaccard index."""

    threshold: float
    permutations: int


@dataclass(frozen=True, slots=True)
class Questions:
    """Limits of the derived pairs, in pairs and characters."""

    enabled: bool
    per_document_max: int
    answer_characters_min: int
    answer_characters_max: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run does, fixed. `near` also defines the clusters a split may not cut, kept or dropped."""

    sources: tuple[Source, ...]
    rules: tuple[Rule, ...]
    near: Near
    drop_exact: bool
    drop_near: bool
    heldout_fraction: float
    questions: Questions
    seed: int
    recipe: dict[str, Any]


def plan_of(task_input: Mapping[str, Any]) -> Plan:
    """The plan the task input asks for; Invalid names the field that cannot be."""
    unknown = sorted(set(task_input) - {"sources", "recipe", "seed"})
    if unknown:
        raise Invalid(f"a curation has no field {unknown[0]!r}", field=unknown[0], hint="fields: sources, recipe, seed")
    recipe = task_input.get("recipe")
    return _plan(_sources(task_input.get("sources")), parse_recipe({} if recipe is None else recipe), _seed(task_input))


def _plan(sources: tuple[Source, ...], recipe: Recipe, seed: int) -> Plan:
    near = recipe.dedup.near or NearSpec()
    return Plan(
        sources=sources,
        rules=tuple(rules_of(recipe)),
        near=Near(near.threshold, near.permutations),
        drop_exact=recipe.dedup.exact,
        drop_near=recipe.dedup.near is not None,
        heldout_fraction=recipe.split.heldout_fraction,
        questions=Questions(**recipe.questions.model_dump()),
        seed=seed,
        recipe=recipe.model_dump(mode="json"),
    )


def _seed(task_input: Mapping[str, Any]) -> int:
    seed = task_input.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEED_MAX:
        raise Invalid(f"seed is {seed!r}", field="seed", hint="a whole number from 0 to 2**63 - 1")
    return seed


def _sources(value: object) -> tuple[Source, ...]:
    if not isinstance(value, list) or not value:
        hint = 'a list such as [{"kind": "stdlib"}] or [{"kind": "folder", "path": "docs"}]'
        raise Invalid("a curation needs at least one source", field="sources", hint=hint)
    return tuple(_source(item, f"sources[{index}]") for index, item in enumerate(value))


def _source(value: object, where: str) -> Source:
    source = parse_source(value, where)
    if source.kind == "stdlib":
        return Source("stdlib", licence=source.licence or "PSF-2.0")
    patterns = tuple(source.patterns) if source.patterns else FOLDER_PATTERNS
    return Source("folder", source.path, patterns, source.licence or "unknown")
