"""What is counted so that agreement never has to look at the items again.

For each field and two raters, how often one said `a` and the other `b`, kept apart by how many people said anything
of the item. A changed answer takes its old counts away and adds its new ones. Rater 0 is the model that pre-labelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from atoll.data.labelling import agreement
from atoll.data.labelling.schema import ClassesField, ClassField, Fields, PairField, RatingField, SpansField, TextField
from atoll.data.labelling.values import PAIR, Values

MODEL = 0
"""The number of the model among raters."""

MATCH, FIRST, SECOND = "match", "first", "second"
EXACT, CHARACTERS = "exact", "characters"


class Cell(NamedTuple):
    """`raters` people gave a value of `field`; `first` said `a`, `second` (a higher number) said `b`.

    Of spans: a is match, first or second, b is exact (spans) or characters, and what is counted are those.
    """

    field: str
    first: int
    second: int
    raters: int
    a: str
    b: str


def tally(fields: Fields, answers: Mapping[int, Values], said_by_model: Values | None) -> Counter[Cell]:
    """What the answers to one item, by labeller's number, add to the counts."""
    found: Counter[Cell] = Counter()
    for field in fields:
        if isinstance(field, TextField):
            continue
        given = {number: values[field.name] for number, values in sorted(answers.items()) if field.name in values}
        for one, other in combinations(given, 2):
            found.update(_cells(field, (one, other), len(given), given[one], given[other]))
        if said_by_model is not None and field.name in said_by_model:
            for number, value in given.items():
                found.update(_cells(field, (MODEL, number), len(given), said_by_model[field.name], value))
    return found


def _cells(field: Any, raters: tuple[int, int], count: int, first: Any, second: Any) -> dict[Cell, int]:
    if not isinstance(field, SpansField):
        return {Cell(field.name, *raters, count, code(field, first), code(field, second)): 1}
    spans = [{(s["start"], s["stop"], s["label"]) for s in value} for value in (first, second)]
    marked = [{(at, label) for start, stop, label in value for at in range(start, stop)} for value in spans]
    found = {}
    for what, (one, other) in ((EXACT, spans), (CHARACTERS, marked)):
        for name, number in ((MATCH, len(one & other)), (FIRST, len(one)), (SECOND, len(other))):
            if number:
                found[Cell(field.name, *raters, count, name, what)] = number
    return found


def code(field: Any, value: Any) -> str:
    """A value as it is counted: options by their place, so that names may be long and many."""
    if isinstance(field, ClassField):
        return str(field.options.index(value))
    if isinstance(field, ClassesField):
        return " ".join(str(field.options.index(name)) for name in value)
    if isinstance(field, PairField):
        return str(PAIR.index(value))
    return str(value)


def decode(field: Any, coded: str) -> Any:
    """The value again; classes as a frozen set of places."""
    if isinstance(field, ClassesField):
        return frozenset(int(place) for place in coded.split())
    return int(coded)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree on one field; None where nothing can be said.

    `pairs` counts pairs of answers. `alpha` is by `scale`: nominal, ordinal (ratings; `alpha_interval` too) or sets.
    `kappa` is the mean of the pairs of raters weighted by their items, and the kappa itself where there are two.
    """

    field: str
    scale: str
    pairs: int
    percent: float | None
    kappa: float | None
    alpha: float | None
    alpha_interval: float | None = None
    f1_exact: float | None = None
    f1_characters: float | None = None


def people(fields: Fields, cells: Mapping[Cell, int]) -> list[Agreement]:
    """Agreement of the people with each other, field by field; free text is left out."""
    return [_agreement(f, _of(f, cells, False)) for f in fields if not isinstance(f, TextField)]


def model(fields: Fields, cells: Mapping[Cell, int]) -> list[Agreement]:
    """Agreement of the model's pre-labels with the people, field by field."""
    return [_agreement(f, _of(f, cells, True)) for f in fields if not isinstance(f, TextField)]


def by_pair(fields: Fields, cells: Mapping[Cell, int]) -> list[dict[str, Any]]:
    """Cohen's kappa (F1 for spans) of every two people who labelled the same items."""
    rows = []
    for field in fields:
        own = [] if isinstance(field, TextField) else _of(field, cells, False)
        for first, second in sorted({(cell.first, cell.second) for cell, _ in own}):
            figures = _agreement(field, [(c, n) for c, n in own if (c.first, c.second) == (first, second)])
            value = figures.f1_exact if isinstance(field, SpansField) else figures.kappa
            row = {"field": field.name, "first": first, "second": second, "pairs": figures.pairs}
            rows.append(row | {"percent": figures.percent, "kappa": value})
    return rows


def _of(field: Any, cells: Mapping[Cell, int], of_model: bool) -> list[tuple[Cell, int]]:
    return [(c, n) for c, n in cells.items() if c.field == field.name and (c.first == MODEL) == of_model and n]


def _agreement(field: Any, own: Sequence[tuple[Cell, int]]) -> Agreement:
    if isinstance(field, SpansField):
        return _of_spans(field, own)
    seen = [(cell, decode(field, cell.a), decode(field, cell.b), number) for cell, number in own]
    pairs: Counter[tuple[Any, Any]] = Counter()
    coincidences: dict[tuple[Any, Any], float] = {}
    for cell, a, b, number in seen:
        pairs[a, b] += number
        weight = number / (cell.raters - 1 if cell.first != MODEL and cell.raters > 1 else 1)
        for pair in ((a, b), (b, a)):
            coincidences[pair] = coincidences.get(pair, 0.0) + weight
    distance, scale = _distance(field)
    return Agreement(
        field.name,
        scale,
        sum(pairs.values()),
        agreement.percent(pairs),
        _mean_kappa(seen),
        agreement.krippendorff_alpha(coincidences, distance),
        agreement.krippendorff_alpha(coincidences, agreement.interval) if isinstance(field, RatingField) else None,
    )


def _distance(field: Any) -> tuple[agreement.Distance[Any], str]:
    if isinstance(field, RatingField):
        return agreement.ordinal, "ordinal"
    if isinstance(field, ClassesField):
        return agreement.jaccard, "sets"
    return agreement.nominal, "nominal"


def _mean_kappa(seen: Iterable[tuple[Cell, Any, Any, int]]) -> float | None:
    """The mean kappa of the pairs of raters, each weighted by its items; a model is one rater, all people the other."""
    by_raters: dict[tuple[int, int], Counter[tuple[Any, Any]]] = {}
    for cell, a, b, number in seen:
        raters = (cell.first, cell.second if cell.first != MODEL else MODEL)
        by_raters.setdefault(raters, Counter())[a, b] += number
    total = sum(sum(pairs.values()) for pairs in by_raters.values())
    kappas = ((agreement.cohen_kappa(pairs), sum(pairs.values())) for pairs in by_raters.values())
    return sum(kappa * number for kappa, number in kappas if kappa is not None) / total if total else None


def _of_spans(field: SpansField, own: Sequence[tuple[Cell, int]]) -> Agreement:
    sums: Counter[tuple[str, str]] = Counter()
    for cell, number in own:
        sums[cell.a, cell.b] += number
    figures = {what: agreement.f1(*(sums[n, what] for n in (MATCH, FIRST, SECOND))) for what in (EXACT, CHARACTERS)}
    pairs = sums[FIRST, EXACT] + sums[SECOND, EXACT]
    return Agreement(
        field.name, "spans", pairs, None, None, None, f1_exact=figures[EXACT], f1_characters=figures[CHARACTERS]
    )
