"""From the input of a run to its plan: sources, recipe and seed, checked to the last field.

Nothing here opens a file; a plan that exists is valid apart from what the sources hold. Workers never import this
module: the schema's library is heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel

from atoll.core.errors import Invalid
from atoll.data.engine.curate import plan as plans
from atoll.data.engine.curate.plan import Plan, Source
from atoll.data.recipes import Recipe, parse_recipe, parse_source, rules_of

SEED_MAX = 2**63
PARTS = (
    *("normalise", "language", "dedup", "privacy", "decontaminate", "split", "mix", "pack", "questions"),
    *("quality", "words"),
)

P = TypeVar("P")


def plan_of(task_input: Mapping[str, Any]) -> Plan:
    """The plan the task input asks for; Invalid names the field that cannot be."""
    unknown = sorted(set(task_input) - {"sources", "recipe", "seed"})
    if unknown:
        raise Invalid(f"a curation has no field {unknown[0]!r}", field=unknown[0], hint="fields: sources, recipe, seed")
    recipe = task_input.get("recipe")
    checked = recipe if isinstance(recipe, Recipe) else parse_recipe({} if recipe is None else recipe)
    sources = _sources(task_input.get("sources"))
    _check_weights(checked, sources)
    return plan_with(sources, checked, _seed(task_input))


def plan_with(sources: tuple[Source, ...], recipe: Recipe, seed: int) -> Plan:
    """The plan of a recipe that is checked already."""
    kinds = get_type_hints(Plan)
    return Plan(
        sources=sources,
        rules=tuple(rules_of(recipe)),
        min_characters=recipe.min_characters,
        chinese_words=recipe.chinese_words,
        seed=seed,
        known=tuple(recipe.dedup.known) if recipe.dedup.known or recipe.dedup.keep_index else None,
        recipe=recipe.model_dump(mode="json"),
        **{name: _plain(kinds[name], getattr(recipe, name)) for name in PARTS},
    )


def _check_weights(recipe: Recipe, sources: tuple[Source, ...]) -> None:
    names = [source.name for source in sources]
    strange = sorted(set(recipe.mix.weights if recipe.mix else ()) - set(names))
    if strange:
        hint = f"the run's sources: {', '.join(names)}"
        raise Invalid(f"a weight is given to {strange[0]!r}, which is no source", field="recipe.mix.weights", hint=hint)


def _plain(kind: Any, value: Any) -> Any:
    """`value` of the schema as the plain value `kind` stands for."""
    inner = [part for part in get_args(kind) if part not in (NoneType, Ellipsis)]
    if value is None or kind is Any:
        return value
    if isinstance(kind, UnionType):
        return _plain(inner[0], value)
    if is_dataclass(kind):
        return _part(kind, value)
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return tuple(_plain(inner[0], item) for item in value) if isinstance(value, list) else value


def _part(kind: Any, value: BaseModel) -> Any:
    hints = get_type_hints(kind)
    told = [field.name for field in fields(kind) if field.name in type(value).model_fields]
    return kind(**{name: _plain(hints[name], getattr(value, name)) for name in told})


def _seed(task_input: Mapping[str, Any]) -> int:
    seed = task_input.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEED_MAX:
        raise Invalid(f"seed is {seed!r}", field="seed", hint="a whole number from 0 to 2**63 - 1")
    return seed


def _sources(value: object) -> tuple[Source, ...]:
    if not isinstance(value, list) or not value:
        hint = 'a list such as [{"kind": "stdlib"}] or [{"kind": "folder", "path": "docs"}]'
        raise Invalid("a curation needs at least one source", field="sources", hint=hint)
    found = tuple(_source(item, index) for index, item in enumerate(value))
    names = [source.name for source in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Invalid(f"two sources are called {twice[0]!r}", field="sources", hint="give each a name of its own")
    return found


def _source(value: object, index: int) -> Source:
    source = parse_source(value, f"sources[{index}]")
    licence = source.licence or ("PSF-2.0" if source.kind == "stdlib" else "unknown")
    return Source(
        kind=source.kind,
        name=source.name or f"s{index}",
        path=source.path,
        paths=tuple(source.paths),
        digest=source.digest,
        reference=source.reference,
        patterns=None if source.patterns is None else tuple(source.patterns),
        fields=plans.Fields(**source.fields.model_dump()),
        licence=licence,
    )
